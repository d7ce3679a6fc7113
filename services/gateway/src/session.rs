//! Who calls: a session token, from a cookie or as a bearer token, is looked up in Redis, and in auth when Redis does not
//! know it or is away.

mod cookie;
mod doubt;
mod flights;
mod known;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cache::Cache;
use channel::Stack;
pub(crate) use cookie::Cookies;
use doubt::Doubt;
use flights::Flights;
use http::{HeaderMap, header};
use known::Known;
use lifecycle::Lifecycle;
use opentelemetry::{KeyValue, metrics::Counter};
use proto::auth::v1::{ResolveSessionRequest, Role, session_service_client::SessionServiceClient};
use rpc::Caller;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};
use watch::Registry;
pub(crate) use watch::Watched;

/// A token is 32 random bytes in base64url: 43 characters. Anything else is not looked up.
const TOKEN_BYTES: usize = 43;
/// How long one question to auth may take; requests with an earlier deadline leave earlier.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the keys of sessions in Redis begin with, in front of the digest in hex.
const KEY_PREFIX: &str = "session:";
/// The pause after it could not be heard which sessions change.
const FOLLOW_AGAIN: Duration = Duration::from_millis(500);

/// The SHA-256 of a token.
type Digest = [u8; 32];

/// A token as it was sent.
#[derive(Clone, Copy)]
pub(crate) struct Presented<'a> {
    token: &'a str,
    /// From a cookie, which a browser sends by itself.
    pub by_cookie: bool,
}

/// What a token turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Session {
        user_id: i64,
        operator: bool,
        /// When it ends by itself, in Unix seconds.
        expires_at: i64,
    },
    /// No session, or one that has ended.
    Invalid,
    /// Neither Redis nor auth could tell.
    Unknown,
}

