//! JSON as it was sent: a small tree that keeps what serde's own value type would lose, duplicate members above all. An
//! amount that is given twice has no meaning, and must not get one from the order of its members.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value, borrowed from its text where it has no escapes.
#[derive(Debug, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// A whole number above the range of `Integer`.
    Large(u64),
    /// A number with a fraction or an exponent, or one beyond 64 bits.
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Why a text is not JSON, in words for the one who sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    line: usize,
    column: usize,
    truncated: bool,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.truncated {
            return f.write_str("The body ends in the middle of its JSON");
        }
        write!(
            f,
            "The body is not valid JSON (line {}, column {})",
            self.line, self.column
        )
    }
}

impl<'a> Json<'a> {
    /// Reads a whole text. Nesting deeper than 128 levels is malformed.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(text).map_err(|error| Malformed {
            line: error.line(),
            column: error.column(),
            truncated: error.is_eof(),
        })
    }

    /// What it is, for an error sentence.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Large(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Json::Large(value), Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_element()? {
            list.push(member);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut object = Vec::new();
        while let Some(Name(name)) = members.next_key()? {
            object.push((name, members.next_value()?));
        }
        Ok(Json::Object(object))
    }
}

/// A member's name. `Cow` itself would be deserialised as owned, always.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AnyName)
    }
}

struct AnyName;

impl<'de> Visitor<'de> for AnyName {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(value.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_they_are() {
        assert_eq!(Json::parse(b"-9223372036854775808"), Ok(Json::Integer(i64::MIN)));
        assert_eq!(Json::parse(b"9223372036854775808"), Ok(Json::Large(1 << 63)));
        assert_eq!(Json::parse(b"10.0"), Ok(Json::Float(10.0)));
        assert_eq!(Json::parse(b"1e3"), Ok(Json::Float(1e3)));
        assert!(matches!(Json::parse(b"99999999999999999999"), Ok(Json::Float(_))));
    }

    #[test]
    fn duplicates_and_order_are_kept() {
        let Ok(Json::Object(members)) = Json::parse(br#"{"a":1,"\u0061":2}"#) else {
            panic!("an object")
        };
        assert_eq!(
            members.iter().map(|(name, _)| name.as_ref()).collect::<Vec<_>>(),
            ["a", "a"]
        );
    }

    #[test]
    fn a_malformed_text_is_described_by_its_place_only() {
        let say = |text: &str| Json::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(say("{\"a\":"), "The body ends in the middle of its JSON");
        assert_eq!(
            say("{\"a\":nul}"),
            "The body is not valid JSON (line 1, column 9)"
        );
        assert_eq!(say("{} {}"), "The body is not valid JSON (line 1, column 4)");
        assert!(say(&"[".repeat(1_000)).starts_with("The body is not valid JSON"));
        assert!(Json::parse(b"{\"a\":\"\xff\"}").is_err());
    }
}
