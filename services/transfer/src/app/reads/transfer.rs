//! A transfer as its parties see it, put together from the rows of the journal.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    command::{Authority, Note},
    journal::{Kind, Row},
    money::Currency,
};

/// The rows of a transfer and of all that was done to it, by id and leg, and the owners of their accounts.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// The rows.
    pub rows: Vec<Row>,
    /// The users of accounts; accounts of the bank are not among them.
    pub owners: HashMap<i64, i64>,
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Held.
    Pending,
    /// The money has moved.
    Posted,
    /// Given back.
    Voided,
    /// Ended by time.
    Expired,
    /// Taken back.
    Reversed,
}

/// The account of one side, and its user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// The account.
    pub account: i64,
    /// The user; 0 for the bank.
    pub user: i64,
}

/// A transfer, post, void, expiry or reversal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Its id.
    pub id: Uuid,
    /// What it is.
    pub kind: Kind,
    /// Where the transfer stands that it is or belongs to.
    pub state: State,
    /// Who paid; nobody when several did, as in the reversal of a split.
    pub from: Side,
    /// Who was paid, and how much.
    pub to: Vec<(Side, i64)>,
    /// How much, in minor units.
    pub amount: i64,
    /// In which currency.
    pub currency: Currency,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// What it belongs to.
    pub original: Option<Uuid>,
    /// What ended it.
    pub resolved_by: Option<Uuid>,
    /// What took it back.
    pub reversed_by: Option<Uuid>,
    /// How much of a pending transfer was posted, in minor units.
    pub posted: i64,
    /// When a pending transfer ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// What is said about it.
    pub note: Option<Arc<Note>>,
}

impl Family {
    /// What the caller may see of an id: the legs that move money from or to an account of theirs, an operator all. So a payee
    /// of a split sees the payer and the own share, not who else was paid nor how much in all.
    pub fn seen(&self, id: Uuid, by: Authority) -> Option<Transfer> {
        let owns = |account: i64, user| self.owners.get(&account) == Some(&user);
        let visible: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| match by {
                Authority::Bank => true,
                Authority::User(user) => owns(row.debit, user) || owns(row.credit, user),
            })
            .collect();
        let own: Vec<&Row> = visible.iter().copied().filter(|row| row.id == id).collect();
        let first = *own.first()?;
        let others = || visible.iter().filter(|row| row.original == Some(id));
        let posted = others()
            .filter(|row| row.kind == Kind::Post)
            .map(|row| row.moved)
            .sum();
        let payers_differ = own.iter().any(|row| row.debit != first.debit);
        let payee_is_same = own.iter().all(|row| row.credit == first.credit);
        let amount = own.iter().map(|row| row.amount()).sum();
        Some(Transfer {
            id,
            kind: first.kind,
            state: state(&visible, first.original.unwrap_or(id))?,
            from: if payers_differ {
                Side::default()
            } else {
                self.side(first.debit)
            },
            to: if payee_is_same {
                vec![(self.side(first.credit), amount)]
            } else {
                own.iter()
                    .map(|row| (self.side(row.credit), row.amount()))
                    .collect()
            },
            amount,
            currency: first.currency,
            at: first.at,
            original: first.original,
            resolved_by: others().find(|row| row.kind.ends_pending()).map(|row| row.id),
            reversed_by: others().find(|row| row.kind == Kind::Reversal).map(|row| row.id),
            posted,
            expires_at: first.expires_at,
            note: first.note.clone(),
        })
    }

    fn side(&self, account: i64) -> Side {
        Side {
            account,
            user: self.owners.get(&account).copied().unwrap_or(0),
        }
    }
}

fn state(rows: &[&Row], root: Uuid) -> Option<State> {
    let done = |kind| {
        rows.iter()
            .any(|row| row.kind == kind && row.original == Some(root))
    };
    if done(Kind::Reversal) {
        return Some(State::Reversed);
    }
    if done(Kind::Post) {
        return Some(State::Posted);
    }
    if done(Kind::Void) {
        return Some(State::Voided);
    }
    if done(Kind::Expire) {
        return Some(State::Expired);
    }
    match rows.iter().find(|row| row.id == root)?.kind {
        Kind::Pending => Some(State::Pending),
        _ => Some(State::Posted),
    }
}
