//! The use cases of sign-in, and what they need.

mod error;
mod needs;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
pub use error::{Error, Source};
pub use needs::{Clock, Credential, Passwords, SessionCache, Store, SystemClock, Verdict};
use tokio::sync::mpsc;

use crate::domain::{
    Role,
    email::LoginKey,
    password::Password,
    session::{Session, Token, TokenDigest},
};

/// How long a session's copy may stay in the cache at most.
pub const CACHED: Duration = Duration::from_mins(1);
/// How long the cache remembers that a session was ended: longer than any copy that was read before could still be written.
pub const REVOKED: Duration = Duration::from_mins(2);
/// Expired sessions that one statement removes.
const SWEEP_BATCH: i64 = 1_000;

/// The use cases.
pub struct Auth<S, C, P, K> {
    /// Credentials and sessions.
    pub store: S,
    /// Copies of sessions.
    pub cache: C,
    /// The slow work.
    pub passwords: P,
    /// The time.
    pub clock: K,
    /// How long a new session lasts.
    pub session_lifetime: Duration,
    /// Takes the sessions whose end the cache could not be told.
    pub revocations: mpsc::Sender<TokenDigest>,
}

/// A session that has just begun.
#[derive(Debug)]
pub struct Started {
    /// What the client sends from now on.
    pub token: Token,
    /// The session.
    pub session: Session,
}

impl<S: Store, C: SessionCache, P: Passwords, K: Clock> Auth<S, C, P, K> {
    /// Starts a session for whoever presents the right password.
    ///
    /// An unknown email and a wrong password take the same time and give the same answer.
    pub async fn login(&self, email: LoginKey, password: Password) -> Result<Started, Error> {
        let found = self.store.credential(email).await?;
        let hash = found
            .as_ref()
            .and_then(|credential| credential.password_hash.clone());
        let verdict = self.passwords.verify(hash, password).await?;
        let Some((credential, verdict)) = found.zip(verdict) else {
            return Err(Error::InvalidCredentials);
        };
        if let Verdict::Renewed { old, new } = verdict {
            self.store.replace_hash(credential.user_id, &old, &new).await?;
        }
        self.start(credential.user_id, credential.role).await
    }

    async fn start(&self, user_id: i64, role: Role) -> Result<Started, Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| Error::Internal(error.into()))?;
        let token = Token::from_random(random);
        let now = self.clock.now();
        let lifetime = TimeDelta::from_std(self.session_lifetime).unwrap_or(TimeDelta::MAX);
        let expires_at = now
            .checked_add_signed(lifetime)
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
        let session = Session {
            user_id,
            role,
            expires_at,
        };
        self.store.start_session(token.digest(), &session, now).await?;
        Ok(Started { token, session })
    }

    /// Ends a session, here and in the cache.
    pub async fn logout(&self, digest: TokenDigest) -> Result<(), Error> {
        // the row first: were it last, the cache could be filled from it in between
        self.store.end_session(digest).await?;
        if let Err(error) = self.cache.revoke(digest).await {
            tracing::warn!(%error, "the end of a session is not in the cache yet");
            // without the cache the gateway asks here, where the session is gone; a copy that comes back with the cache
            // is what the task removes
            self.revocations
                .try_send(digest)
                .map_err(|error| Error::Unavailable(error.into()))?;
        }
        Ok(())
    }

    /// Finds a session and leaves a copy in the cache.
    pub async fn resolve(&self, digest: TokenDigest) -> Result<Session, Error> {
        let now = self.clock.now();
        let session = self
            .store
            .session(digest, now)
            .await?
            .ok_or(Error::SessionInvalid)?;
        let remaining = (session.expires_at - now).to_std().unwrap_or_default();
        if let Err(error) = self.cache.fill(digest, &session, remaining.min(CACHED)).await {
            tracing::debug!(%error, "a session is not in the cache");
        }
        Ok(session)
    }

    /// Creates a user's credential; creating it again changes nothing.
    pub async fn create_credential(
        &self,
        user_id: i64,
        email: LoginKey,
        password: Option<Password>,
    ) -> Result<(), Error> {
        // before the slow work: a repeat must be cheap
        if let Some(existing) = self.store.login_key(user_id).await? {
            return same(existing, email);
        }
        let hash = match password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let kept = self
            .store
            .create_credential(user_id, email, hash.as_deref())
            .await?;
        same(kept, email)
    }

    /// Whether a user has a credential.
    pub async fn has_credential(&self, user_id: i64) -> Result<bool, Error> {
        Ok(self.store.login_key(user_id).await?.is_some())
    }

    /// Sets the role of a user's next sessions.
    pub async fn grant_role(&self, user_id: i64, role: Role) -> Result<(), Error> {
        if self.store.grant_role(user_id, role).await? {
            Ok(())
        } else {
            Err(Error::CredentialNotFound)
        }
    }

    /// Removes the sessions that have expired, and returns how many they were.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            let batch = self.store.remove_expired(self.clock.now(), SWEEP_BATCH).await?;
            removed += batch;
            if batch < SWEEP_BATCH.unsigned_abs() {
                return Ok(removed);
            }
        }
    }
}

fn same(existing: LoginKey, wanted: LoginKey) -> Result<(), Error> {
    if existing == wanted {
        Ok(())
    } else {
        Err(Error::CredentialExists)
    }
}

/// The use cases with everything real behind them.
pub type Real =
    Auth<crate::store::Postgres, crate::session_cache::Redis, crate::passwords::Argon2id, SystemClock>;

/// A shared [`Real`].
pub type Shared = Arc<Real>;