/// The value in Redis: a session, or the word that stands for an ended one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Cached {
    Live {
        user_id: i64,
        role: CachedRole,
        expires_at: i64,
    },
    Ended(#[expect(dead_code, reason = "any word means the same")] String),
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum CachedRole {
    User,
    Operator,
}

/// Finds sessions.
pub(crate) struct Sessions {
    cache: Cache,
    auth: SessionServiceClient<Stack>,
    known: Arc<Known>,
    doubt: Arc<Doubt>,
    /// What was found, and when it was asked.
    flights: Flights<(Found, Instant)>,
    streams: Arc<Registry>,
    lookups: Counter<u64>,
}

/// The token of a request. An `Authorization` header counts more than a cookie: somebody wrote it on purpose.
pub(crate) fn presented(headers: &HeaderMap) -> Option<Presented<'_>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer).unwrap_or_default();
        return Some(Presented {
            token,
            by_cookie: false,
        });
    }
    cookie::session(headers).map(|token| Presented {
        token,
        by_cookie: true,
    })
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Sessions {
    pub fn new(cache: Cache, auth: Stack) -> Self {
        let lookups = telemetry::metrics::meter()
            .u64_counter("kontor.gateway.sessions")
            .with_description("session lookups by source: redis, auth, none (nobody could tell)")
            .build();
        Self {
            cache,
            auth: SessionServiceClient::new(auth),
            known: Arc::default(),
            doubt: Arc::default(),
            flights: Flights::default(),
            streams: Arc::default(),
            lookups,
        }
    }

    /// Finds out who presents a token. The error says whether it is invalid or could not be checked.
    pub async fn caller(&self, presented: Presented<'_>) -> Result<Caller, Found> {
        let token = presented.token.as_bytes();
        let plausible = token.len() == TOKEN_BYTES
            && token
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !plausible {
            return Err(Found::Invalid);
        }
        let digest: Digest = Sha256::digest(token).into();
        if let Some(caller) = self.known.caller(&digest, Instant::now()) {
            return Ok(caller);
        }
        // a page that loads asks for the same session several times at once
        let lookup = Lookup {
            cache: self.cache.clone(),
            auth: self.auth.clone(),
            doubt: Arc::clone(&self.doubt),
            lookups: self.lookups.clone(),
        };
        let (found, asked) = self
            .flights
            .join(digest, || Box::pin(lookup.find(digest, Instant::now())))
            .await;
        match found {
            Found::Session {
                user_id,
                operator,
                expires_at,
            } => {
                let caller = Caller::User {
                    user_id,
                    operator,
                    session: Some(hex(&digest)),
                };
                let left = u64::try_from(expires_at.saturating_sub(unix_now())).unwrap_or_default();
                self.known
                    .learn(digest, caller.clone(), asked, Duration::from_secs(left));
                Ok(caller)
            }
            other => Err(other),
        }
    }

    /// Hears from Redis which sessions change, until the lifecycle stops.
    pub async fn follow_changes(self: Arc<Self>, lifecycle: Lifecycle) {
        let follow = async {
            loop {
                let error = self.cache.follow(KEY_PREFIX, Arc::clone(&self.known)).await;
                self.known.hears_nothing();
                // an outage is logged by the cache itself, once
                tracing::debug!(%error, "changes of sessions are not heard");
                tokio::time::sleep(FOLLOW_AGAIN).await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = lifecycle.stopping() => {}
        }
    }

    /// Looks whether an answer says that the caller's session has ended: then it ends here at once, and at the other
    /// gateways within a second.
    pub fn heed(&self, caller: &Caller, answer: &HeaderMap) {
        if Cookies::is_cleared_by(answer)
            && let Some(digest) = watch::digest_of(caller)
        {
            self.known.forget(&digest);
        }
    }
}

/// What is needed to ask about one session.
struct Lookup {
    cache: Cache,
    auth: SessionServiceClient<Stack>,
    doubt: Arc<Doubt>,
    lookups: Counter<u64>,
}

impl Lookup {
    async fn find(self, digest: Digest, asked: Instant) -> (Found, Instant) {
        match self.cache.get::<Cached>(&cache_key(&hex(&digest))).await {
            Ok(Some(cached)) => {
                let found = cached.into_found(unix_now());
                if found == Found::Invalid || !self.doubt.remains(Instant::now()) {
                    self.count("redis");
                    return (found, asked);
                }
            }
            Ok(None) => {}
            // logged by the cache itself, once for an outage; auth knows as well
            Err(error) => {
                self.doubt.begin(Instant::now());
                tracing::debug!(%error, "session not read from redis");
            }
        }
        let found = ask(self.auth.clone(), digest).await;
        self.count(if found == Found::Unknown { "none" } else { "auth" });
        (found, asked)
    }

    fn count(&self, source: &'static str) {
        self.lookups.add(1, &[KeyValue::new("source", source)]);
    }
}

impl Cached {
    fn into_found(self, now: i64) -> Found {
        match self {
            Self::Live {
                user_id,
                role,
                expires_at,
            } if expires_at > now => Found::Session {
                user_id,
                operator: role == CachedRole::Operator,
                expires_at,
            },
            Self::Live { .. } | Self::Ended(_) => Found::Invalid,
        }
    }
}

/// Asks auth, which also fills Redis; says in the log when it could not tell.
async fn ask(auth: SessionServiceClient<Stack>, digest: Digest) -> Found {
    resolve(auth, digest).await.unwrap_or_else(|status| {
        tracing::warn!(code = ?status.code(), detail = status.message(), "auth did not resolve a session");
        Found::Unknown
    })
}

async fn resolve(mut auth: SessionServiceClient<Stack>, digest: Digest) -> Result<Found, Status> {
    let request = ResolveSessionRequest {
        token_digest: digest.to_vec().into(),
    };
    let session = match tokio::time::timeout(RESOLVE_TIMEOUT, auth.resolve_session(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) if status.code() == Code::Unauthenticated => return Ok(Found::Invalid),
        Ok(Err(status)) => return Err(status),
        Err(_) => return Err(rpc::error::late()),
    };
    let operator = match session.role() {
        Role::User => false,
        Role::Operator => true,
        Role::Unspecified => return Ok(Found::Invalid),
    };
    Ok(Found::Session {
        user_id: session.user_id,
        operator,
        expires_at: session.expires_at.map_or(i64::MAX, |end| end.seconds),
    })
}

fn cache_key(hex: &str) -> String {
    format!("{KEY_PREFIX}{hex}")
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn token_of(headers: &[(header::HeaderName, &'static str)]) -> Option<(String, bool)> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        presented(&headers).map(|presented| (presented.token.to_owned(), presented.by_cookie))
    }

    #[test]
    fn a_bearer_token_counts_more_than_a_cookie() {
        use header::{AUTHORIZATION, COOKIE};
        let cookie = (COOKIE, "session=c");
        assert_eq!(token_of(&[]), None);
        assert_eq!(token_of(std::slice::from_ref(&cookie)), Some(("c".into(), true)));
        assert_eq!(
            token_of(&[(AUTHORIZATION, "Bearer b"), cookie.clone()]),
            Some(("b".into(), false))
        );
        assert_eq!(
            token_of(&[(AUTHORIZATION, "bearer  b")]),
            Some(("b".into(), false))
        );
        assert_eq!(
            token_of(&[(AUTHORIZATION, "Basic YQ=="), cookie]),
            Some((String::new(), false))
        );
    }

    #[test]
    fn redis_says_who_it_is_until_when() {
        let found = |json: &str, now| {
            serde_json::from_str::<Cached>(json)
                .map(|cached| cached.into_found(now))
                .ok()
        };
        let live = r#"{"user_id":7,"role":"operator","expires_at":100}"#;
        assert_eq!(
            found(live, 99),
            Some(Found::Session {
                user_id: 7,
                operator: true,
                expires_at: 100
            })
        );
        assert_eq!(found(live, 100), Some(Found::Invalid));
        assert_eq!(found(r#""revoked""#, 0), Some(Found::Invalid));
        assert_eq!(found(r#"{"user_id":7,"role":"king","expires_at":100}"#, 0), None);
    }

    #[test]
    fn a_digest_is_written_in_hex() {
        assert_eq!(hex(&[0, 0xab, 0x0f]), "00ab0f");
    }
}
