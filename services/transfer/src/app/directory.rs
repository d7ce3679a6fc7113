//! Which account a user or the treasury means.
//!
//! A user's main account and the treasury of a currency never change, so what was looked up once need not be again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{error::Error, patience};
use crate::domain::{account::Role, money::Currency};

/// How many main accounts are remembered; one takes some 50 bytes.
const REMEMBERED: usize = 200_000;

/// What the directory needs from a database.
pub trait Accounts: Send + Sync + 'static {
    /// The main accounts of users: user and account.
    fn main_accounts(&self, users: &[i64]) -> impl Future<Output = Result<Vec<(i64, i64)>, Error>> + Send;
    /// The currency of an account.
    fn currency(&self, account: i64) -> impl Future<Output = Result<Option<Currency>, Error>> + Send;
    /// The bank's account of a role and currency; opened when there is none.
    fn system_account(
        &self,
        role: Role,
        currency: Currency,
    ) -> impl Future<Output = Result<i64, Error>> + Send;
    /// Opens the main account of a user, or finds it: its number and currency.
    fn open_main(
        &self,
        user: i64,
        currency: Currency,
    ) -> impl Future<Output = Result<(i64, Currency), Error>> + Send;
}

/// Looks accounts up.
pub struct Directory<A> {
    accounts: A,
    // never held over an await: a lock of some nanoseconds
    main: Mutex<HashMap<i64, i64>>,
    treasuries: Mutex<HashMap<&'static str, i64>>,
}

impl<A: Accounts> Directory<A> {
    /// A directory that knows nothing yet.
    pub fn new(accounts: A) -> Self {
        Self {
            accounts,
            main: Mutex::default(),
            treasuries: Mutex::default(),
        }
    }

    /// The main accounts of users, as far as there are any.
    pub async fn main_accounts(&self, users: &[i64]) -> Result<HashMap<i64, i64>, Error> {
        let mut found = HashMap::with_capacity(users.len());
        let mut missing = Vec::new();
        {
            let known = self.main.lock().unwrap_or_else(PoisonError::into_inner);
            for user in users {
                match known.get(user) {
                    Some(account) => {
                        found.insert(*user, *account);
                    }
                    None => missing.push(*user),
                }
            }
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            let looked_up = patience::answer(self.accounts.main_accounts(&missing)).await?;
            let mut known = self.main.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() + looked_up.len() > REMEMBERED {
                known.clear();
            }
            known.extend(looked_up.iter().copied().take(REMEMBERED));
            found.extend(looked_up);
        }
        Ok(found)
    }

    /// The treasury that deals with an account.
    pub async fn treasury_for(&self, account: i64) -> Result<Option<i64>, Error> {
        let Some(currency) = patience::answer(self.accounts.currency(account)).await? else {
            return Ok(None);
        };
        let known = |treasuries: &Mutex<HashMap<&'static str, i64>>| {
            let treasuries = treasuries.lock().unwrap_or_else(PoisonError::into_inner);
            treasuries.get(currency.code()).copied()
        };
        if let Some(treasury) = known(&self.treasuries) {
            return Ok(Some(treasury));
        }
        let treasury = patience::answer(self.accounts.system_account(Role::Treasury, currency)).await?;
        let mut treasuries = self.treasuries.lock().unwrap_or_else(PoisonError::into_inner);
        treasuries.insert(currency.code(), treasury);
        Ok(Some(treasury))
    }

    /// Opens the main account of a user; opening it again finds it.
    pub async fn open_main(&self, user: i64, currency: Currency) -> Result<i64, Error> {
        let (account, opened_with) = patience::answer(self.accounts.open_main(user, currency)).await?;
        if opened_with == currency {
            Ok(account)
        } else {
            Err(Error::AccountExists)
        }
    }
}
