//! Replays the journal from its first row: what each row must say, given all rows before it.
//!
//! [`Audit`] remembers the accounts and what is pending, and nothing else of the past: what a reversal takes back is given to
//! it beside the reversal.

mod problem;
mod reversal;

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use self::problem::Problem;
use super::{
    journal::{Kind, Row},
    money::{Currency, MAX_MINOR},
};

/// The figures of an account, stored or replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Its currency.
    pub currency: Currency,
    /// The sum of all posted entries.
    pub posted: i64,
    /// What is held back for pending transfers from it.
    pub held: i64,
    /// What pending transfers to it may still bring.
    pub incoming: i64,
    /// The number of its last entry.
    pub position: i64,
    /// The time of its last entry.
    pub last_at: DateTime<Utc>,
}

impl Figures {
    /// Before the first entry.
    fn new(currency: Currency) -> Self {
        Self {
            currency,
            posted: 0,
            held: 0,
            incoming: 0,
            position: 0,
            last_at: DateTime::UNIX_EPOCH,
        }
    }
}

/// The books as the rows so far have made them.
#[derive(Debug, Default)]
pub struct Audit {
    accounts: HashMap<i64, Figures>,
    pending: HashMap<Uuid, Pending>,
    /// The row before.
    last: Option<Last>,
    /// What the stored balances of each currency sum up to.
    sums: BTreeMap<&'static str, i128>,
}

/// A pending transfer that has not ended, or not with all of its legs.
#[derive(Debug)]
struct Pending {
    expires_at: Option<DateTime<Utc>>,
    /// Payer, payee and amount of each.
    legs: Vec<(i64, i64, i64)>,
    ended: usize,
    ended_by: Option<Uuid>,
}

#[derive(Debug)]
struct Last {
    id: Uuid,
    leg: i16,
    kind: Kind,
    original: Option<Uuid>,
    at: DateTime<Utc>,
}

/// Something that the journal has and the ledger beside it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An account with entries.
    Account(i64),
    /// A pending transfer.
    Hold(Uuid),
}

impl Audit {
    /// Takes the next row, in an order in which all could have happened. For a reversal `family` are the rows of the transfer
    /// that it takes back, and of all that was done to that; for other kinds it is not looked at.
    ///
    /// # Errors
    /// What is wrong with the row. The audit is of no more use then.
    pub fn check(&mut self, row: &Row, family: &[Row]) -> Result<(), Problem> {
        shape(row)?;
        self.is_next_leg(row)?;
        match row.kind {
            Kind::Transfer => {}
            Kind::Pending => self.begin(row),
            Kind::Post | Kind::Void | Kind::Expire => self.end(row)?,
            Kind::Reversal => reversal::check(row, family)?,
        }
        self.enter(row)
    }

    /// Compares an account as it is stored with the rows, behind the last of them. Each account once.
    ///
    /// # Errors
    /// The first figure that differs.
    pub fn compare(&mut self, account: i64, stored: &Figures) -> Result<(), Problem> {
        *self.sums.entry(stored.currency.code()).or_default() += i128::from(stored.posted);
        let replayed = self
            .accounts
            .remove(&account)
            .unwrap_or(Figures::new(stored.currency));
        if stored.currency != replayed.currency {
            return Err(Problem::Currency(account));
        }
        let figures = [
            ("posted balance", stored.posted, replayed.posted),
            ("held amount", stored.held, replayed.held),
            ("incoming amount", stored.incoming, replayed.incoming),
            ("position", stored.position, replayed.position),
        ];
        figure(account, figures)?;
        if stored.last_at == replayed.last_at {
            Ok(())
        } else {
            Err(Problem::LastAt(account))
        }
    }

    /// Compares a member of the list of pending transfers with the rows, behind the last of them. Each member once.
    ///
    /// # Errors
    /// It is not pending, or until another time, or only a part of it has ended.
    pub fn compare_hold(&mut self, pending: Uuid, expires_at: DateTime<Utc>) -> Result<(), Problem> {
        let replayed = self.pending.remove(&pending).ok_or(Problem::HoldUnknown)?;
        if replayed.expires_at != Some(expires_at) {
            return Err(Problem::HoldTime);
        }
        if replayed.ended > 0 {
            return Err(Problem::HalfEnded);
        }
        Ok(())
    }

    /// What the rows have and was not compared.
    pub fn missing(&self) -> Option<Missing> {
        let account = self.accounts.keys().min().copied().map(Missing::Account);
        account.or_else(|| self.pending.keys().min().copied().map(Missing::Hold))
    }

    /// Whether all stored balances of each currency together are zero.
    ///
    /// # Errors
    /// The first currency in which they are not.
    pub fn balance(&self) -> Result<(), Problem> {
        match self.sums.iter().find(|(_, sum)| **sum != 0) {
            Some((currency, sum)) => Err(Problem::Unbalanced(currency, *sum)),
            None => Ok(()),
        }
    }

