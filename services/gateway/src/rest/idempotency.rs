//! The `Idempotency-Key` header fills the field that makes a retry safe.

use http::HeaderMap;
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};
use uuid::Uuid;

use super::{decode::Violations, routes::Route};
use crate::request_id::new_uuid;

const HEADER: &str = "idempotency-key";
const MAX_BYTES: usize = 255;

/// The namespace of UUIDs made from keys: the version 5 UUID of `kontor:idempotency-key` in the namespace of URLs.
/// To change it would let every retry in flight run a second time.
const NAMESPACE: Uuid = Uuid::from_u128(0xaab6_fc7a_7314_52ba_a31d_756e_f55b_1b1c);

/// Fills in the field from the header; a request with neither gets a new UUID. `caller` is who the key belongs to: the same
/// key of two callers are two keys.
pub(crate) fn fill(
    route: &Route,
    field: &FieldDescriptor,
    message: &mut DynamicMessage,
    headers: &HeaderMap,
    caller: &str,
    violations: &mut Violations,
) {
    let given = message.get_field(field).as_str().unwrap_or_default().to_owned();
    let mut keys = headers.get_all(HEADER).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        if headers.contains_key(HEADER) {
            violations.add(HEADER, "is given twice");
        } else if given.is_empty() {
            message.set_field(field, Value::String(new_uuid().to_string()));
        }
        return;
    };
    match key
        .to_str()
        .map_err(|_| "must be of visible ASCII characters")
        .and_then(unquote)
    {
        Err(description) => violations.add(HEADER, description),
        Ok(key) => {
            let id = id_of(key, &route.method.path, caller);
            if given.is_empty() {
                message.set_field(field, Value::String(id));
            } else if given != key && Uuid::try_parse(&given).map(|given| given.to_string()) != Ok(id) {
                violations.add(HEADER, format!("differs from {} in the body", field.json_name()));
            }
        }
    }
}

/// The draft of the HTTP working group has the key in quotes; most clients send it bare.
fn unquote(key: &str) -> Result<&str, &'static str> {
    let bare = key
        .strip_prefix('"')
        .and_then(|key| key.strip_suffix('"'))
        .unwrap_or(key);
    match bare.len() {
        0 => Err("must not be empty"),
        1..=MAX_BYTES => Ok(bare),
        _ => Err("must have at most 255 characters"),
    }
}

/// A UUID is taken as it is; any other key becomes one (RFC 9562, version 5), for this caller and method alone.
fn id_of(key: &str, method: &str, caller: &str) -> String {
    let id = Uuid::try_parse(key)
        .unwrap_or_else(|_| Uuid::new_v5(&NAMESPACE, format!("{caller}\n{method}\n{key}").as_bytes()));
    id.to_string()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method as Verb};
    use proptest::prelude::*;

    use super::{
        super::routes::{Found, Routes},
        *,
    };

    const ID: &str = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

    /// The transfer's id, or the sentence of what is wrong.
    fn filled(body: &str, keys: &[&str], caller: &str) -> Result<String, String> {
        let routes = Routes::from_contracts().unwrap();
        let Found::Route(route, _) = routes.find(&Verb::POST, "/api/transfer") else {
            panic!("a route")
        };
        let field = route.idempotency.as_ref().unwrap();
        let mut message = DynamicMessage::new(route.input.clone());
        if !body.is_empty() {
            message.set_field(field, Value::String(body.to_owned()));
        }
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append(HEADER, HeaderValue::try_from(*key).unwrap());
        }
        let mut violations = Violations::default();
        fill(route, field, &mut message, &headers, caller, &mut violations);
        violations
            .into_result()
            .map_err(|bad| format!("{} {}", bad[0].0, bad[0].1))?;
        Ok(message.get_field(field).as_str().unwrap().to_owned())
    }

    #[test]
    fn a_uuid_is_taken_and_any_other_key_becomes_one_per_caller() {
        assert_eq!(filled("", &[ID], "user:1").unwrap(), ID);
        assert_eq!(filled("", &[&ID.to_uppercase()], "user:1").unwrap(), ID);
        let mine = filled("", &["order-7"], "user:1").unwrap();
        assert_eq!(filled("", &["\"order-7\""], "user:1").unwrap(), mine);
        assert_ne!(filled("", &["order-7"], "user:2").unwrap(), mine);
        assert_eq!(Uuid::try_parse(&mine).unwrap().get_version_num(), 5);
    }

    #[test]
    fn without_a_key_the_body_counts_or_a_new_id_is_made() {
        assert_eq!(filled(ID, &[], "user:1").unwrap(), ID);
        let (one, other) = (
            filled("", &[], "user:1").unwrap(),
            filled("", &[], "user:1").unwrap(),
        );
        assert_ne!(one, other);
        assert_eq!(Uuid::try_parse(&one).unwrap().get_version_num(), 7);
    }

    #[test]
    fn key_and_body_must_not_contradict() {
        assert_eq!(filled(ID, &[ID], "user:1").unwrap(), ID);
        assert_eq!(
            filled(&ID.to_uppercase(), &[ID], "user:1").unwrap(),
            ID.to_uppercase()
        );
        let error = filled(ID, &["order-7"], "user:1").unwrap_err();
        assert_eq!(error, "idempotency-key differs from transfer_id in the body");
        assert_eq!(
            filled("", &["a", "a"], "user:1").unwrap_err(),
            "idempotency-key is given twice"
        );
    }

    #[test]
    fn empty_and_overlong_keys_are_refused() {
        assert!(filled("", &[""], "user:1").is_err());
        assert!(filled("", &["\"\""], "user:1").is_err());
        assert!(filled("", &[&"k".repeat(255)], "user:1").is_ok());
        assert!(filled("", &[&"k".repeat(256)], "user:1").is_err());
    }

    proptest! {
        #[test]
        fn every_key_gives_one_valid_id(key in "[!-~]{1,255}") {
            if let Ok(bare) = unquote(&key) {
                let id = id_of(bare, "/method", "user:1");
                prop_assert!(Uuid::try_parse(&id).is_ok());
                prop_assert_eq!(id, id_of(bare, "/method", "user:1"));
            }
        }
    }
}
