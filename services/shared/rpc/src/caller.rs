//! Who calls: a short-lived token, signed with a key that the kontor processes share.
//!
//! The gateway drops the header when it comes from outside, authenticates the caller and signs what it found; services sign
//! for themselves when they call each other. The format is a JWT (RFC 7519) with HMAC-SHA-256.

use std::sync::Arc;

use http::HeaderValue;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use settings::{Invalid, Reader};
use tonic::Status;

use crate::recent::Recent;

/// The header of the signed caller context.
pub const HEADER: &str = "kontor-caller";

/// How long a signed context is valid, in seconds: longer than any deadline would need it, short enough to be useless later.
const LIFETIME_S: u64 = 30;
/// How long a signature is used again for the same caller, in seconds. What is left of its life is longer than any deadline
/// by default; and a service that reads it late has its leeway.
const REUSED_S: u64 = 10;
/// Callers whose signature is kept, and signatures that are known to be good: as many again may be a little older.
const KEPT: usize = 8_192;
/// How far the clocks of two instances may differ, in seconds.
const LEEWAY_S: u64 = 5;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Somebody without a session.
    Anonymous,
    /// A signed-in user.
    User {
        /// The user's number.
        user_id: i64,
        /// Whether the session has the role of an operator.
        operator: bool,
        /// The digest of the session's token in hex, to end the session.
        session: Option<String>,
    },
    /// Another service of kontor.
    Service {
        /// Its name.
        name: String,
    },
}

