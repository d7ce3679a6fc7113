//! Accounts of users and of the bank: opened, listed, limited, frozen, closed.

use std::{sync::Arc, time::Instant};

use uuid::Uuid;

use super::{
    error::Error,
    reads::{AccountRecord, Journal, Reads},
};
use crate::domain::{
    account::{Change, Role},
    command::Authority,
    money::Currency,
};

/// How many additional accounts a user may have; closed ones count, for they are never deleted.
pub const MAX_ADDITIONAL: i64 = 100;

/// An additional account that a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The id that the client made: the same id is the same account, for ever.
    pub request_id: Uuid,
    /// The user.
    pub owner: i64,
    /// In which currency.
    pub currency: Currency,
    /// The owner's name for it.
    pub label: String,
}

impl Opening {
    /// The first field in which the account differs that has this id.
    fn differs(&self, record: &AccountRecord) -> Option<&'static str> {
        let differences = [
            // to others it is not told what of it differs
            ("request_id", record.account.owner != Some(self.owner)),
            ("currency", record.account.currency != self.currency),
            ("label", record.label != self.label),
        ];
        differences
            .into_iter()
            .find(|(_, differs)| *differs)
            .map(|(field, _)| field)
    }
}

/// An open account.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The account as it is now.
    pub record: AccountRecord,
    /// Whether an earlier request had opened it.
    pub replayed: bool,
}

/// Whose accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of a user.
    User(i64),
    /// The bank's own.
    Bank,
}

/// Where accounts are kept. What is written comes with who did it.
pub trait Store: Send + Sync + 'static {
    /// Opens an additional account, or finds the one that its id has opened.
    fn open(&self, opening: &Opening, limit: i64) -> impl Future<Output = Result<Opened, Error>> + Send;
    /// Opens the bank's account of a role and currency, or finds it.
    fn open_system(
        &self,
        role: Role,
        currency: Currency,
        by: i64,
    ) -> impl Future<Output = Result<Opened, Error>> + Send;
    /// Accounts by number.
    fn list(&self, whose: Whose) -> impl Future<Output = Result<Vec<AccountRecord>, Error>> + Send;
    /// Changes an account behind its lock, as [`Account::change`] rules; the account afterwards.
    ///
    /// [`Account::change`]: crate::domain::account::Account::change
    fn change(
        &self,
        account: i64,
        change: Change,
        by: i64,
    ) -> impl Future<Output = Result<AccountRecord, Error>> + Send;
}

/// The use cases of accounts.
pub struct Accounts<S, J> {
    store: S,
    reads: Arc<Reads<J>>,
}

impl<S: Store, J: Journal> Accounts<S, J> {
    /// The use cases on a store.
    pub fn new(store: S, reads: Arc<Reads<J>>) -> Self {
        Self { store, reads }
    }

    /// Opens an additional account of a user. The same opening again finds the account.
    pub async fn open(&self, opening: &Opening) -> Result<Opened, Error> {
        let opened = self.store.open(opening, MAX_ADDITIONAL).await?;
        match opening.differs(&opened.record) {
            None => Ok(opened),
            Some(field) => Err(Error::RequestIdReused(field)),
        }
    }

    /// Opens the bank's account of a role and currency, or finds it; for operators.
    pub async fn open_system(&self, role: Role, currency: Currency, by: i64) -> Result<Opened, Error> {
        self.store.open_system(role, currency, by).await
    }

    /// Accounts by number, those of others for operators only.
    pub async fn list(&self, whose: Whose, by: Authority) -> Result<Vec<AccountRecord>, Error> {
        match (whose, by) {
            (_, Authority::Bank) => {}
            (Whose::User(user), Authority::User(caller)) if user == caller => {}
            (_, Authority::User(_)) => return Err(Error::OperatorOnly),
        }
        self.store.list(whose).await
    }

    /// Changes an account; for operators.
    pub async fn change(&self, account: i64, change: Change, by: i64) -> Result<AccountRecord, Error> {
        self.store.change(account, change, by).await
    }

    /// Closes an account: an additional one for its owner, any for an operator, who is `caller`.
    pub async fn close(
        &self,
        account: i64,
        by: Authority,
        caller: i64,
        deadline: Instant,
    ) -> Result<AccountRecord, Error> {
        // neither the owner nor the role of an account ever changes: no lock is needed to read them
        let record = self.reads.account(account, by, deadline).await?;
        match (by, record.account.role) {
            (Authority::Bank, _) | (Authority::User(_), Role::Additional) => {}
            (Authority::User(_), Role::Main | Role::Treasury | Role::Fees) => {
                return Err(Error::OperatorOnly);
            }
        }
        self.store.change(account, Change::Close, caller).await
    }
}
