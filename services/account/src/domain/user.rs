//! What a user is, and what a name, an email and a password must be.

use email_address::{EmailAddress, Options};
use secrecy::{ExposeSecret as _, SecretString};

const MAX_NAME_CHARS: usize = 100;
const MAX_EMAIL_BYTES: usize = 254;
const MIN_PASSWORD_CHARS: usize = 8;
const MAX_PASSWORD_BYTES: usize = 1_024;

/// A name to show: 1 to 100 characters, none of them a control character, and not only spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name, without spaces around it.
    pub fn new(text: &str) -> Option<Self> {
        let name = text.trim();
        let good =
            !name.is_empty() && name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control);
        good.then(|| Self(name.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An email address, at most 254 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// The address, when it is one.
    pub fn new(text: &str) -> Option<Self> {
        // the address alone: by default `Alice <alice@example.com>` would pass, another key for the same mailbox
        let options = Options::default().without_display_text().without_domain_literal();
        let good = text.len() <= MAX_EMAIL_BYTES
            && !text.chars().any(char::is_control)
            && EmailAddress::parse_with_options(text, options).is_ok();
        good.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both are the same mailbox: case does not matter.
    pub fn is_same(&self, other: &str) -> bool {
        self.0.to_lowercase() == other.to_lowercase()
    }
}

/// Whether auth will take the password: checked before anything is written.
pub fn is_password(password: &SecretString) -> bool {
    let text = password.expose_secret();
    text.chars().count() >= MIN_PASSWORD_CHARS && text.len() <= MAX_PASSWORD_BYTES
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Being created.
    Pending,
    /// May do everything.
    Active,
    /// May read, not write.
    Frozen,
    /// Gone.
    Closed,
}

impl Status {
    /// The status of a name in the database.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "pending" => Some(Self::Pending),
            "active" => Some(Self::Active),
            "frozen" => Some(Self::Frozen),
            "closed" => Some(Self::Closed),
            _ => None,
        }
    }

    /// Whether others see the user at all.
    pub fn is_visible(self) -> bool {
        matches!(self, Self::Active | Self::Frozen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_short_and_printable() {
        assert_eq!(Name::new("  Alice ").unwrap().as_str(), "Alice");
        assert!(Name::new("Zoë O'Neil-張").is_some());
        for bad in ["", "   ", "a\0b", "a\nb", &"x".repeat(101)] {
            assert!(Name::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_email_is_an_address() {
        assert!(
            Email::new("alice@example.com")
                .unwrap()
                .is_same("ALICE@Example.com")
        );
        for bad in [
            "",
            "alice",
            "@example.com",
            "alice@",
            "a b@example.com",
            "alice@example.com\0",
            " alice@example.com",
            "Alice <alice@example.com>",
            "<alice@example.com>",
            "alice@[127.0.0.1]",
        ] {
            assert!(Email::new(bad).is_none(), "{bad:?}");
        }
        assert!(Email::new(&format!("{}@example.com", "a".repeat(250))).is_none());
    }

    #[test]
    fn a_password_has_eight_characters_and_an_end() {
        assert!(is_password(&"password123".into()));
        assert!(!is_password(&"passwor".into()));
        assert!(!is_password(&"x".repeat(1_025).into()));
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".*") {
            let _ = (Name::new(&text), Email::new(&text), is_password(&text.as_str().into()));
        }
    }
}