impl Caller {
    /// The signed-in user's number, or UNAUTHENTICATED.
    pub fn user_id(&self) -> Result<i64, Status> {
        match self {
            Self::User { user_id, .. } => Ok(*user_id),
            Self::Anonymous | Self::Service { .. } => Err(crate::error::unauthenticated()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    iat: u64,
    exp: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Anonymous,
    User,
    Operator,
    Service,
}

/// The key that signs and verifies caller contexts.
#[derive(Clone)]
pub struct Key(Arc<Keys>);

struct Keys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    signed: Recent<(&'static str, Caller), HeaderValue>,
    verified: Recent<Box<[u8]>, Caller>,
}

/// Why a key or a signed context is not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secret is too short to sign with.
    #[error("the secret has fewer than 32 bytes")]
    ShortSecret,
    /// The context cannot be signed.
    #[error("cannot sign the caller context")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// The context is not signed with our key, has expired, or makes no sense.
    #[error("the caller context is not valid")]
    Invalid,
}

impl Key {
    /// A key from a secret of at least 32 bytes.
    pub fn new(secret: &SecretString) -> Result<Self, Error> {
        let bytes = secret.expose_secret().as_bytes();
        if bytes.len() < 32 {
            return Err(Error::ShortSecret);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_S;
        validation.set_required_spec_claims(&["exp"]);
        Ok(Self(Arc::new(Keys {
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
            validation,
            signed: Recent::new(KEPT),
            verified: Recent::new(KEPT),
        })))
    }

    /// Reads `KONTOR_CALLER_SECRET`.
    pub fn read(reader: &mut Reader) -> Result<Self, Invalid> {
        reader.secret_as(
            "KONTOR_CALLER_SECRET",
            "secret of at least 32 bytes that signs who calls; the same for all services",
            |secret| Self::new(secret).map_err(|error| error.to_string()),
        )
    }

    /// Signs that `issuer` vouches for the caller, for half a minute. Within some seconds the same caller gets the same
    /// signature.
    pub fn sign(&self, issuer: &'static str, caller: &Caller) -> Result<HeaderValue, Error> {
        let now = jsonwebtoken::get_current_timestamp();
        let key = (issuer, caller.clone());
        if let Some(signed) = self.0.signed.get(&key, now) {
            return Ok(signed);
        }
        let signed = self.sign_anew(issuer, caller, now)?;
        self.0.signed.put(key, signed.clone(), now, now + REUSED_S);
        Ok(signed)
    }

    fn sign_anew(&self, issuer: &str, caller: &Caller, iat: u64) -> Result<HeaderValue, Error> {
        let (sub, role, sid) = match caller {
            Caller::Anonymous => (None, Role::Anonymous, None),
            Caller::User {
                user_id,
                operator,
                session,
            } => (
                Some(user_id.to_string()),
                if *operator { Role::Operator } else { Role::User },
                session.clone(),
            ),
            Caller::Service { name } => (Some(name.clone()), Role::Service, None),
        };
        let claims = Claims {
            iss: issuer.to_owned(),
            sub,
            role,
            sid,
            iat,
            exp: iat + LIFETIME_S,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.0.encoding)
            .map_err(Error::Sign)?;
        let mut value = HeaderValue::try_from(token).map_err(|_| Error::Invalid)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Verifies a signed context. The very same bytes are not verified again while they are valid.
    pub fn verify(&self, value: &HeaderValue) -> Result<Caller, Error> {
        let now = jsonwebtoken::get_current_timestamp();
        if let Some(caller) = self.0.verified.get(value.as_bytes(), now) {
            return Ok(caller);
        }
        let (caller, end) = self.verify_anew(value)?;
        self.0
            .verified
            .put(value.as_bytes().into(), caller.clone(), now, end);
        Ok(caller)
    }

    /// The caller, and when the context ends.
    fn verify_anew(&self, value: &HeaderValue) -> Result<(Caller, u64), Error> {
        let claims = jsonwebtoken::decode::<Claims>(value.as_bytes(), &self.0.decoding, &self.0.validation)
            .map_err(|_| Error::Invalid)?
            .claims;
        let caller = match (claims.role, claims.sub) {
            (Role::Anonymous, None) => Caller::Anonymous,
            (Role::Service, Some(name)) => Caller::Service { name },
            (role @ (Role::User | Role::Operator), Some(sub)) => Caller::User {
                user_id: sub.parse().map_err(|_| Error::Invalid)?,
                operator: matches!(role, Role::Operator),
                session: claims.sid,
            },
            _ => return Err(Error::Invalid),
        };
        Ok((caller, claims.exp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str) -> Key {
        Key::new(&SecretString::from(secret)).unwrap()
    }

    #[test]
    fn a_signed_caller_comes_back() {
        let key = key("0123456789abcdef0123456789abcdef");
        for caller in [
            Caller::Anonymous,
            Caller::User {
                user_id: 7,
                operator: false,
                session: Some("ab".into()),
            },
            Caller::User {
                user_id: 7,
                operator: true,
                session: None,
            },
            Caller::Service {
                name: "account".into(),
            },
        ] {
            assert_eq!(
                key.verify(&key.sign("gateway", &caller).unwrap()).unwrap(),
                caller
            );
        }
    }

    #[test]
    fn a_signature_is_used_again_for_the_same_caller_only() {
        let key = key("0123456789abcdef0123456789abcdef");
        let user = |user_id| Caller::User {
            user_id,
            operator: false,
            session: Some("ab".into()),
        };
        let first = key.sign("gateway", &user(1)).unwrap();
        assert_eq!(key.sign("gateway", &user(1)).unwrap(), first);
        assert_ne!(key.sign("gateway", &user(2)).unwrap(), first);
        assert_ne!(key.sign("account", &user(1)).unwrap(), first);
        for _ in 0..2 {
            assert_eq!(key.verify(&first).unwrap(), user(1));
        }
    }

    #[test]
    fn a_context_that_was_verified_does_not_outlive_its_end() {
        let key = key("0123456789abcdef0123456789abcdef");
        let now = jsonwebtoken::get_current_timestamp();
        // within the leeway: valid, but looked at anew each time
        let old = key
            .sign_anew("gateway", &Caller::Anonymous, now - LIFETIME_S)
            .unwrap();
        assert_eq!(key.verify(&old).unwrap(), Caller::Anonymous);
        assert_eq!(key.0.verified.get(old.as_bytes(), now), None);
        let new = key.sign("gateway", &Caller::Anonymous).unwrap();
        key.verify(&new).unwrap();
        assert_eq!(key.0.verified.get(new.as_bytes(), now), Some(Caller::Anonymous));
        assert_eq!(key.0.verified.get(new.as_bytes(), now + LIFETIME_S + 1), None);
    }

    #[test]
    fn a_context_of_another_key_is_refused() {
        let signed = key("0123456789abcdef0123456789abcdef")
            .sign("gateway", &Caller::Anonymous)
            .unwrap();
        assert!(
            key("another secret of at least 32 bytes")
                .verify(&signed)
                .is_err()
        );
    }

    #[test]
    fn an_unsigned_or_expired_context_is_refused() {
        let key = key("0123456789abcdef0123456789abcdef");
        // {"alg":"none","typ":"JWT"} . {"iss":"gateway","sub":"1","role":"operator","iat":0,"exp":99999999999} .
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJnYXRld2F5Iiwic3ViIjoiMSIsInJvbGUiOiJvcGVyYXRvciIsImlhdCI6MCwiZXhwIjo5OTk5OTk5OTk5OX0.";
        assert!(key.verify(&HeaderValue::from_static(unsigned)).is_err());
        let claims = Claims {
            iss: "gateway".into(),
            sub: Some("1".into()),
            role: Role::User,
            sid: None,
            iat: 1,
            exp: jsonwebtoken::get_current_timestamp() - LEEWAY_S - 1,
        };
        let expired = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key.0.encoding).unwrap();
        assert!(key.verify(&HeaderValue::try_from(expired).unwrap()).is_err());
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(matches!(
            Key::new(&SecretString::from("short")),
            Err(Error::ShortSecret)
        ));
    }
}
