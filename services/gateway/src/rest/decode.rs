//! What a client sent becomes a request message: JSON bodies, and text from paths and queries, strictly by the field's type.
//!
//! Every bad field is found in one pass. The sentences name the field as the client knows it, and nothing of ours.

use std::{borrow::Cow, collections::HashMap};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value,
};
use serde::de::value::{BorrowedStrDeserializer, Error as TextError};

use super::json::Json;

/// Violations that one answer names; a client with more has seen enough.
const MAX_VIOLATIONS: usize = 20;
/// Characters of a client's own field name that an answer repeats.
const MAX_NAME_CHARS: usize = 64;

const WHOLE_NUMBER: &str = "must be a whole number";
const OUT_OF_RANGE: &str = "is out of range";
const NOT_UTF8: &str = "must be UTF-8, percent-encoded";

/// Well-known types whose JSON form is a string, which prost-reflect reads.
const TEXT_TYPES: [&str; 3] = [
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
];

/// Standard alphabet, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bad fields of a request: name, and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Violations(Vec<(String, String)>);

impl Violations {
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push((field.into(), description.into()));
        }
    }

    pub fn into_result(self) -> Result<(), Vec<(String, String)>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

/// Why a contract's message cannot be made from JSON here: found when the routes are built, not when it is called.
pub(crate) fn unsupported(descriptor: &MessageDescriptor) -> Option<String> {
    fn look(descriptor: &MessageDescriptor, above: &mut Vec<MessageDescriptor>) -> Option<String> {
        if above.contains(descriptor) {
            return Some(format!("{} contains itself", descriptor.full_name()));
        }
        above.push(descriptor.clone());
        let found = descriptor.fields().find_map(|field| {
            // what a map's values may be is what a field may be
            let kind = match field.kind() {
                Kind::Message(entry) if field.is_map() => {
                    if entry.map_entry_key_field().kind() != Kind::String {
                        return Some(format!(
                            "{} is a map with keys that are no strings",
                            field.full_name()
                        ));
                    }
                    entry.map_entry_value_field().kind()
                }
                kind => kind,
            };
            let what = match kind {
                Kind::Double | Kind::Float => "a floating point number",
                Kind::Message(inner) if is_text(&inner) => return None,
                Kind::Message(inner) if inner.package_name() == "google.protobuf" => {
                    "of a type without support"
                }
                Kind::Message(inner) => return look(&inner, above),
                _ => return None,
            };
            Some(format!("{} is {what}", field.full_name()))
        });
        above.pop();
        found
    }
    look(descriptor, &mut Vec::new())
}

fn is_text(descriptor: &MessageDescriptor) -> bool {
    TEXT_TYPES.contains(&descriptor.full_name())
}

/// The name of a field as clients write it.
pub(crate) fn find(descriptor: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_json_name(name)
}

/// Reads the members of a JSON object into `message`; `prefix` is the path of the object itself, `""` or `"room."`.
pub(crate) fn object(
    message: &mut DynamicMessage,
    members: Vec<(Cow<'_, str>, Json<'_>)>,
    prefix: &str,
    violations: &mut Violations,
) {
    let descriptor = message.descriptor();
    let mut seen: Vec<u32> = Vec::with_capacity(members.len().min(16));
    for (name, json) in members {
        let Some(field) = find(&descriptor, &name) else {
            violations.add(
                format!("{prefix}{}", shorten(&name)),
                "is not a field of this request",
            );
            continue;
        };
        let path = || format!("{prefix}{}", field.json_name());
        if seen.contains(&field.number()) {
            violations.add(path(), "is given twice");
            continue;
        }
        seen.push(field.number());
        if json == Json::Null {
            continue;
        }
        if has_sibling(message, &field) {
            violations.add(path(), "excludes another field that is given");
            continue;
        }
        if let Some(value) = value(&field, json, &path, violations) {
            set(message, &field, value);
        }
    }
}

/// Sets a field that was read by its own type.
pub(crate) fn set(message: &mut DynamicMessage, field: &FieldDescriptor, value: Value) {
    // the value was made from the field's kind, so it fits
    let fits = message.try_set_field(field, value);
    debug_assert!(fits.is_ok(), "{} does not take its own kind", field.full_name());
}

fn has_sibling(message: &DynamicMessage, field: &FieldDescriptor) -> bool {
    field
        .containing_oneof()
        .is_some_and(|oneof| !oneof.is_synthetic() && oneof.fields().any(|other| message.has_field(&other)))
}

fn value(
    field: &FieldDescriptor,
    json: Json<'_>,
    path: &dyn Fn() -> String,
    violations: &mut Violations,
) -> Option<Value> {
    if field.is_map() {
        return map(&field.kind(), json, path, violations);
    }
    if !field.is_list() {
        return element(&field.kind(), json, path, violations);
    }
    let Json::List(members) = json else {
        violations.add(path(), format!("must be a list, not {}", json.kind()));
        return None;
    };
    let kind = field.kind();
    let mut list = Vec::with_capacity(members.len());
    for (index, member) in members.into_iter().enumerate() {
        let path = || format!("{}[{index}]", path());
        list.extend(element(&kind, member, &path, violations));
    }
    Some(Value::List(list))
}

fn map(kind: &Kind, json: Json<'_>, path: &dyn Fn() -> String, violations: &mut Violations) -> Option<Value> {
    let (Kind::Message(entry), Json::Object(members)) = (kind, json) else {
        violations.add(path(), "must be an object");
        return None;
    };
    let kind = entry.map_entry_value_field().kind();
    let mut map = HashMap::with_capacity(members.len());
    for (name, member) in members {
        let path = || format!("{}.{}", path(), shorten(&name));
        if let Some(value) = element(&kind, member, &path, violations)
            && map
                .insert(MapKey::String(name.clone().into_owned()), value)
                .is_some()
        {
            violations.add(path(), "is given twice");
        }
    }
    Some(Value::Map(map))
}

