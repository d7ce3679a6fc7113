//! Copies of sessions in Redis, where the gateway looks first.
//!
//! Key `session:<digest in hex>`; the value is `{"user_id":1,"role":"user","expires_at":1767225600}`, or `"revoked"`.
//! A copy is written only where nothing stands, so that a slow read of a session cannot undo its end.

use std::time::Duration;

use cache::Cache;
use serde::Serialize;

use crate::{
    app::{REVOKED, SessionCache, Source},
    domain::session::{Session, TokenDigest},
};

/// The cache of one Redis.
#[derive(Clone)]
pub struct Redis(Cache);

#[derive(Serialize)]
struct Copy {
    user_id: i64,
    role: &'static str,
    expires_at: i64,
}

impl Redis {
    /// Copies in `cache`.
    pub fn new(cache: Cache) -> Self {
        Self(cache)
    }
}

fn key(digest: TokenDigest) -> String {
    format!("session:{digest}")
}

impl SessionCache for Redis {
    async fn fill(&self, digest: TokenDigest, session: &Session, ttl: Duration) -> Result<(), Source> {
        let copy = Copy {
            user_id: session.user_id,
            role: session.role.name(),
            expires_at: session.expires_at.timestamp(),
        };
        self.0.put_if_absent(&key(digest), &copy, ttl).await?;
        Ok(())
    }

    async fn revoke(&self, digest: TokenDigest) -> Result<(), Source> {
        Ok(self.0.put(&key(digest), &"revoked", REVOKED).await?)
    }
}
