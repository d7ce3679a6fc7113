//! Requests to what the use cases take, with every bad field named at once, and results to answers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use proto::auth::v1::{CreateCredentialRequest, LoginRequest, Role};
use rpc::{
    Caller,
    error::{internal, invalid},
};
use tonic::{
    Status,
    metadata::{MetadataMap, MetadataValue},
};

use super::status::weak_password;
use crate::domain::{
    self,
    email::LoginKey,
    password::Password,
    session::{Token, TokenDigest},
};

const EMAIL: (&str, &str) = ("email", "must have 1 to 254 bytes");
const PASSWORD: (&str, &str) = ("password", "must have 1 to 1024 bytes");
const USER: (&str, &str) = ("user_id", "must be a user's id");

/// The gateway turns these into `Set-Cookie`, and lets no header that begins with `kontor-` through.
const SET_SESSION: &str = "kontor-set-session";
const MAX_AGE: &str = "kontor-session-max-age";
const CLEAR_SESSION: &str = "kontor-clear-session";

pub fn login(request: LoginRequest) -> Result<(LoginKey, Password), Status> {
    match (
        LoginKey::of(&request.email),
        Password::presented(request.password),
    ) {
        (Some(email), Some(password)) => Ok((email, password)),
        (None, Some(_)) => Err(invalid([EMAIL])),
        (Some(_), None) => Err(invalid([PASSWORD])),
        (None, None) => Err(invalid([EMAIL, PASSWORD])),
    }
}

pub fn credential(request: CreateCredentialRequest) -> Result<(i64, LoginKey, Option<Password>), Status> {
    let user = Some(request.user_id).filter(|id| *id > 0);
    match (user, LoginKey::of(&request.email)) {
        (Some(user_id), Some(email)) => {
            let chosen = |text| Password::chosen(text).ok_or_else(weak_password);
            Ok((user_id, email, request.password.map(chosen).transpose()?))
        }
        (None, Some(_)) => Err(invalid([USER])),
        (Some(_), None) => Err(invalid([EMAIL])),
        (None, None) => Err(invalid([USER, EMAIL])),
    }
}

pub fn user_id(id: i64) -> Result<i64, Status> {
    if id > 0 { Ok(id) } else { Err(invalid([USER])) }
}

pub fn role(role: Role) -> Result<domain::Role, Status> {
    match role {
        Role::User => Ok(domain::Role::User),
        Role::Operator => Ok(domain::Role::Operator),
        Role::Unspecified => Err(invalid([("role", "must be ROLE_USER or ROLE_OPERATOR")])),
    }
}

pub fn role_number(role: domain::Role) -> i32 {
    match role {
        domain::Role::User => Role::User.into(),
        domain::Role::Operator => Role::Operator.into(),
    }
}

pub fn digest(bytes: &[u8]) -> Result<TokenDigest, Status> {
    TokenDigest::from_bytes(bytes).ok_or_else(|| invalid([("token_digest", "must have 32 bytes")]))
}

/// The session that the caller came with.
pub fn own_session(caller: &Caller) -> Result<Option<TokenDigest>, Status> {
    match caller {
        Caller::User { session, .. } => {
            // signed by the gateway: a digest that is none is a mistake of ours
            session
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|error| internal(&error))
        }
        Caller::Anonymous | Caller::Service { .. } => Err(rpc::error::unauthenticated()),
    }
}

pub fn set_session(metadata: &mut MetadataMap, token: &Token, lifetime: Duration) -> Result<(), Status> {
    let mut value = MetadataValue::try_from(token.expose()).map_err(|error| internal(&error))?;
    value.set_sensitive(true);
    metadata.insert(SET_SESSION, value);
    metadata.insert(MAX_AGE, MetadataValue::from(lifetime.as_secs()));
    Ok(())
}

pub fn clear_session(metadata: &mut MetadataMap) {
    metadata.insert(CLEAR_SESSION, MetadataValue::from_static("1"));
}

pub fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        // below 2 * 10^9 by definition, leap seconds included
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use rpc::error::{reason, violations};
    use tonic::Code;

    use super::*;

    #[test]
    fn every_bad_field_is_named_at_once() {
        let status = login(LoginRequest {
            password: "x".repeat(1025),
            ..LoginRequest::default()
        })
        .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields: Vec<String> = violations(&status).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["email", "password"]);
    }

    #[test]
    fn a_weak_password_has_a_reason_of_its_own() {
        let request = |password: &str| CreateCredentialRequest {
            user_id: 1,
            email: "a@b.c".into(),
            password: Some(password.into()),
        };
        assert_eq!(
            reason(&credential(request("1234567")).unwrap_err()).as_deref(),
            Some("WEAK_PASSWORD")
        );
        assert!(credential(request("12345678")).is_ok());
        let without = CreateCredentialRequest {
            password: None,
            ..request("")
        };
        assert!(matches!(credential(without), Ok((1, _, None))));
    }

    #[test]
    fn the_token_travels_in_metadata() {
        let (mut metadata, token) = (MetadataMap::new(), Token::from_random([7; 32]));
        set_session(&mut metadata, &token, Duration::from_hours(24)).unwrap();
        assert_eq!(metadata.get("kontor-set-session").unwrap(), token.expose());
        assert_eq!(metadata.get("kontor-session-max-age").unwrap(), "86400");
        assert!(!format!("{metadata:?}").contains(token.expose()));
    }
}
