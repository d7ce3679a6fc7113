use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Error, Source};
use crate::domain::{
    Role,
    email::LoginKey,
    password::Password,
    session::{Session, TokenDigest},
};

/// What a user signs in with.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Whose it is.
    pub user_id: i64,
    /// What new sessions may do.
    pub role: Role,
    /// The hash of the password with its parameters; without it nobody can sign in.
    pub password_hash: Option<String>,
}

/// What the use cases need from a database.
pub trait Store: Send + Sync + 'static {
    /// The credential of an email.
    fn credential(&self, email: LoginKey) -> impl Future<Output = Result<Option<Credential>, Error>> + Send;
    /// The email of a user's credential.
    fn login_key(&self, user_id: i64) -> impl Future<Output = Result<Option<LoginKey>, Error>> + Send;
    /// Creates a credential unless the user has one, and returns the email of the one that is there afterwards.
    fn create_credential(
        &self,
        user_id: i64,
        email: LoginKey,
        password_hash: Option<&str>,
    ) -> impl Future<Output = Result<LoginKey, Error>> + Send;
    /// Replaces a password's hash, if it is still the old one.
    fn replace_hash(
        &self,
        user_id: i64,
        old: &str,
        new: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Sets a role; false when there is no such credential.
    fn grant_role(&self, user_id: i64, role: Role) -> impl Future<Output = Result<bool, Error>> + Send;
    /// Stores a new session.
    fn start_session(
        &self,
        digest: TokenDigest,
        session: &Session,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// The session of a token, unless it has expired.
    fn session(
        &self,
        digest: TokenDigest,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Option<Session>, Error>> + Send;
    /// Removes a session, if it is there.
    fn end_session(&self, digest: TokenDigest) -> impl Future<Output = Result<(), Error>> + Send;
    /// Removes up to `limit` sessions that have expired, and returns how many it removed.
    fn remove_expired(
        &self,
        now: DateTime<Utc>,
        limit: i64,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// What the use cases need from a cache. It may forget, and it may be away.
pub trait SessionCache: Send + Sync + 'static {
    /// Leaves a copy of a session, unless the session was ended or the copy is there.
    fn fill(
        &self,
        digest: TokenDigest,
        session: &Session,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), Source>> + Send;
    /// Replaces a session's copy by the note that it was ended.
    fn revoke(&self, digest: TokenDigest) -> impl Future<Output = Result<(), Source>> + Send;
}

/// A password that was right.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do.
    Right,
    /// Its hash was made with old parameters; here is a new one.
    Renewed {
        /// The hash that was compared with.
        old: String,
        /// The hash to keep.
        new: String,
    },
}

/// What the use cases need from a hash function that is slow on purpose.
pub trait Passwords: Send + Sync + 'static {
    /// Compares a password with a hash. Without a hash it does the same work and says `None`, as for a wrong password.
    fn verify(
        &self,
        hash: Option<String>,
        password: Password,
    ) -> impl Future<Output = Result<Option<Verdict>, Error>> + Send;
    /// Hashes a new password.
    fn hash(&self, password: Password) -> impl Future<Output = Result<String, Error>> + Send;
}

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> DateTime<Utc>;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock that everything else is given"
    )]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
