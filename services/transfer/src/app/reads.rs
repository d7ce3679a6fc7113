//! Reads of the ledger: what a caller may see of accounts and transfers.

pub mod history;
pub mod transfer;

use std::{collections::HashMap, sync::Arc, time::Instant};

use chrono::{DateTime, Utc};
use lifecycle::Lifecycle;
use uuid::Uuid;

use self::{
    history::{Entry, Scan},
    transfer::{Family, Transfer},
};
use super::{
    coalesce::{Coalescer, Source},
    error::Error,
};
use crate::domain::{
    account::Account,
    command::{Authority, Refusal},
};

/// An account with what the rules need not know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// The account.
    pub account: Account,
    /// The owner's name for it.
    pub label: String,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
}

/// What reads need from a database.
pub trait Journal: Clone + Send + Sync + 'static {
    /// Accounts by number, as far as they are there.
    fn records(&self, accounts: &[i64]) -> impl Future<Output = Result<Vec<AccountRecord>, Error>> + Send;
    /// For each id: the transfer that it names or belongs to, and all that was done to that.
    fn families(
        &self,
        ids: &[Uuid],
    ) -> impl Future<Output = Result<HashMap<Uuid, Arc<Family>>, Error>> + Send;
    /// A part of an account's entries, in the order of the scan.
    fn entries(&self, scan: &Scan) -> impl Future<Output = Result<Vec<Entry>, Error>> + Send;
    /// For each moment: how many entries of an account are older, which is the position of the last of them.
    fn entries_before(
        &self,
        account: i64,
        moments: &[DateTime<Utc>],
    ) -> impl Future<Output = Result<Vec<i64>, Error>> + Send;
}

/// The use cases that read.
pub struct Reads<J> {
    journal: J,
    accounts: Coalescer<i64, Arc<AccountRecord>>,
    transfers: Coalescer<Uuid, Arc<Family>>,
}

/// Reads one kind of thing from the journal.
struct Of<J>(J);

impl<J: Journal> Source<i64, Arc<AccountRecord>> for Of<J> {
    async fn read(&self, keys: &[i64]) -> Result<HashMap<i64, Arc<AccountRecord>>, Error> {
        let records = self.0.records(keys).await?;
        Ok(records
            .into_iter()
            .map(|record| (record.account.id, Arc::new(record)))
            .collect())
    }
}

impl<J: Journal> Source<Uuid, Arc<Family>> for Of<J> {
    async fn read(&self, keys: &[Uuid]) -> Result<HashMap<Uuid, Arc<Family>>, Error> {
        self.0.families(keys).await
    }
}

impl<J: Journal> Reads<J> {
    /// The use cases on a journal; what they need to run is owned by `lifecycle`.
    pub fn start(journal: J, lifecycle: &Lifecycle) -> Self {
        Self {
            accounts: Coalescer::start("account reads", Of(journal.clone()), lifecycle),
            transfers: Coalescer::start("transfer reads", Of(journal.clone()), lifecycle),
            journal,
        }
    }

    /// An account that the caller may see.
    pub async fn account(
        &self,
        account: i64,
        by: Authority,
        deadline: Instant,
    ) -> Result<Arc<AccountRecord>, Error> {
        let record = self.accounts.get(account, deadline).await?;
        record
            .filter(|record| match by {
                Authority::Bank => true,
                Authority::User(user) => record.account.owner == Some(user),
            })
            .ok_or(Error::Refused(Refusal::AccountNotFound))
    }

    /// A transfer, or what was done to one, as far as it concerns the caller.
    pub async fn transfer(&self, id: Uuid, by: Authority, deadline: Instant) -> Result<Transfer, Error> {
        let family = self.transfers.get(id, deadline).await?;
        family
            .and_then(|family| family.seen(id, by))
            .ok_or(Error::Refused(Refusal::TransferNotFound))
    }
}
