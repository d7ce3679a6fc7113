//! Rows of the tables as the rules know them.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    app::reads::AccountRecord,
    domain::{
        account::{Account, Role, Status},
        command::Note,
        journal::{Kind, Row},
        money::Currency,
    },
};

/// The stored name of a role.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Main => "main",
        Role::Additional => "additional",
        Role::Treasury => "treasury",
        Role::Fees => "fees",
    }
}

/// The stored name of a status.
pub(super) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Open => "open",
        Status::Frozen => "frozen",
        Status::Closed => "closed",
    }
}

/// The status of a stored name.
pub(super) fn status(name: &str) -> Option<Status> {
    [Status::Open, Status::Frozen, Status::Closed]
        .into_iter()
        .find(|status| status_name(*status) == name)
}

/// Something in the database has a value that this build does not know.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {of} is unknown to this version")]
pub(super) struct Unknown {
    what: &'static str,
    of: String,
}

impl From<Unknown> for sqlx::Error {
    fn from(error: Unknown) -> Self {
        Self::Decode(error.into())
    }
}

/// A row of `accounts`.
#[derive(sqlx::FromRow)]
pub(super) struct AccountRow {
    pub id: i64,
    pub user_id: Option<i64>,
    pub role: String,
    pub status: String,
    pub currency: String,
    pub posted: i64,
    pub held: i64,
    pub incoming: i64,
    pub floor: i64,
    pub ceiling: i64,
    pub revision: i64,
    pub position: i64,
    pub last_at: DateTime<Utc>,
}

impl TryFrom<AccountRow> for Account {
    type Error = Unknown;

    fn try_from(row: AccountRow) -> Result<Self, Unknown> {
        let unknown = |what| Unknown {
            what,
            of: format!("account {}", row.id),
        };
        let role = match row.role.as_str() {
            "main" => Role::Main,
            "additional" => Role::Additional,
            "treasury" => Role::Treasury,
            "fees" => Role::Fees,
            _ => return Err(unknown("the role")),
        };
        let status = match row.status.as_str() {
            "open" => Status::Open,
            "frozen" => Status::Frozen,
            "closed" => Status::Closed,
            _ => return Err(unknown("the status")),
        };
        let currency = Currency::from_code(&row.currency).ok_or_else(|| unknown("the currency"))?;
        Ok(Self {
            id: row.id,
            owner: row.user_id,
            role,
            status,
            currency,
            posted: row.posted,
            held: row.held,
            incoming: row.incoming,
            floor: row.floor,
            ceiling: row.ceiling,
            revision: row.revision,
            position: row.position,
            last_at: row.last_at,
        })
    }
}

/// The columns of an account from a row that has more of them.
macro_rules! account_row {
    ($row:ident) => {
        crate::store::rows::AccountRow {
            id: $row.id,
            user_id: $row.user_id,
            role: $row.role,
            status: $row.status,
            currency: $row.currency,
            posted: $row.posted,
            held: $row.held,
            incoming: $row.incoming,
            floor: $row.floor,
            ceiling: $row.ceiling,
            revision: $row.revision,
            position: $row.position,
            last_at: $row.last_at,
        }
    };
}
pub(super) use account_row;

/// A row of `accounts`, with what the rules need not know.
#[derive(sqlx::FromRow)]
pub(super) struct RecordRow {
    pub id: i64,
    pub user_id: Option<i64>,
    pub role: String,
    pub status: String,
    pub currency: String,
    pub posted: i64,
    pub held: i64,
    pub incoming: i64,
    pub floor: i64,
    pub ceiling: i64,
    pub revision: i64,
    pub position: i64,
    pub last_at: DateTime<Utc>,
    pub label: String,
    pub created_at: DateTime<Utc>,
}

impl TryFrom<RecordRow> for AccountRecord {
    type Error = Unknown;

    fn try_from(row: RecordRow) -> Result<Self, Unknown> {
        let account = account_row!(row);
        Ok(Self {
            account: account.try_into()?,
            label: row.label,
            created_at: row.created_at,
        })
    }
}

/// A row of `journal`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct JournalRow {
    pub lane: i32,
    pub leg: i16,
    pub sequence: i64,
    pub id: Uuid,
    pub debit_account: i64,
    pub credit_account: i64,
    pub moved: i64,
    pub held: i64,
    pub debit_position: i64,
    pub credit_position: i64,
    pub debit_posted: i64,
    pub debit_held: i64,
    pub credit_posted: i64,
    pub credit_held: i64,
    pub created_at: DateTime<Utc>,
    pub signature: i64,
    pub kind: String,
    pub currency: String,
    pub original_id: Option<Uuid>,
    pub expires_at: Option<DateTime<Utc>>,
    pub reference: Option<String>,
    pub description: Option<String>,
    pub metadata: Option<Json<BTreeMap<String, String>>>,
}

/// The journal's columns of a row that has further ones.
macro_rules! journal_row {
    ($row:expr) => {
        $crate::store::rows::JournalRow {
            lane: $row.lane,
            leg: $row.leg,
            sequence: $row.sequence,
            id: $row.id,
            debit_account: $row.debit_account,
            credit_account: $row.credit_account,
            moved: $row.moved,
            held: $row.held,
            debit_position: $row.debit_position,
            credit_position: $row.credit_position,
            debit_posted: $row.debit_posted,
            debit_held: $row.debit_held,
            credit_posted: $row.credit_posted,
            credit_held: $row.credit_held,
            created_at: $row.created_at,
            signature: $row.signature,
            kind: $row.kind,
            currency: $row.currency,
            original_id: $row.original_id,
            expires_at: $row.expires_at,
            reference: $row.reference,
            description: $row.description,
            metadata: $row.metadata,
        }
    };
}
pub(super) use journal_row;

impl TryFrom<JournalRow> for Row {
    type Error = Unknown;

    fn try_from(row: JournalRow) -> Result<Self, Unknown> {
        let unknown = |what| Unknown {
            what,
            of: format!("row {} of lane {}", row.sequence, row.lane),
        };
        let kind = Kind::from_name(&row.kind).ok_or_else(|| unknown("the kind"))?;
        let currency = Currency::from_code(&row.currency).ok_or_else(|| unknown("the currency"))?;
        let note = Note {
            reference: row.reference,
            description: row.description,
            metadata: row.metadata.map(|Json(pairs)| pairs).unwrap_or_default(),
        };
        Ok(Self {
            id: row.id,
            leg: row.leg,
            kind,
            debit: row.debit_account,
            credit: row.credit_account,
            moved: row.moved,
            held: row.held,
            currency,
            debit_position: row.debit_position,
            credit_position: row.credit_position,
            debit_posted: row.debit_posted,
            debit_held: row.debit_held,
            credit_posted: row.credit_posted,
            credit_held: row.credit_held,
            at: row.created_at,
            original: row.original_id,
            expires_at: row.expires_at,
            note: (note != Note::default()).then(|| Arc::new(note)),
        })
    }
}

/// All of them, or the first that this version does not know.
pub(super) fn journal(rows: Vec<JournalRow>) -> Result<Vec<Row>, sqlx::Error> {
    Ok(rows
        .into_iter()
        .map(Row::try_from)
        .collect::<Result<_, Unknown>>()?)
}

/// All of them, or the first that this version does not know.
pub(super) fn accounts(rows: Vec<AccountRow>) -> Result<Vec<Account>, sqlx::Error> {
    Ok(rows
        .into_iter()
        .map(Account::try_from)
        .collect::<Result<_, Unknown>>()?)
}
