//! Rows of the journal: each moves or holds one amount between two accounts.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{command::Note, money::Currency};

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Moves money at once.
    Transfer,
    /// Holds money.
    Pending,
    /// Posts what was pending, all or a part.
    Post,
    /// Gives back what was pending.
    Void,
    /// Ends what was pending, by time.
    Expire,
    /// Takes a posted transfer back.
    Reversal,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Transfer,
        Self::Pending,
        Self::Post,
        Self::Void,
        Self::Expire,
        Self::Reversal,
    ];

    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Pending => "pending",
            Self::Post => "post",
            Self::Void => "void",
            Self::Expire => "expire",
            Self::Reversal => "reversal",
        }
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it ends a pending transfer.
    pub fn ends_pending(self) -> bool {
        matches!(self, Self::Post | Self::Void | Self::Expire)
    }
}

/// A row of the journal. A transfer to several accounts has a row for each, with the same id.
///
/// It changes the accounts so: debit.posted − moved, credit.posted + moved, debit.held + held, credit.incoming + held.
/// So it cannot but balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The client's id of the transfer, post, void, expiry or reversal.
    pub id: Uuid,
    /// The number of the leg, from 0.
    pub leg: i16,
    /// What it does.
    pub kind: Kind,
    /// The account that pays.
    pub debit: i64,
    /// The account that is paid.
    pub credit: i64,
    /// By how much posted money moves, in minor units.
    pub moved: i64,
    /// By how much the payer's held amount changes, in minor units.
    pub held: i64,
    /// The currency of both accounts.
    pub currency: Currency,
    /// The number of this entry in the paying account.
    pub debit_position: i64,
    /// The number of this entry in the paid account.
    pub credit_position: i64,
    /// The payer's posted balance afterwards.
    pub debit_posted: i64,
    /// The payer's held amount afterwards.
    pub debit_held: i64,
    /// The payee's posted balance afterwards.
    pub credit_posted: i64,
    /// The payee's held amount afterwards.
    pub credit_held: i64,
    /// When it was made: later than every earlier row of both accounts, or in the same batch.
    pub at: DateTime<Utc>,
    /// The pending or reversed transfer that it belongs to.
    pub original: Option<Uuid>,
    /// When a pending transfer ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// What the parties say about it.
    pub note: Option<Arc<Note>>,
}

impl Row {
    /// The amount that people mean: moved, or else held or given back.
    pub fn amount(&self) -> i64 {
        match self.kind {
            Kind::Transfer | Kind::Post | Kind::Reversal => self.moved,
            Kind::Pending | Kind::Void | Kind::Expire => self.held.abs(),
        }
    }
}
