//! The name of a request in logs and answers.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use rand::RngExt as _;
use rpc::context::REQUEST_ID;
use uuid::Uuid;

const MAX_BYTES: usize = 64;

/// The client's own id when it is a sane one, else a new one.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    match headers.get(REQUEST_ID) {
        Some(id) if is_sane(id.as_bytes()) => id.clone(),
        _ => {
            let mut buffer = Uuid::encode_buffer();
            let text = new_uuid().hyphenated().encode_lower(&mut buffer);
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
        }
    }
}

/// A UUID of version 7. Its random part comes from the thread's generator, not from the system with each one.
pub(crate) fn new_uuid() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid()
}

fn is_sane(id: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.iter().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_others_are_replaced() {
        let with = |id: &str| {
            let headers: HeaderMap = [(REQUEST_ID.parse().unwrap(), HeaderValue::try_from(id).unwrap())]
                .into_iter()
                .collect();
            of(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(with("Order-7_a.b:c"), "Order-7_a.b:c");
        for bad in ["", "a b", "a\tb", "{\"a\"}", &"x".repeat(65)] {
            assert_eq!(Uuid::try_parse(&with(bad)).unwrap().get_version_num(), 7, "{bad}");
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }
}
