//! The state machine of the ledger: the same accounts and commands always have the same outcome.
//!
//! [`Books`] holds what a batch of commands touches: the accounts, and the earlier rows that the commands refer to. A command
//! makes rows and changes balances, or is refused and changes nothing; so does a chain of commands as a whole.

mod known;
mod two_phase;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use self::known::Known;
use super::{
    account::{Account, Status},
    command::{Authority, Command, NewTransfer, Refusal},
    journal::{Kind, Row},
    money::MAX_MINOR,
};

/// A command that was done, now or by an earlier attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When it was done.
    pub at: DateTime<Utc>,
    /// Whether an earlier attempt did it.
    pub replayed: bool,
}

/// The part of the ledger that a batch of commands touches.
#[derive(Debug, Default)]
pub struct Books {
    accounts: HashMap<i64, Account>,
    /// Earlier rows, then those that were made.
    rows: Vec<Row>,
    /// Where the made rows begin.
    first_made: usize,
    known: HashMap<Uuid, Known>,
    /// What to undo when the present command or chain fails.
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    Account(Account),
    Known(Uuid, Option<Known>),
}

/// A point to go back to.
struct Mark {
    rows: usize,
    undo: usize,
}

impl Books {
    /// Books with these accounts, and the earlier rows that commands may refer to: for each id of a command the rows with that
    /// id, and for each transfer that a command acts on its rows and those of what was done to it; in order of id and leg.
    pub fn new(accounts: impl IntoIterator<Item = Account>, earlier: Vec<Row>) -> Self {
        let mut books = Self {
            accounts: accounts
                .into_iter()
                .map(|account| (account.id, account))
                .collect(),
            first_made: earlier.len(),
            known: known::index(&earlier),
            ..Self::default()
        };
        books.rows = earlier;
        books
    }

    /// The rows that the commands have made, in order.
    pub fn made(&self) -> &[Row] {
        self.rows.get(self.first_made..).unwrap_or_default()
    }

    /// Leaves the rows that the commands have made, in order.
    pub fn into_made(mut self) -> Vec<Row> {
        if self.first_made > 0 {
            self.rows.drain(..self.first_made);
        }
        self.rows
    }

    /// The accounts as the commands have left them.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// An account as the commands have left it.
    pub fn account(&self, id: i64) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// Does a command at a moment, which is later than the last entry of every account.
    ///
    /// # Errors
    /// The command is refused, and nothing has changed.
    pub fn apply(&mut self, command: &Command, at: DateTime<Utc>) -> Result<Done, Refusal> {
        let result = self.attempt(command, at);
        if result.is_err() {
            self.back_to(&Mark {
                rows: self.rows.len(),
                undo: 0,
            });
        }
        self.undo.clear();
        result
    }

