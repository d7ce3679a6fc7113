//! The transaction that takes a whole ledger.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Postgres, classify,
    rows::{role_name, status_name},
    schedules::archive,
    snapshot::{PgSnapshot, bounded},
};
use crate::{
    app::{
        error::Error,
        expiry::Hold,
        import::{Intake, Intakes, Refused, SignedBatch, SignedRow},
        parts::{AccountPart, ChangePart, OccurrencePart, SchedulePart},
    },
    domain::{account::Account, journal::Row},
};

/// A transaction on a connection of its own; it ends with the value.
pub struct PgIntake(PgSnapshot);

impl Intakes for Postgres {
    type Intake = PgIntake;

    async fn begin(&self) -> Result<PgIntake, Error> {
        let mut inner = PgSnapshot::connect(self, "ledger import").await?;
        let locked = sqlx::raw_sql(
            // nobody else writes until the end; what is read is the empty ledger
            "BEGIN;
             LOCK TABLE accounts, journal, batches, holds, account_changes, schedules, schedule_runs, published
                     IN SHARE ROW EXCLUSIVE MODE",
        )
        .execute(&mut inner.connection);
        bounded(locked).await?;
        let used = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM accounts) OR EXISTS (SELECT FROM journal) OR EXISTS (SELECT FROM batches)
                   OR EXISTS (SELECT FROM schedules) AS "used!""#
        )
        .fetch_one(&mut inner.connection);
        if bounded(used).await? {
            return Err(Error::LedgerNotEmpty);
        }
        Ok(PgIntake(inner))
    }
}

impl Intake for PgIntake {
    type Snapshot = PgSnapshot;

