//! The use cases: signing up, which is a small saga, and reading users.

mod sweeper;

use std::time::Duration;

use chrono::{DateTime, Utc};
use lifecycle::Lifecycle;
use secrecy::SecretString;
use uuid::Uuid;

use crate::domain::user::{Email, Name, Status};

/// The currency of a new user's main account.
const CURRENCY: &str = "USD";

/// A user to create.
#[derive(Clone, Debug)]
pub struct SignUp {
    /// The id that the client made: the same id is the same user.
    pub request_id: Uuid,
    /// The name to show.
    pub name: Name,
    /// The email to sign in with.
    pub email: Email,
    /// The password, if the user can sign in.
    pub password: Option<SecretString>,
}

/// A row of the users.
#[derive(Clone, Debug)]
pub struct User {
    /// The user's number.
    pub id: i64,
    /// The name to show.
    pub name: String,
    /// The email to sign in with.
    pub email: String,
    /// Whether it was created with a password.
    pub has_password: bool,
    /// What the user may do.
    pub status: Status,
    /// When somebody last tried to finish the sign-up; grows with each attempt.
    pub attempted_at: DateTime<Utc>,
}

/// An attempt to sign up.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The user as it is now.
    pub user: User,
    /// Whether this attempt wrote the row.
    pub first: bool,
}

impl User {
    fn matches(&self, sign_up: &SignUp) -> bool {
        self.name == sign_up.name.as_str()
            && sign_up.email.is_same(&self.email)
            && self.has_password == sign_up.password.is_some()
    }
}

/// A user as a caller may see it.
#[derive(Debug)]
pub struct View {
    /// The user.
    pub user: User,
    /// The money, only for oneself.
    pub own: Option<Balance>,
}

/// The money of a user.
#[derive(Clone, Debug)]
pub struct Balance {
    /// Posted, in minor units.
    pub posted: i64,
    /// The ISO 4217 code.
    pub currency: String,
}

/// What went wrong, for the log, never for the caller.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such user, or nobody may see it.
    #[error("no such user")]
    UserNotFound,
    /// Another user has the email. Nothing was written.
    #[error("the email is taken")]
    EmailTaken,
    /// The request id belongs to another sign-up. Nothing was written.
    #[error("the request id was used before")]
    RequestIdReused,
    /// Auth does not take the password. Nothing is left behind.
    #[error("the password is too weak")]
    WeakPassword,
    /// Too many passwords wait for auth. Nothing is left behind.
    #[error("auth is overloaded")]
    Overloaded,
    /// Something that is needed does not answer: the outcome is unknown, a retry finishes it.
    #[error("unavailable: {0}")]
    Unavailable(#[source] Source),
    /// A mistake of ours.
    #[error("internal: {0}")]
    Internal(#[source] Source),
}

/// The users in a database.
pub trait Store: Send + Sync + 'static {
    /// Writes a pending user, or finds the one of an earlier attempt with the same request id.
    fn begin(&self, sign_up: &SignUp) -> impl Future<Output = Result<Attempt, Error>> + Send;
    /// Makes a pending user active, and says so to the other services in the same transaction. No effect on other users.
    fn activate(&self, id: i64) -> impl Future<Output = Result<(), Error>> + Send;
    /// Removes a pending user, so that the email is free again; unless somebody has tried to finish it since it was read.
    fn abandon(&self, user: &User) -> impl Future<Output = Result<(), Error>> + Send;
    /// Reads a user.
    fn user(&self, id: i64) -> impl Future<Output = Result<Option<User>, Error>> + Send;
    /// Takes pending users that nobody has tried to finish for `idle`, so that no other sweeper works on them for a while.
    /// `true` beside those with which it is longer than `forlorn`.
    fn lease(
        &self,
        idle: Duration,
        forlorn: Duration,
    ) -> impl Future<Output = Result<Vec<(User, bool)>, Error>> + Send;
}

/// The service that keeps credentials.
pub trait Credentials: Send + Sync + 'static {
    /// Creates the credential of a user; does nothing when it is there.
    fn create(
        &self,
        user_id: i64,
        email: &str,
        password: Option<&SecretString>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Whether the user has a credential.
    fn exists(&self, user_id: i64) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// The service that keeps money.
pub trait Bank: Send + Sync + 'static {
    /// Opens the main account of a user; does nothing when it is there.
    fn open(&self, user_id: i64, currency: &str) -> impl Future<Output = Result<(), Error>> + Send;
    /// Reads the balance of a user.
    fn balance(&self, user_id: i64) -> impl Future<Output = Result<Balance, Error>> + Send;
}

/// The use cases.
pub struct Users<S, C, B> {
    store: S,
    credentials: C,
    bank: B,
}

impl<S: Store, C: Credentials, B: Bank> Users<S, C, B> {
    /// The users of a store, with the services that hold their credentials and money.
    pub fn new(store: S, credentials: C, bank: B) -> Self {
        Self {
            store,
            credentials,
            bank,
        }
    }

    /// Creates a user, or goes on where an earlier attempt with the same request id stopped. Returns the user's number.
    ///
    /// Pending row → credential → bank account → active. Each step may be repeated; no lock is held between them.
    pub async fn sign_up(&self, sign_up: &SignUp) -> Result<i64, Error> {
        let Attempt { user, first } = self.store.begin(sign_up).await?;
        if !user.matches(sign_up) {
            return Err(Error::RequestIdReused);
        }
        if user.status == Status::Pending {
            let result = self.complete(&user, sign_up.password.as_ref()).await;
            // Auth did nothing for this attempt, and `abandon` leaves the row to any later one. An earlier one may still
            // be on its way: after a refusal for good it fails as well, but too much work passes, so then only the first
            // attempt clears away. A row that stayed would keep the email from a client that tries again with a new id.
            let undo = match &result {
                Err(Error::EmailTaken | Error::WeakPassword) => true,
                Err(Error::Overloaded) => first,
                _ => false,
            };
            if undo {
                self.store.abandon(&user).await?;
            }
            result?;
        }
        Ok(user.id)
    }

    async fn complete(&self, user: &User, password: Option<&SecretString>) -> Result<(), Error> {
        self.credentials.create(user.id, &user.email, password).await?;
        self.bank.open(user.id, CURRENCY).await?;
        self.store.activate(user.id).await
    }

    /// Reads a user for a caller: oneself with email and balance, others by name only.
    pub async fn view(&self, caller: i64, id: i64) -> Result<View, Error> {
        let user = self.store.user(id).await?.filter(|user| user.status.is_visible());
        let user = user.ok_or(Error::UserNotFound)?;
        let own = if caller == id {
            Some(self.bank.balance(id).await?)
        } else {
            None
        };
        Ok(View { user, own })
    }

    /// The status of a user; none when there is no such user.
    pub async fn status(&self, id: i64) -> Result<Option<Status>, Error> {
        Ok(self.store.user(id).await?.map(|user| user.status))
    }

    /// Finishes, until the lifecycle stops, what crashes have left half done.
    pub async fn sweep(&self, lifecycle: &Lifecycle) {
        sweeper::run(self, lifecycle).await;
    }
}
