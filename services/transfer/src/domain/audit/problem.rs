//! What an audit can find.

/// What is wrong with a row, or with what is kept beside the journal. The texts go on where "the row:" or "the account:" ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The amounts, accounts or times are not those of the kind.
    #[error("its amounts, accounts or times do not fit its kind")]
    Shape,
    /// A leg without the one before.
    #[error("it is not the next leg of its transfer")]
    Legs,
    /// It ends what is not pending.
    #[error("it ends a transfer that is not pending")]
    NotPending,
    /// It ends something else than what was pending.
    #[error("it does not fit the pending transfer that it ends")]
    NotItsPending,
    /// It posts or gives back what was over.
    #[error("it ends a pending transfer whose time was over")]
    Expired,
    /// It ends too early.
    #[error("it ends, as if by time, a pending transfer whose time was not over")]
    NotExpired,
    /// There is nothing to take back.
    #[error("it takes back a transfer that has not moved money")]
    NotPosted,
    /// It takes back something else than what was moved.
    #[error("it does not fit the transfer that it takes back")]
    NotItsTransfer,
    /// It takes back for the second time.
    #[error("it takes back a transfer that is taken back by another one too")]
    ReversedTwice,
    /// The currency of the row or the stored account is not that of the account's other entries.
    #[error("account {0} has entries in another currency")]
    Currency(i64),
    /// The row is older than the one before.
    #[error("it is older than the entry of account {0} before it")]
    Time(i64),
    /// A figure is another one than the rows give.
    #[error("the {name} of account {account} is {is} and should be {should}")]
    Figure {
        /// Which one.
        name: &'static str,
        /// Of which account.
        account: i64,
        /// What is there.
        is: i64,
        /// What the rows give.
        should: i64,
    },
    /// A balance is beyond what can be.
    #[error("account {0} has a balance that cannot be")]
    Impossible(i64),
    /// The stored time is not that of the last entry.
    #[error("the time of the last entry of account {0} is another one")]
    LastAt(i64),
    /// An account that has entries is not there.
    #[error("account {0} has entries and is not there")]
    NoAccount(i64),
    /// The list of pending transfers has one that is not pending.
    #[error("a transfer is listed as pending and is not")]
    HoldUnknown,
    /// The list of pending transfers lacks one.
    #[error("a pending transfer is not listed")]
    HoldMissing,
    /// A pending transfer is listed with another time.
    #[error("a pending transfer is listed with another time")]
    HoldTime,
    /// Only some legs of a pending transfer have ended.
    #[error("only a part of a pending transfer has ended")]
    HalfEnded,
    /// Money was made or lost.
    #[error("all balances in {0} together are {1} and should be 0")]
    Unbalanced(&'static str, i128),
}
