//! What an export of the whole ledger is made of.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{reads::AccountRecord, schedules::Schedule};
use crate::domain::{account::Status, journal::Row};

/// The version of the format.
pub const VERSION: i32 = 1;

/// A part, in the order in which they come.
#[derive(Clone, Debug)]
pub enum Part {
    /// First: the version of the format, and when the export began.
    Header(i32, DateTime<Utc>),
    /// An account.
    Account(AccountPart),
    /// What was done to an account.
    Change(ChangePart),
    /// A row of the journal.
    Row(RowPart),
    /// A planned transfer.
    Schedule(SchedulePart),
    /// What became of an occurrence of the schedule before.
    Occurrence(OccurrencePart),
    /// Last: how many there were.
    Trailer(Counts),
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountPart {
    /// The account.
    pub record: AccountRecord,
    /// The client's id of the request that opened it.
    pub request: Option<Uuid>,
}

/// What was done to an account, and its state afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePart {
    /// Its number.
    pub id: i64,
    /// The account.
    pub account: i64,
    /// Who did it.
    pub by: Option<i64>,
    /// When.
    pub at: DateTime<Utc>,
    /// The stored name of what was done.
    pub change: String,
    /// What the account may do.
    pub status: Status,
    /// What it must keep.
    pub floor: i64,
    /// What it may hold.
    pub ceiling: i64,
}

/// A row and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPart {
    /// The lane.
    pub lane: i32,
    /// The position in the lane.
    pub sequence: i64,
    /// The row.
    pub row: Row,
}

/// A planned transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulePart {
    /// The schedule.
    pub schedule: Schedule,
    /// How often the next occurrence was begun.
    pub tries: i32,
}

/// What became of an occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OccurrencePart {
    /// The schedule.
    pub schedule: Uuid,
    /// Its number, from 1.
    pub number: i64,
    /// When it was due.
    pub due_at: DateTime<Utc>,
    /// The transfer.
    pub transfer: Uuid,
    /// When it was over.
    pub recorded_at: DateTime<Utc>,
    /// The stored name of why it was refused.
    pub refused: Option<String>,
    /// The field that the refusal is about.
    pub refused_field: Option<String>,
}

/// How many parts of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accounts.
    pub accounts: i64,
    /// Changes of accounts.
    pub changes: i64,
    /// Rows of the journal.
    pub rows: i64,
    /// Schedules.
    pub schedules: i64,
    /// Occurrences of schedules.
    pub occurrences: i64,
}

impl Counts {
    /// Counts a part.
    pub fn add(&mut self, part: &Part) {
        match part {
            Part::Header(..) | Part::Trailer(_) => {}
            Part::Account(_) => self.accounts += 1,
            Part::Change(_) => self.changes += 1,
            Part::Row(_) => self.rows += 1,
            Part::Schedule(_) => self.schedules += 1,
            Part::Occurrence(_) => self.occurrences += 1,
        }
    }
}
