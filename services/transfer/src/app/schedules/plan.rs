//! What is planned, and how far it has come.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    app::{
        ledger::ItemError,
        order::{Order, Party},
    },
    domain::{
        command::{Authority, Hold, Note, Refusal},
        money::{Amount, Currency},
        schedule::{State, Timing},
    },
};

/// When a pending transfer ends that does not say it.
pub const DEFAULT_HOLD: TimeDelta = TimeDelta::days(7);
/// The namespace of occurrences' ids. It must stay as it is: another one would make occurrences again.
const OCCURRENCES: Uuid = Uuid::from_u128(0x6b6f_6e74_6f72_8f63_8375_7272_656e_6365);

/// The id of the transfer of an occurrence.
pub fn occurrence_id(schedule: Uuid, number: i64) -> Uuid {
    let mut name = [0; 24];
    name[..16].copy_from_slice(schedule.as_bytes());
    name[16..].copy_from_slice(&number.to_be_bytes());
    Uuid::new_v5(&OCCURRENCES, &name)
}

/// A transfer as it is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Who pays.
    pub from: Party,
    /// Who is paid, and how much.
    pub to: Vec<(Party, Amount)>,
    /// In which currency; none takes the paying account's.
    pub currency: Option<Currency>,
    /// Hold instead of post.
    pub pending: bool,
    /// What is said about it.
    pub note: Option<Arc<Note>>,
}

/// What a client plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The client's id.
    pub id: Uuid,
    /// The user who plans it.
    pub owner: i64,
    /// With which authority the transfers are made.
    pub by: Authority,
    /// The transfer.
    pub transfer: Template,
    /// When.
    pub timing: Timing,
}

impl Plan {
    /// The transfer of an occurrence.
    pub fn order(&self, id: Uuid, now: DateTime<Utc>) -> Order {
        Order {
            id,
            by: self.by,
            from: self.transfer.from,
            to: self.transfer.to.clone(),
            currency: self.transfer.currency,
            hold: self.transfer.pending.then(|| Hold {
                until: now + DEFAULT_HOLD,
                named: false,
            }),
            note: self.transfer.note.clone(),
        }
    }

    /// The first field in which another plan with the same id differs.
    pub fn differs(&self, other: &Self) -> Option<&'static str> {
        let (one, two) = (&self.transfer, &other.transfer);
        let nothing = Note::default();
        let note = |transfer: &Template| transfer.note.as_deref().unwrap_or(&nothing).clone();
        let (said, says) = (note(one), note(two));
        let payees = |transfer: &Template| transfer.to.iter().map(|(party, _)| *party).collect::<Vec<_>>();
        let single = one.to.len() == 1 && two.to.len() == 1;
        let differences = [
            // to others it is not told what of it differs
            ("schedule_id", self.owner != other.owner),
            ("transfer.pending", one.pending != two.pending),
            ("transfer.from", one.from != two.from),
            ("transfer.splits", !single && one.to != two.to),
            ("transfer.to", single && payees(one) != payees(two)),
            ("transfer.amount", single && one.to != two.to),
            ("transfer.currency", one.currency != two.currency),
            ("transfer.reference", said.reference != says.reference),
            ("transfer.description", said.description != says.description),
            ("transfer.metadata", said.metadata != says.metadata),
            ("first_at", self.timing.first != other.timing.first),
            ("recurrence", self.timing.recurrence != other.timing.recurrence),
        ];
        differences
            .into_iter()
            .find(|(_, differs)| *differs)
            .map(|(field, _)| field)
    }
}

/// A plan and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What was planned.
    pub plan: Plan,
    /// Its place in the order of creation.
    pub ordinal: i64,
    /// When it was planned.
    pub created_at: DateTime<Utc>,
    /// Where it stands.
    pub state: State,
    /// The number of the next occurrence, or of the one that will not come.
    pub next: i64,
    /// Whether that occurrence was begun, so that its transfer may have been made.
    pub begun: bool,
}