    async fn accounts(&mut self, accounts: &[AccountPart]) -> Result<(), Refused> {
        self.begin_step().await?;
        let numbers = |of: fn(&Account) -> i64| -> Vec<i64> {
            accounts.iter().map(|part| of(&part.record.account)).collect()
        };
        let texts = |of: fn(&AccountPart) -> &str| -> Vec<&str> { accounts.iter().map(of).collect() };
        let owners: Vec<Option<i64>> = accounts.iter().map(|part| part.record.account.owner).collect();
        let requests: Vec<Option<Uuid>> = accounts.iter().map(|part| part.request).collect();
        let times = |of: fn(&AccountPart) -> DateTime<Utc>| -> Vec<_> { accounts.iter().map(of).collect() };
        let kept = sqlx::query!(
            "INSERT INTO accounts (id, user_id, role, status, currency, label, posted, held, incoming, floor, ceiling, position,
                                   last_at, created_at, request_id)
             OVERRIDING SYSTEM VALUE
             SELECT *
               FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                           $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::timestamptz[],
                           $14::timestamptz[], $15::uuid[])",
            &numbers(|account| account.id),
            &owners as &[Option<i64>],
            &texts(|part| role_name(part.record.account.role)) as &[&str],
            &texts(|part| status_name(part.record.account.status)) as &[&str],
            &texts(|part| part.record.account.currency.code()) as &[&str],
            &texts(|part| &part.record.label) as &[&str],
            &numbers(|account| account.posted),
            &numbers(|account| account.held),
            &numbers(|account| account.incoming),
            &numbers(|account| account.floor),
            &numbers(|account| account.ceiling),
            &numbers(|account| account.position),
            &times(|part| part.record.account.last_at),
            &times(|part| part.record.created_at),
            &requests as &[Option<Uuid>],
        )
        .execute(&mut self.0.connection)
        .await
        .map(|_| ());
        self.end_step(kept).await
    }

    async fn changes(&mut self, changes: &[ChangePart]) -> Result<(), Refused> {
        self.begin_step().await?;
        let numbers = |of: fn(&ChangePart) -> i64| -> Vec<i64> { changes.iter().map(of).collect() };
        let by: Vec<Option<i64>> = changes.iter().map(|change| change.by).collect();
        let kept = sqlx::query!(
            "INSERT INTO account_changes (id, account_id, changed_by, changed_at, change, status, floor, ceiling)
             OVERRIDING SYSTEM VALUE
             SELECT *
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[], $7::bigint[],
                           $8::bigint[])",
            &numbers(|change| change.id),
            &numbers(|change| change.account),
            &by as &[Option<i64>],
            &changes.iter().map(|change| change.at).collect::<Vec<_>>(),
            &changes.iter().map(|change| change.change.as_str()).collect::<Vec<_>>() as &[&str],
            &changes.iter().map(|change| status_name(change.status)).collect::<Vec<_>>() as &[&str],
            &numbers(|change| change.floor),
            &numbers(|change| change.ceiling),
        )
        .execute(&mut self.0.connection)
        .await
        .map(|_| ());
        self.end_step(kept).await
    }

    async fn rows(&mut self, rows: &[SignedRow]) -> Result<(), Refused> {
        self.begin_step().await?;
        let kept = keep_rows(&mut self.0, rows).await;
        self.end_step(kept).await
    }

    async fn batches(&mut self, batches: &[SignedBatch]) -> Result<(), Refused> {
        self.begin_step().await?;
        let of = |number: fn(&SignedBatch) -> i64| -> Vec<i64> { batches.iter().map(number).collect() };
        let kept = sqlx::query!(
            "INSERT INTO batches (lane, number, first_sequence, row_count, created_at, hash)
             SELECT *
               FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::integer[], $5::timestamptz[], $6::bytea[])",
            &batches.iter().map(|one| one.lane).collect::<Vec<_>>(),
            &of(|one| one.batch.number),
            &of(|one| one.batch.first_sequence),
            &batches.iter().map(|one| one.batch.row_count).collect::<Vec<_>>(),
            &batches.iter().map(|one| one.batch.at).collect::<Vec<_>>(),
            &batches.iter().map(|one| one.batch.hash.as_slice()).collect::<Vec<_>>() as &[&[u8]],
        )
        .execute(&mut self.0.connection)
        .await
        .map(|_| ());
        self.end_step(kept).await
    }

    async fn schedules(&mut self, schedules: &[SchedulePart]) -> Result<(), Refused> {
        self.begin_step().await?;
        let kept = archive::keep_schedules(&mut self.0.connection, schedules).await;
        self.end_step(kept).await
    }

    async fn occurrences(&mut self, occurrences: &[OccurrencePart]) -> Result<(), Refused> {
        self.begin_step().await?;
        let kept = archive::keep_occurrences(&mut self.0.connection, occurrences).await;
        self.end_step(kept).await
    }

    async fn holds(&mut self, holds: &[Hold]) -> Result<(), Refused> {
        self.begin_step().await?;
        let kept = sqlx::query!(
            "INSERT INTO holds (pending_id, expires_at)
             SELECT *
               FROM unnest($1::uuid[], $2::timestamptz[])",
            &holds.iter().map(|hold| hold.pending).collect::<Vec<_>>(),
            &holds.iter().map(|hold| hold.expires_at).collect::<Vec<_>>(),
        )
        .execute(&mut self.0.connection)
        .await
        .map(|_| ());
        self.end_step(kept).await
    }

    async fn settle(&mut self) -> Result<(), Error> {
        let published = sqlx::query!(
            "INSERT INTO published (lane, sequence)
             SELECT DISTINCT ON (lane) lane, first_sequence + row_count - 1
               FROM batches
              ORDER BY lane, number DESC
                 ON CONFLICT (lane) DO UPDATE SET sequence = excluded.sequence",
        )
        .execute(&mut self.0.connection);
        bounded(published).await?;
        // not undone by a rollback, and no harm then: the next number is only higher than it need be
        let taken = sqlx::query!(
            "SELECT setval('accounts_id_seq', greatest((SELECT max(id) FROM accounts),
                                                       (SELECT last_value FROM accounts_id_seq))) AS account,
                    setval('account_changes_id_seq', greatest((SELECT max(id) FROM account_changes),
                                                              (SELECT last_value FROM account_changes_id_seq))) AS change,
                    setval('schedules_ordinal_seq', greatest((SELECT max(ordinal) FROM schedules),
                                                             (SELECT last_value FROM schedules_ordinal_seq))) AS schedule",
        )
        .fetch_one(&mut self.0.connection);
        bounded(taken).await.map(|_| ())
    }

    fn snapshot(&mut self) -> &mut PgSnapshot {
        &mut self.0
    }

    async fn commit(mut self) -> Result<(), Error> {
        let committed = sqlx::raw_sql("COMMIT").execute(&mut self.0.connection);
        bounded(committed).await.map(|_| ())
    }
}

