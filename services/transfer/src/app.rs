//! The use cases of the ledger, and what they need from a store.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    money::{Amount, Currency},
    posting::{Account, Refusal},
};

/// The account of one side of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The main account of a user.
    User(i64),
    /// The bank's treasury in the currency of the other side.
    Treasury,
}

/// A transfer that a client asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// The id that the client made: the same id is the same transfer, for ever.
    pub id: Uuid,
    /// Who pays.
    pub from: Party,
    /// Who is paid.
    pub to: Party,
    /// How much.
    pub amount: Amount,
    /// In which currency; `None` takes the paying account's.
    pub currency: Option<Currency>,
}

/// A transfer in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The id that the client made.
    pub id: Uuid,
    /// Who paid.
    pub from: Party,
    /// Who was paid.
    pub to: Party,
    /// How much, in minor units.
    pub amount: i64,
    /// The ISO 4217 code of the currency.
    pub currency: String,
    /// When it was posted.
    pub created_at: DateTime<Utc>,
}

impl Transfer {
    /// Whether a repeated order asks for this very transfer.
    pub fn matches(&self, order: &Order) -> bool {
        self.from == order.from
            && self.to == order.to
            && self.amount == order.amount.minor()
            && order
                .currency
                .is_none_or(|currency| currency.code() == self.currency)
    }
}

/// What the store says went wrong; for the log, never for the caller.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules refuse the transfer. Nothing was written.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// A user has no account. Nothing was written.
    #[error("no account")]
    UserNotFound,
    /// The caller may not move this money. Nothing was written.
    #[error("not the caller's account")]
    NotYourAccount,
    /// There is no such transfer, or it does not concern the caller.
    #[error("no such transfer")]
    TransferNotFound,
    /// The id belongs to a transfer with other content. Nothing was written.
    #[error("the id was used before")]
    IdReused,
    /// The user's main account has another currency. Nothing was written.
    #[error("the account exists with another currency")]
    AccountExists,
    /// The database did not answer: the outcome is unknown, a retry with the same id tells it.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] Source),
    /// A mistake of ours: the outcome is unknown.
    #[error("internal: {0}")]
    Internal(#[source] Source),
}

/// What the use cases need from a database.
pub trait Store: Send + Sync + 'static {
    /// Posts the order in one transaction, or finds what an earlier attempt with the same id posted.
    fn post(&self, order: &Order) -> impl Future<Output = Result<Transfer, Error>> + Send;
    /// Reads a transfer.
    fn transfer(&self, id: Uuid) -> impl Future<Output = Result<Option<Transfer>, Error>> + Send;
    /// Opens the main account of a user, or finds it.
    fn open(&self, user_id: i64, currency: Currency) -> impl Future<Output = Result<Account, Error>> + Send;
    /// Reads the main account of a user.
    fn account(&self, user_id: i64) -> impl Future<Output = Result<Option<Account>, Error>> + Send;
}

/// The use cases.
pub struct Ledger<S> {
    store: S,
}

impl<S: Store> Ledger<S> {
    /// The ledger of a store.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    /// Moves money from the caller's account.
    pub async fn transfer(&self, caller: i64, order: &Order) -> Result<Transfer, Error> {
        if order.from != Party::User(caller) {
            return Err(Error::NotYourAccount);
        }
        self.post(order).await
    }

    /// Pays money in from the treasury; the caller is an operator.
    pub async fn deposit(&self, order: &Order) -> Result<Transfer, Error> {
        self.post(order).await
    }

    async fn post(&self, order: &Order) -> Result<Transfer, Error> {
        let posted = self.store.post(order).await?;
        if posted.matches(order) {
            Ok(posted)
        } else {
            Err(Error::IdReused)
        }
    }

    /// Reads a transfer that concerns the caller.
    pub async fn find(&self, caller: i64, id: Uuid) -> Result<Transfer, Error> {
        let mine = |transfer: &Transfer| [transfer.from, transfer.to].contains(&Party::User(caller));
        self.store
            .transfer(id)
            .await?
            .filter(mine)
            .ok_or(Error::TransferNotFound)
    }

    /// Opens the main account of a user; opening it again finds it.
    pub async fn open(&self, user_id: i64, currency: Currency) -> Result<Account, Error> {
        let account = self.store.open(user_id, currency).await?;
        if account.currency == currency {
            Ok(account)
        } else {
            Err(Error::AccountExists)
        }
    }

    /// Reads the main account of a user.
    pub async fn account(&self, user_id: i64) -> Result<Account, Error> {
        self.store.account(user_id).await?.ok_or(Error::UserNotFound)
    }
}