fn element(
    kind: &Kind,
    json: Json<'_>,
    path: &dyn Fn() -> String,
    violations: &mut Violations,
) -> Option<Value> {
    match (kind, json) {
        (Kind::Message(descriptor), Json::Object(members)) if !is_text(descriptor) => {
            let mut message = DynamicMessage::new(descriptor.clone());
            object(&mut message, members, &format!("{}.", path()), violations);
            Some(Value::Message(message))
        }
        (_, json) => scalar(kind, json)
            .map_err(|description| violations.add(path(), description))
            .ok(),
    }
}

fn scalar(kind: &Kind, json: Json<'_>) -> Result<Value, Cow<'static, str>> {
    let sent = json.kind();
    let wrong = |expected: &str| Err(Cow::Owned(format!("must be {expected}, not {sent}")));
    match kind {
        Kind::Bool => match json {
            Json::Bool(value) => Ok(Value::Bool(value)),
            _ => wrong("true or false"),
        },
        Kind::String => match json {
            Json::Text(text) => Ok(Value::String(text.into_owned())),
            _ => wrong("a string"),
        },
        Kind::Bytes | Kind::Enum(_) | Kind::Message(_) => match json {
            Json::Text(text) => from_text(kind, &text).map_err(Cow::Borrowed),
            _ if matches!(kind, Kind::Message(inner) if !is_text(inner)) => wrong("an object"),
            _ => wrong("a string"),
        },
        Kind::Double | Kind::Float => Err(Cow::Borrowed("is not supported")),
        _ => match json {
            Json::Integer(value) => whole(kind, i128::from(value)).map_err(Cow::Borrowed),
            Json::Large(value) => whole(kind, i128::from(value)).map_err(Cow::Borrowed),
            Json::Float(value) if value.fract() == 0.0 && value.abs() >= 9e18 => {
                Err(Cow::Borrowed(OUT_OF_RANGE))
            }
            Json::Float(_) => Err(Cow::Borrowed(
                "must be a whole number, without a fraction or an exponent",
            )),
            _ => wrong("a whole number"),
        },
    }
}

fn whole(kind: &Kind, number: i128) -> Result<Value, &'static str> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => i32::try_from(number).map(Value::I32),
        Kind::Uint32 | Kind::Fixed32 => u32::try_from(number).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => u64::try_from(number).map(Value::U64),
        _ => i64::try_from(number).map(Value::I64),
    }
    .map_err(|_| OUT_OF_RANGE)
}

/// Reads a value from text: a path variable, a query parameter, or a JSON string of a type that has no other form.
pub(crate) fn from_text(kind: &Kind, text: &str) -> Result<Value, &'static str> {
    match kind {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("must be true or false"),
        },
        Kind::Bytes => BASE64
            .decode(text)
            .map(|bytes| Value::Bytes(bytes.into()))
            .map_err(|_| "must be base64"),
        Kind::Enum(descriptor) => descriptor
            .get_value_by_name(text)
            .map(|value| Value::EnumNumber(value.number()))
            .ok_or("is not one of the known names"),
        Kind::Message(descriptor) if is_text(descriptor) => {
            let text = BorrowedStrDeserializer::<TextError>::new(text);
            DynamicMessage::deserialize(descriptor.clone(), text)
                .map(Value::Message)
                .map_err(|_| "has not the form of its type")
        }
        Kind::Message(_) | Kind::Double | Kind::Float => Err("cannot be given as text"),
        _ => whole(kind, digits(text)?),
    }
}

/// A decimal number in its one canonical form: no plus sign, no leading zero, no `-0`.
fn digits(text: &str) -> Result<i128, &'static str> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let canonical = match unsigned.as_bytes() {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return Err(WHOLE_NUMBER);
    }
    text.parse().map_err(|_| OUT_OF_RANGE)
}

/// Decodes `%41`; in a query `+` is a space, in a path it is itself.
pub(crate) fn percent(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, &'static str> {
    if !text
        .bytes()
        .any(|byte| byte == b'%' || (plus_is_space && byte == b'+'))
    {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => {
                decoded.push(hex(*high).ok_or(NOT_UTF8)? << 4 | hex(*low).ok_or(NOT_UTF8)?);
                rest = tail;
            }
            (b'%', _) => return Err(NOT_UTF8),
            (b'+', _) if plus_is_space => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| NOT_UTF8)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Reads query parameters into `message`. Fields in `bound` came from the path and cannot be given again.
pub(crate) fn query(
    message: &mut DynamicMessage,
    query: &str,
    bound: &[FieldDescriptor],
    violations: &mut Violations,
) {
    let descriptor = message.descriptor();
    let mut seen: Vec<u32> = bound.iter().map(FieldDescriptor::number).collect();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent(name, true).unwrap_or(Cow::Borrowed(name));
        let Some(field) = find(&descriptor, &name) else {
            violations.add(shorten(&name), "is not a parameter of this request");
            continue;
        };
        let value = percent(text, true).and_then(|text| from_text(&field.kind(), &text));
        let value = match value {
            Ok(value) => value,
            Err(description) => {
                violations.add(field.json_name(), description);
                continue;
            }
        };
        if field.is_list() {
            if let Value::List(list) = message.get_field_mut(&field) {
                list.push(value);
            }
        } else if seen.contains(&field.number()) {
            violations.add(field.json_name(), "is given twice");
        } else {
            seen.push(field.number());
            set(message, &field, value);
        }
    }
}

pub(crate) fn shorten(name: &str) -> String {
    name.chars()
        .filter(|character| !character.is_control())
        .take(MAX_NAME_CHARS)
        .collect()
}