impl PgIntake {
    /// What is refused from here on does not end the transaction.
    async fn begin_step(&mut self) -> Result<(), Refused> {
        let saved = sqlx::raw_sql("SAVEPOINT step").execute(&mut self.0.connection);
        bounded(saved).await.map(|_| ()).map_err(Refused::Failed)
    }

    async fn end_step(&mut self, result: Result<(), sqlx::Error>) -> Result<(), Refused> {
        let (end, result) = match result {
            Ok(()) => ("RELEASE step", Ok(())),
            Err(error) => match broken_rule(&error) {
                Some(rule) => ("ROLLBACK TO step", Err(Refused::Rule(rule))),
                None => return Err(Refused::Failed(classify(error))),
            },
        };
        let ended = sqlx::raw_sql(end).execute(&mut self.0.connection);
        bounded(ended).await.map_err(Refused::Failed)?;
        result
    }
}

/// The rule that a value breaks: a named constraint of a table (class 23 of SQLSTATE), or that of a type (class 22).
fn broken_rule(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    match error.code()?.get(..2)? {
        "23" => Some(format!(
            "it breaks the rule {}",
            error.constraint().unwrap_or("not null")
        )),
        "22" => Some("it has a value that cannot be stored".to_owned()),
        _ => None,
    }
}

async fn keep_rows(snapshot: &mut PgSnapshot, rows: &[SignedRow]) -> Result<(), sqlx::Error> {
    let numbers = |of: fn(&Row) -> i64| -> Vec<i64> { rows.iter().map(|row| of(&row.part.row)).collect() };
    let texts = |of: fn(&Row) -> Option<&str>| -> Vec<Option<&str>> {
        rows.iter().map(|row| of(&row.part.row)).collect()
    };
    let metadata = rows.iter().map(|row| {
        let note = row.part.row.note.as_deref();
        note.map(|note| &note.metadata)
            .filter(|pairs| !pairs.is_empty())
            .map(Json)
    });
    sqlx::query!(
        "INSERT INTO journal (lane, created_at, leg, sequence, id, debit_account, credit_account, moved, held,
                              debit_position, credit_position, debit_posted, debit_held, credit_posted, credit_held,
                              signature, kind, currency, original_id, expires_at, reference, description, metadata)
         SELECT unnest($1::integer[]), unnest($2::timestamptz[]), unnest($3::smallint[]), unnest($4::bigint[]),
                unnest($5::uuid[]), unnest($6::bigint[]), unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::bigint[]),
                unnest($10::bigint[]), unnest($11::bigint[]), unnest($12::bigint[]), unnest($13::bigint[]),
                unnest($14::bigint[]), unnest($15::bigint[]), unnest($16::bigint[]), unnest($17::text[]),
                unnest($18::text[]), unnest($19::uuid[]), unnest($20::timestamptz[]), unnest($21::text[]),
                unnest($22::text[]), unnest($23::jsonb[])",
        &rows.iter().map(|row| row.part.lane).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.part.row.at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.part.row.leg).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.part.sequence).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.part.row.id).collect::<Vec<_>>(),
        &numbers(|row| row.debit),
        &numbers(|row| row.credit),
        &numbers(|row| row.moved),
        &numbers(|row| row.held),
        &numbers(|row| row.debit_position),
        &numbers(|row| row.credit_position),
        &numbers(|row| row.debit_posted),
        &numbers(|row| row.debit_held),
        &numbers(|row| row.credit_posted),
        &numbers(|row| row.credit_held),
        &rows.iter().map(|row| row.signature).collect::<Vec<_>>(),
        &texts(|row| Some(row.kind.name())) as &[Option<&str>],
        &texts(|row| Some(row.currency.code())) as &[Option<&str>],
        &rows.iter().map(|row| row.part.row.original).collect::<Vec<_>>() as &[Option<Uuid>],
        &rows.iter().map(|row| row.part.row.expires_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &texts(|row| row.note.as_deref()?.reference.as_deref()) as &[Option<&str>],
        &texts(|row| row.note.as_deref()?.description.as_deref()) as &[Option<&str>],
        &metadata.collect::<Vec<_>>() as &[Option<Json<&std::collections::BTreeMap<String, String>>>],
    )
    .execute(&mut snapshot.connection)
    .await
    .map(|_| ())
}
