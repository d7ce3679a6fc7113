//! What can be asked of the ledger, and why it may refuse.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::money::{Amount, Currency, MAX_MINOR};

/// On whose behalf something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// A user, who pays from their own accounts.
    User(i64),
    /// An operator or the ledger itself.
    Bank,
}

/// What the parties say about a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// What they find it by.
    pub reference: Option<String>,
    /// A text for people.
    pub description: Option<String>,
    /// Pairs of the client, in the order of their keys.
    pub metadata: BTreeMap<String, String>,
}

/// One credit of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The account that is paid.
    pub account: i64,
    /// How much.
    pub amount: Amount,
}

/// How long a pending transfer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it ends by itself.
    pub until: DateTime<Utc>,
    /// Whether the client named that moment; else a repeated request may compute another one.
    pub named: bool,
}

/// A transfer to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTransfer {
    /// The client's id.
    pub id: Uuid,
    /// Who wants it.
    pub by: Authority,
    /// The account that pays.
    pub debit: i64,
    /// Who is paid, and how much; at least one, no account twice.
    pub credits: Vec<Credit>,
    /// What the client named; none takes the paying account's.
    pub currency: Option<Currency>,
    /// Hold the amount instead of posting it.
    pub hold: Option<Hold>,
    /// What the parties say about it; none is nothing.
    pub note: Option<Arc<Note>>,
}

impl NewTransfer {
    /// What the payer pays in all; refused when that is too much, or when an account is paid twice, which the accounts of
    /// users tell and not their numbers.
    pub(super) fn total(&self) -> Result<i64, Refusal> {
        let total = self
            .credits
            .iter()
            .try_fold(0_i64, |sum, credit| sum.checked_add(credit.amount.minor()))
            .filter(|total| (1..=MAX_MINOR).contains(total))
            .ok_or(Refusal::Malformed("amount"))?;
        // at most 100: each is compared with those before
        let twice = self.credits.iter().enumerate().any(|(at, credit)| {
            let mut earlier = self.credits.iter().take(at);
            earlier.any(|earlier| earlier.account == credit.account)
        });
        if twice {
            return Err(Refusal::Malformed("splits"));
        }
        Ok(total)
    }
}

/// Something to do to the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make a transfer.
    Transfer(NewTransfer),
    /// Post a pending transfer.
    Post {
        /// The client's id of this action.
        id: Uuid,
        /// Who wants it.
        by: Authority,
        /// The pending transfer.
        pending: Uuid,
        /// How much of it; none is all.
        amount: Option<Amount>,
    },
    /// Give a pending transfer back.
    Void {
        /// The client's id of this action.
        id: Uuid,
        /// Who wants it.
        by: Authority,
        /// The pending transfer.
        pending: Uuid,
    },
    /// End a pending transfer whose time is over.
    Expire {
        /// The id of this action.
        id: Uuid,
        /// The pending transfer.
        pending: Uuid,
    },
    /// Move the money of a posted transfer back.
    Reverse {
        /// The client's id of this action.
        id: Uuid,
        /// Who wants it.
        by: Authority,
        /// The transfer, as it was created.
        original: Uuid,
        /// What is said about it.
        note: Option<Arc<Note>>,
    },
}

impl Command {
    /// The id that makes a retry safe.
    pub fn id(&self) -> Uuid {
        match self {
            Self::Transfer(transfer) => transfer.id,
            Self::Post { id, .. }
            | Self::Void { id, .. }
            | Self::Expire { id, .. }
            | Self::Reverse { id, .. } => *id,
        }
    }

    /// The earlier transfer that it acts on.
    pub fn original(&self) -> Option<Uuid> {
        match self {
            Self::Transfer(_) => None,
            Self::Post { pending, .. } | Self::Void { pending, .. } | Self::Expire { pending, .. } => {
                Some(*pending)
            }
            Self::Reverse { original, .. } => Some(*original),
        }
    }
}

/// Why a command was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such account, or the caller may not know of it.
    AccountNotFound,
    /// The caller may not move this money.
    NotYourAccount,
    /// The paying account has less available than the amount.
    InsufficientBalance,
    /// The accounts, or an account and the transfer, have different currencies.
    CurrencyMismatch,
    /// A balance would exceed what can be kept exactly.
    BalanceOverflow,
    /// The paid account would exceed its limit.
    MaximumExceeded,
    /// An account is frozen.
    AccountFrozen,
    /// An account is closed.
    AccountClosed,
    /// There is no such transfer, or it does not concern the caller.
    TransferNotFound,
    /// The id was used for something else; the field that differs.
    IdReused(&'static str),
    /// The transfer was never pending.
    NotPending,
    /// The pending transfer was posted.
    AlreadyPosted,
    /// The pending transfer was given back.
    AlreadyVoided,
    /// The pending transfer's time is over.
    PendingExpired,
    /// The pending transfer's time is not over.
    NotExpired,
    /// More than is pending.
    ExceedsPending,
    /// A part of a transfer to several accounts.
    PartOfSplit,
    /// Only a transfer can be reversed, not what was done to one.
    NotReversible,
    /// No money has moved.
    NotPosted,
    /// The transfer was reversed before.
    AlreadyReversed,
    /// Another member of the chain failed.
    LinkedFailed,
    /// A mistake in what was asked, which the caller of the rules should have refused; the field.
    Malformed(&'static str),
}
