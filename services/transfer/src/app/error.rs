//! Why something was not done.

use crate::domain::{account::ChangeRefusal, command::Refusal};

/// What the store says went wrong; for the log, never for the caller.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules refuse it. Nothing was written.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The rules refuse to change the account. Nothing was written.
    #[error("account not changed: {0:?}")]
    NotChanged(ChangeRefusal),
    /// A user has no account. Nothing was written.
    #[error("no account")]
    UserNotFound,
    /// The user's main account has another currency. Nothing was written.
    #[error("the account exists with another currency")]
    AccountExists,
    /// There is no such schedule, or it is another user's.
    #[error("no schedule")]
    ScheduleNotFound,
    /// The id was used for another schedule; the field that differs. Nothing was written.
    #[error("the id is that of another schedule: {0} differs")]
    ScheduleIdReused(&'static str),
    /// The user has as many active schedules as a user may have. Nothing was written.
    #[error("too many schedules")]
    TooManySchedules,
    /// The first occurrence cannot be at this moment. Nothing was written.
    #[error("the first occurrence {0}")]
    FirstOccurrence(&'static str),
    /// The id was used to open another account; the field that differs. Nothing was written.
    #[error("the id is that of another account: {0} differs")]
    RequestIdReused(&'static str),
    /// The user has as many additional accounts as a user may have. Nothing was written.
    #[error("too many accounts")]
    TooManyAccounts,
    /// Only an operator may do this. Nothing was written.
    #[error("only for operators")]
    OperatorOnly,
    /// A statement has more entries than fit into one piece.
    #[error("the statement is too long")]
    StatementTooLong,
    /// What was at a moment of the future is not known.
    #[error("the moment is in the future")]
    InTheFuture,
    /// There is no such entry yet.
    #[error("the position is behind the last entry")]
    PositionPastEnd,
    /// As many watchers are there as may be.
    #[error("too many watchers")]
    TooManyWatchers,
    /// Only an empty ledger can be imported into. Nothing was written.
    #[error("the ledger is not empty")]
    LedgerNotEmpty,
    /// An export cannot be taken: the first part that is wrong, for people. Nothing was written.
    #[error("bad export: {0}")]
    BadExport(String),
    /// More commands wait than may wait. Nothing was written.
    #[error("the queue is full")]
    Overloaded,
    /// The deadline passed before the command was begun. Nothing was written.
    #[error("the deadline passed in the queue")]
    Late,
    /// The database did not answer: the outcome is unknown, a retry with the same id tells it.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] Source),
    /// A mistake of ours: the outcome is unknown.
    #[error("internal: {0}")]
    Internal(#[source] Source),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
