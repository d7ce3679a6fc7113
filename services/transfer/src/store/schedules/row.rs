//! Rows of the tables as the use cases know them.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    app::{
        error::Error,
        order::Party,
        schedules::{Plan, Run, Schedule, Template, refusal_from_name},
    },
    domain::{
        command::{Authority, Note},
        money::{Amount, Currency},
        schedule::{Recurrence, State, Timing, Unit},
    },
};

/// A row of `schedules`.
pub(super) struct ScheduleRow {
    pub id: Uuid,
    pub ordinal: i64,
    pub owner_id: i64,
    pub by_bank: bool,
    pub created_at: DateTime<Utc>,
    pub from_user: Option<i64>,
    pub from_account: Option<i64>,
    pub payee_users: Vec<Option<i64>>,
    pub payee_accounts: Vec<Option<i64>>,
    pub payee_amounts: Vec<i64>,
    pub currency: Option<String>,
    pub pending: bool,
    pub reference: Option<String>,
    pub description: Option<String>,
    pub metadata: Option<Json<BTreeMap<String, String>>>,
    pub first_at: DateTime<Utc>,
    pub unit: Option<String>,
    pub every: Option<i32>,
    pub occurrences: Option<i32>,
    pub until_at: Option<DateTime<Utc>>,
    pub state: String,
    pub next_number: i64,
    pub tries: i32,
}

/// A row of `schedule_runs`.
pub(super) struct RunRow {
    pub number: i64,
    pub due_at: DateTime<Utc>,
    pub transfer_id: Uuid,
    pub refused: Option<String>,
    pub refused_field: Option<String>,
}

/// A plan as it is stored.
pub(super) struct Columns<'a> {
    pub by_bank: bool,
    pub from_user: Option<i64>,
    pub from_account: Option<i64>,
    pub payee_users: Vec<Option<i64>>,
    pub payee_accounts: Vec<Option<i64>>,
    pub payee_amounts: Vec<i64>,
    pub currency: Option<&'static str>,
    pub reference: Option<&'a str>,
    pub description: Option<&'a str>,
    pub metadata: Option<Json<&'a BTreeMap<String, String>>>,
    pub unit: Option<&'static str>,
    pub every: Option<i32>,
    pub count: Option<i32>,
    pub until: Option<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    pub fn of(plan: &'a Plan) -> Self {
        let transfer = &plan.transfer;
        let (from_user, from_account) = party(transfer.from);
        let (payee_users, payee_accounts) = transfer.to.iter().map(|(payee, _)| party(*payee)).unzip();
        let note = transfer.note.as_deref();
        let recurrence = plan.timing.recurrence;
        let stored = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        Self {
            by_bank: plan.by == Authority::Bank,
            from_user,
            from_account,
            payee_users,
            payee_accounts,
            payee_amounts: transfer.to.iter().map(|(_, amount)| amount.minor()).collect(),
            currency: transfer.currency.map(Currency::code),
            reference: note.and_then(|note| note.reference.as_deref()),
            description: note.and_then(|note| note.description.as_deref()),
            metadata: note
                .map(|note| &note.metadata)
                .filter(|pairs| !pairs.is_empty())
                .map(Json),
            unit: recurrence.map(|recurrence| recurrence.unit.name()),
            every: recurrence.map(|recurrence| stored(recurrence.every)),
            count: recurrence.and_then(|recurrence| recurrence.count).map(stored),
            until: recurrence.and_then(|recurrence| recurrence.until),
        }
    }
}

/// A party as user and account; the treasury is neither, and the table refuses it as a payer.
pub(super) fn party(party: Party) -> (Option<i64>, Option<i64>) {
    match party {
        Party::User(user) => (Some(user), None),
        Party::Account(account) => (None, Some(account)),
        Party::Treasury => (None, None),
    }
}

impl TryFrom<ScheduleRow> for Schedule {
    type Error = Error;

    fn try_from(row: ScheduleRow) -> Result<Self, Error> {
        let id = row.id;
        let state = State::from_name(&row.state);
        let (ordinal, created_at, next, begun) =
            (row.ordinal, row.created_at, row.next_number, row.tries > 0);
        let schedule = || {
            Some(Self {
                state: state?,
                plan: plan(row)?,
                ordinal,
                created_at,
                next,
                begun,
            })
        };
        schedule().ok_or_else(|| {
            Error::Internal(format!("schedule {id} has a value that this version does not know").into())
        })
    }
}

/// None when it has a value that this version does not know.
fn plan(row: ScheduleRow) -> Option<Plan> {
    let known_party = |user: Option<i64>, account: Option<i64>| match (user, account) {
        (Some(user), None) => Some(Party::User(user)),
        (None, Some(account)) => Some(Party::Account(account)),
        _ => None,
    };
    let payees = row
        .payee_users
        .iter()
        .zip(&row.payee_accounts)
        .zip(&row.payee_amounts);
    let to = payees
        .map(|((user, account), amount)| Some((known_party(*user, *account)?, Amount::new(*amount)?)))
        .collect::<Option<Vec<_>>>()?;
    let note = Note {
        reference: row.reference,
        description: row.description,
        metadata: row.metadata.map(|Json(pairs)| pairs).unwrap_or_default(),
    };
    let read = |number: i32| u32::try_from(number).ok();
    let recurrence = match (row.unit, row.every) {
        (None, None) => None,
        (Some(unit), Some(every)) => Some(Recurrence {
            unit: Unit::from_name(&unit)?,
            every: read(every)?,
            count: row.occurrences.and_then(read),
            until: row.until_at,
        }),
        _ => return None,
    };
    Some(Plan {
        id: row.id,
        owner: row.owner_id,
        by: if row.by_bank {
            Authority::Bank
        } else {
            Authority::User(row.owner_id)
        },
        transfer: Template {
            from: known_party(row.from_user, row.from_account)?,
            to,
            currency: match row.currency {
                Some(code) => Some(Currency::from_code(&code)?),
                None => None,
            },
            pending: row.pending,
            note: (note != Note::default()).then(|| Arc::new(note)),
        },
        timing: Timing {
            first: row.first_at,
            recurrence,
        },
    })
}

impl TryFrom<RunRow> for Run {
    type Error = Error;

    fn try_from(row: RunRow) -> Result<Self, Error> {
        let refused = row
            .refused
            .map(|name| {
                refusal_from_name(&name, row.refused_field.as_deref()).ok_or_else(|| {
                    Error::Internal(format!("the refusal {name} is unknown to this version").into())
                })
            })
            .transpose()?;
        Ok(Self {
            number: row.number,
            due_at: row.due_at,
            transfer_id: row.transfer_id,
            refused,
        })
    }
}