impl Schedule {
    /// A schedule that was just planned.
    pub fn new(plan: Plan, now: DateTime<Utc>) -> Self {
        Self {
            plan,
            ordinal: 0,
            created_at: now,
            state: State::Active,
            next: 1,
            begun: false,
        }
    }

    /// When the next occurrence is due.
    pub fn next_at(&self) -> Option<DateTime<Utc>> {
        match self.state {
            State::Active => self.plan.timing.at(self.next),
            State::Finished | State::Cancelled => None,
        }
    }
}

/// An occurrence that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its number, from 1.
    pub number: i64,
    /// When it was due.
    pub due_at: DateTime<Utc>,
    /// The id of its transfer.
    pub transfer_id: Uuid,
    /// Why the rules refused the transfer; none when it was made.
    pub refused: Option<ItemError>,
}

/// The fields that a refusal can be about.
const FIELDS: [&str; 11] = [
    "transfer_id",
    "pending",
    "from",
    "splits",
    "to",
    "amount",
    "currency",
    "expires_at",
    "reference",
    "description",
    "metadata",
];

/// Those that a transfer can meet, and that say nothing about a field.
const PLAIN: [(&str, ItemError); 9] = [
    ("user_not_found", ItemError::UserNotFound),
    ("account_not_found", ItemError::Refused(Refusal::AccountNotFound)),
    ("not_your_account", ItemError::Refused(Refusal::NotYourAccount)),
    (
        "insufficient_balance",
        ItemError::Refused(Refusal::InsufficientBalance),
    ),
    ("currency_mismatch", ItemError::Refused(Refusal::CurrencyMismatch)),
    ("balance_overflow", ItemError::Refused(Refusal::BalanceOverflow)),
    ("maximum_exceeded", ItemError::Refused(Refusal::MaximumExceeded)),
    ("account_frozen", ItemError::Refused(Refusal::AccountFrozen)),
    ("account_closed", ItemError::Refused(Refusal::AccountClosed)),
];

/// The stored name of a refusal, and the field that it is about.
pub fn refusal_name(error: ItemError) -> (&'static str, Option<&'static str>) {
    match error {
        ItemError::Refused(Refusal::IdReused(field)) => ("id_reused", Some(field)),
        ItemError::Refused(Refusal::Malformed(field)) => ("malformed", Some(field)),
        other => PLAIN
            .into_iter()
            .find(|(_, known)| *known == other)
            .map_or(("malformed", None), |(name, _)| (name, None)),
    }
}

/// The refusal of a stored name; none when this version does not know it.
pub fn refusal_from_name(name: &str, field: Option<&str>) -> Option<ItemError> {
    let field = || {
        FIELDS
            .into_iter()
            .find(|known| Some(*known) == field)
            .unwrap_or("transfer_id")
    };
    match name {
        "id_reused" => Some(ItemError::Refused(Refusal::IdReused(field()))),
        "malformed" => Some(ItemError::Refused(Refusal::Malformed(field()))),
        _ => PLAIN
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, error)| error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occurrence_has_the_same_id_on_every_replica_for_ever() {
        let schedule = Uuid::from_u128(7);
        assert_eq!(
            occurrence_id(schedule, 3).to_string(),
            occurrence_id(schedule, 3).to_string()
        );
        assert_ne!(occurrence_id(schedule, 3), occurrence_id(schedule, 4));
        assert_ne!(occurrence_id(schedule, 3), occurrence_id(Uuid::from_u128(8), 3));
        assert_eq!(occurrence_id(schedule, 3).get_version_num(), 5);
    }

    #[test]
    fn every_refusal_is_read_as_it_was_written() {
        let with_field = FIELDS
            .into_iter()
            .flat_map(|field| [Refusal::IdReused(field), Refusal::Malformed(field)])
            .map(ItemError::Refused);
        for error in PLAIN.into_iter().map(|(_, error)| error).chain(with_field) {
            let (name, field) = refusal_name(error);
            assert_eq!(refusal_from_name(name, field), Some(error));
        }
    }
}
