//! Fields that several requests have.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use chrono::{DateTime, Utc};
use rpc::fields::Problems;

use super::CURRENCY;
use crate::{
    app::order::Party,
    domain::{command::Note, money::Currency},
};

pub const REFERENCE: &str = "must be at most 64 characters without control characters";
const MAX_REFERENCE: usize = 64;
const MAX_DESCRIPTION: usize = 256;
const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 40;
const MAX_VALUE: usize = 256;

/// Now, in the precision of the database.
pub fn now() -> DateTime<Utc> {
    let now = DateTime::<Utc>::from(SystemTime::now());
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

pub fn timestamp(time: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        // below 2 * 10^9 by definition, leap seconds included
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0),
    }
}

/// A time that may be absent; cut to microseconds.
pub fn moment(
    problems: &mut Problems,
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Option<DateTime<Utc>> {
    let time = time?;
    let read = u32::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .and_then(|nanos| DateTime::from_timestamp(time.seconds, nanos))
        // what PostgreSQL and RFC 3339 can both write
        .filter(|time| (0..=253_402_300_799).contains(&time.timestamp()))
        .and_then(|time| DateTime::from_timestamp_micros(time.timestamp_micros()));
    problems.need(field, "must be a time between the years 1970 and 9999", read)
}

/// One side of a transfer: a user or an account, and exactly one of them.
pub fn party(problems: &mut Problems, field: &str, user: i64, account: i64) -> Party {
    match (user, account) {
        (user, 0) => Party::User(problems.id(field, user)),
        (0, account) => Party::Account(problems.id(format!("{field}_account"), account)),
        (user, _) => {
            problems.add(field, "must not be given beside an account");
            Party::User(user)
        }
    }
}

/// An absent currency is good: it means the account's.
pub fn named_currency(problems: &mut Problems, code: &str) -> Option<Currency> {
    if code.is_empty() {
        return None;
    }
    problems.need("currency", CURRENCY, Currency::from_code(code))
}

pub fn note(
    problems: &mut Problems,
    reference: String,
    description: String,
    metadata: HashMap<String, String>,
) -> Option<Arc<Note>> {
    if reference.is_empty() && description.is_empty() && metadata.is_empty() {
        return None;
    }
    if !is_reference(&reference) {
        problems.add("reference", REFERENCE);
    }
    if !is_text(&description, MAX_DESCRIPTION) {
        problems.add(
            "description",
            "must be at most 256 characters without control characters",
        );
    }
    if metadata.len() > MAX_PAIRS {
        problems.add("metadata", "must be at most 16 pairs");
    } else if metadata
        .iter()
        .any(|(key, value)| key.is_empty() || !is_text(key, MAX_KEY) || !is_text(value, MAX_VALUE))
    {
        problems.add(
            "metadata",
            "must have keys of 1 to 40 and values of up to 256 characters without control characters",
        );
    }
    let some = |text: String| (!text.is_empty()).then_some(text);
    Some(Arc::new(Note {
        reference: some(reference),
        description: some(description),
        metadata: metadata.into_iter().collect(),
    }))
}

pub fn is_reference(text: &str) -> bool {
    is_text(text, MAX_REFERENCE)
}

pub fn is_text(text: &str, longest: usize) -> bool {
    // at most 4 bytes for a character: a text of a megabyte is not counted through
    text.len() <= 4 * longest && text.chars().count() <= longest && !text.chars().any(char::is_control)
}