    /// The legs of a transfer follow each other.
    fn is_next_leg(&mut self, row: &Row) -> Result<(), Problem> {
        let last = self.last.replace(Last {
            id: row.id,
            leg: row.leg,
            kind: row.kind,
            original: row.original,
            at: row.at,
        });
        let right = match last.filter(|last| last.id == row.id) {
            Some(last) => {
                row.leg == last.leg + 1
                    && (row.kind, row.original, row.at) == (last.kind, last.original, last.at)
            }
            None => row.leg == 0,
        };
        if right { Ok(()) } else { Err(Problem::Legs) }
    }

    fn begin(&mut self, row: &Row) {
        let pending = self.pending.entry(row.id).or_insert(Pending {
            expires_at: row.expires_at,
            legs: Vec::with_capacity(1),
            ended: 0,
            ended_by: None,
        });
        pending.legs.push((row.debit, row.credit, row.held));
    }

    fn end(&mut self, row: &Row) -> Result<(), Problem> {
        let original = row.original.ok_or(Problem::Shape)?;
        let pending = self.pending.get_mut(&original).ok_or(Problem::NotPending)?;
        let by = *pending.ended_by.get_or_insert(row.id);
        let leg = pending.legs.get(pending.ended).copied();
        let whole = row.kind != Kind::Post || pending.legs.len() == 1 || row.moved == -row.held;
        if by != row.id || leg != Some((row.debit, row.credit, -row.held)) || !whole {
            return Err(Problem::NotItsPending);
        }
        let over = pending.expires_at.is_some_and(|end| end <= row.at);
        match (row.kind == Kind::Expire, over) {
            (false, true) => return Err(Problem::Expired),
            (true, false) => return Err(Problem::NotExpired),
            _ => {}
        }
        pending.ended += 1;
        if pending.ended == pending.legs.len() {
            self.pending.remove(&original);
        }
        Ok(())
    }

    /// Changes both accounts, and compares what the row says of them.
    fn enter(&mut self, row: &Row) -> Result<(), Problem> {
        let debit = self.account(row.debit, row)?;
        debit.posted -= row.moved;
        debit.held += row.held;
        let is = [row.debit_position, row.debit_posted, row.debit_held];
        agree(row.debit, debit, is)?;
        let credit = self.account(row.credit, row)?;
        credit.posted += row.moved;
        credit.incoming += row.held;
        let is = [row.credit_position, row.credit_posted, row.credit_held];
        agree(row.credit, credit, is)
    }

    fn account(&mut self, id: i64, row: &Row) -> Result<&mut Figures, Problem> {
        let account = self.accounts.entry(id).or_insert(Figures::new(row.currency));
        if account.currency != row.currency {
            return Err(Problem::Currency(id));
        }
        if account.last_at > row.at {
            return Err(Problem::Time(id));
        }
        account.last_at = row.at;
        account.position += 1;
        Ok(account)
    }
}

/// Whether the amounts are those of the kind.
fn shape(row: &Row) -> Result<(), Problem> {
    let amount = 1..=MAX_MINOR;
    let of_kind = match row.kind {
        Kind::Transfer | Kind::Reversal => amount.contains(&row.moved) && row.held == 0,
        Kind::Pending => row.moved == 0 && amount.contains(&row.held) && row.expires_at.is_some(),
        Kind::Post => {
            amount.contains(&row.moved)
                && row
                    .held
                    .checked_neg()
                    .is_some_and(|held| (row.moved..=MAX_MINOR).contains(&held))
        }
        Kind::Void | Kind::Expire => row.moved == 0 && (-MAX_MINOR..=-1).contains(&row.held),
    };
    let first_of_its_kind = matches!(row.kind, Kind::Transfer | Kind::Pending);
    if of_kind && row.debit != row.credit && row.original.is_none() == first_of_its_kind {
        Ok(())
    } else {
        Err(Problem::Shape)
    }
}

/// Whether what a row says of an account is what it has: position, posted, held. The figures stay far from the limits of
/// their type, as each was within ±2^53 before and changed by less.
fn agree(account: i64, replayed: &Figures, is: [i64; 3]) -> Result<(), Problem> {
    let [position, posted, held] = is;
    let figures = [
        ("position", position, replayed.position),
        ("posted balance", posted, replayed.posted),
        ("held amount", held, replayed.held),
    ];
    figure(account, figures)?;
    let possible = (-MAX_MINOR..=MAX_MINOR).contains(&replayed.posted)
        && (0..=MAX_MINOR).contains(&replayed.held)
        && (0..=MAX_MINOR).contains(&replayed.incoming);
    if possible {
        Ok(())
    } else {
        Err(Problem::Impossible(account))
    }
}

/// The first figure that is not what it should be.
fn figure<const N: usize>(account: i64, figures: [(&'static str, i64, i64); N]) -> Result<(), Problem> {
    match figures.into_iter().find(|(_, is, should)| is != should) {
        Some((name, is, should)) => Err(Problem::Figure {
            name,
            account,
            is,
            should,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
