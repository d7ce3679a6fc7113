//! What an export has beside the journal.

use uuid::Uuid;

use super::{
    classify,
    rows::{account_row, status},
    schedules::archive,
    snapshot::{PgSnapshot, bounded},
};
use crate::{
    app::{
        error::Error,
        export::Archive,
        parts::{AccountPart, ChangePart, OccurrencePart, SchedulePart},
        reads::AccountRecord,
    },
    domain::account::Account,
};

impl Archive for PgSnapshot {
    async fn accounts(&mut self, behind: i64, limit: i64) -> Result<Vec<AccountPart>, Error> {
        let found = sqlx::query!(
            "SELECT id, user_id, role, status, currency, posted, held, incoming, floor, ceiling, revision, position, last_at, label,
                    created_at, request_id
               FROM accounts
              WHERE id > $1
              ORDER BY id
              LIMIT $2",
            behind,
            limit,
        )
        .fetch_all(&mut self.connection);
        bounded(found)
            .await?
            .into_iter()
            .map(|row| {
                let account = account_row!(row);
                Ok(AccountPart {
                    record: AccountRecord {
                        account: Account::try_from(account).map_err(|error| classify(error.into()))?,
                        label: row.label,
                        created_at: row.created_at,
                    },
                    request: row.request_id,
                })
            })
            .collect()
    }

    async fn changes(&mut self, behind: i64, limit: i64) -> Result<Vec<ChangePart>, Error> {
        let found = sqlx::query!(
            "SELECT id, account_id, changed_by, changed_at, change, status, floor, ceiling
               FROM account_changes
              WHERE id > $1
              ORDER BY id
              LIMIT $2",
            behind,
            limit,
        )
        .fetch_all(&mut self.connection);
        bounded(found)
            .await?
            .into_iter()
            .map(|row| {
                let unknown = || format!("the status in change {} is unknown to this version", row.id);
                Ok(ChangePart {
                    id: row.id,
                    account: row.account_id,
                    by: row.changed_by,
                    at: row.changed_at,
                    change: row.change,
                    status: status(&row.status).ok_or_else(|| Error::Internal(unknown().into()))?,
                    floor: row.floor,
                    ceiling: row.ceiling,
                })
            })
            .collect()
    }

    async fn schedules(&mut self, behind: i64, limit: i64) -> Result<Vec<SchedulePart>, Error> {
        archive::schedules(&mut self.connection, behind, limit).await
    }

    async fn occurrences(
        &mut self,
        schedule: Uuid,
        behind: i64,
        limit: i64,
    ) -> Result<Vec<OccurrencePart>, Error> {
        archive::occurrences(&mut self.connection, schedule, behind, limit).await
    }
}