    /// Does all commands of a chain, or none. When one is refused, the others are [`Refusal::LinkedFailed`]; those that
    /// an earlier attempt has done stay done.
    pub fn apply_chain<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a Command>,
        at: DateTime<Utc>,
    ) -> Vec<Result<Done, Refusal>> {
        let rows = self.rows.len();
        let mut failed = false;
        let mut ids = Vec::new();
        let mut results: Vec<_> = commands
            .into_iter()
            .map(|command| {
                ids.push(command.id());
                let result = if failed {
                    Err(Refusal::LinkedFailed)
                } else {
                    self.attempt(command, at)
                };
                failed |= result.is_err();
                result
            })
            .collect();
        if failed {
            self.back_to(&Mark { rows, undo: 0 });
            for (result, id) in results.iter_mut().zip(&ids) {
                // a replay of what this chain itself had done is as undone as that
                if result.is_ok() && !self.known.contains_key(id) {
                    *result = Err(Refusal::LinkedFailed);
                }
            }
        }
        self.undo.clear();
        results
    }

    /// Does a command; on a refusal its own rows and changes are taken back, those of its chain stay.
    fn attempt(&mut self, command: &Command, at: DateTime<Utc>) -> Result<Done, Refusal> {
        let mark = Mark {
            rows: self.rows.len(),
            undo: self.undo.len(),
        };
        let result = match command {
            Command::Transfer(transfer) => self.transfer(transfer, at),
            Command::Post {
                id,
                by,
                pending,
                amount,
            } => self.post(*id, *by, *pending, *amount, at),
            Command::Void { id, by, pending } => self.void(*id, *by, *pending, at),
            Command::Expire { id, pending } => self.expire(*id, *pending, at),
            Command::Reverse {
                id,
                by,
                original,
                note,
            } => self.reverse(*id, *by, *original, note.as_ref(), at),
        };
        if result.is_err() {
            self.back_to(&mark);
        }
        result
    }

    fn back_to(&mut self, mark: &Mark) {
        self.rows.truncate(mark.rows);
        for undo in self.undo.drain(mark.undo..).rev() {
            match undo {
                Undo::Account(account) => {
                    self.accounts.insert(account.id, account);
                }
                Undo::Known(id, Some(known)) => {
                    self.known.insert(id, known);
                }
                Undo::Known(id, None) => {
                    self.known.remove(&id);
                }
            }
        }
    }

    fn transfer(&mut self, order: &NewTransfer, at: DateTime<Utc>) -> Result<Done, Refusal> {
        let debit = self.find(order.debit)?;
        may_pay_from(debit, order.by)?;
        if let Some(known) = self.known.get(&order.id) {
            return known::same_transfer(self.legs_of(known), order);
        }
        let total = order.total()?;
        // a moment of the server's choice is never the client's mistake
        if order.hold.is_some_and(|hold| hold.named && hold.until <= at) {
            return Err(Refusal::Malformed("expires_at"));
        }
        if order.currency.is_some_and(|named| named != debit.currency) {
            return Err(Refusal::CurrencyMismatch);
        }
        for credit in &order.credits {
            if credit.account == order.debit {
                return Err(Refusal::Malformed("to"));
            }
            let account = self.find(credit.account)?;
            if account.role.is_system() && order.by != Authority::Bank {
                return Err(Refusal::AccountNotFound);
            }
        }
        check_debit(debit, total)?;
        let kind = if order.hold.is_some() {
            Kind::Pending
        } else {
            Kind::Transfer
        };
        for credit in &order.credits {
            let amount = credit.amount.minor();
            check_credit(self.find(credit.account)?, self.find(order.debit)?, amount)?;
            let (moved, held) = if order.hold.is_some() {
                (0, amount)
            } else {
                (amount, 0)
            };
            self.enter(Entry {
                id: order.id,
                kind,
                debit: order.debit,
                credit: credit.account,
                moved,
                held,
                at,
                original: None,
                expires_at: order.hold.map(|hold| hold.until),
                note: order.note.as_ref(),
            })?;
        }
        Ok(self.learn(order.id, order.credits.len(), at))
    }

    fn find(&self, id: i64) -> Result<&Account, Refusal> {
        self.accounts.get(&id).ok_or(Refusal::AccountNotFound)
    }

    fn legs_of(&self, known: &Known) -> &[Row] {
        self.rows.get(known.rows.clone()).unwrap_or_default()
    }

    /// Remembers the last rows as those of `id`.
    fn learn(&mut self, id: Uuid, legs: usize, at: DateTime<Utc>) -> Done {
        let end = self.rows.len();
        let before = self.known.insert(id, Known::new(end - legs..end));
        self.undo.push(Undo::Known(id, before));
        Done { at, replayed: false }
    }

    /// Writes a row and changes its two accounts.
    fn enter(&mut self, entry: Entry<'_>) -> Result<(), Refusal> {
        let [Some(debit), Some(credit)] = self.accounts.get_disjoint_mut([&entry.debit, &entry.credit])
        else {
            return Err(Refusal::AccountNotFound);
        };
        self.undo.push(Undo::Account(debit.clone()));
        self.undo.push(Undo::Account(credit.clone()));
        debit.posted -= entry.moved;
        debit.held += entry.held;
        credit.posted += entry.moved;
        credit.incoming += entry.held;
        for account in [&mut *debit, &mut *credit] {
            account.position += 1;
            account.last_at = entry.at;
        }
        let leg = match self.rows.last() {
            Some(row) if row.id == entry.id => row.leg + 1,
            _ => 0,
        };
        self.rows.push(Row {
            id: entry.id,
            leg,
            kind: entry.kind,
            debit: debit.id,
            credit: credit.id,
            moved: entry.moved,
            held: entry.held,
            currency: debit.currency,
            debit_position: debit.position,
            credit_position: credit.position,
            debit_posted: debit.posted,
            debit_held: debit.held,
            credit_posted: credit.posted,
            credit_held: credit.held,
            at: entry.at,
            original: entry.original,
            expires_at: entry.expires_at,
            note: entry.note.cloned(),
        });
        Ok(())
    }
}

/// A row to write.
#[derive(Clone, Copy)]
struct Entry<'a> {
    id: Uuid,
    kind: Kind,
    debit: i64,
    credit: i64,
    moved: i64,
    held: i64,
    at: DateTime<Utc>,
    original: Option<Uuid>,
    expires_at: Option<DateTime<Utc>>,
    note: Option<&'a std::sync::Arc<super::command::Note>>,
}

/// Whether somebody may pay from an account at all. Those of the bank do not exist for users.
pub(super) fn may_pay_from(account: &Account, by: Authority) -> Result<(), Refusal> {
    match by {
        Authority::User(_) if account.role.is_system() => Err(Refusal::AccountNotFound),
        Authority::User(user) if account.owner != Some(user) => Err(Refusal::NotYourAccount),
        Authority::User(_) | Authority::Bank => Ok(()),
    }
}

/// Whether an account may pay so much.
fn check_debit(debit: &Account, amount: i64) -> Result<(), Refusal> {
    usable(debit)?;
    if debit.available() < amount {
        return Err(Refusal::InsufficientBalance);
    }
    if debit.posted - debit.held - amount < -MAX_MINOR {
        return Err(Refusal::BalanceOverflow);
    }
    Ok(())
}

/// Whether an account may be paid so much by another one.
fn check_credit(credit: &Account, debit: &Account, amount: i64) -> Result<(), Refusal> {
    if credit.currency != debit.currency {
        return Err(Refusal::CurrencyMismatch);
    }
    usable(credit)?;
    if credit.room() < amount {
        return Err(if credit.ceiling < MAX_MINOR {
            Refusal::MaximumExceeded
        } else {
            Refusal::BalanceOverflow
        });
    }
    Ok(())
}

fn usable(account: &Account) -> Result<(), Refusal> {
    match account.status {
        Status::Open => Ok(()),
        Status::Frozen => Err(Refusal::AccountFrozen),
        Status::Closed => Err(Refusal::AccountClosed),
    }
}
