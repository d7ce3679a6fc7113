//! What counts as a password.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

/// The longest password, in bytes: hashing a megabyte is an attack.
pub const MAX_BYTES: usize = 1_024;
/// The shortest new password, in characters.
pub const MIN_CHARACTERS: usize = 8;

/// A password that somebody presents. `Debug` does not show it, and its memory is wiped.
#[derive(Clone, Debug)]
pub struct Password(Arc<SecretString>);

impl Password {
    /// A password to check; `None` when it is empty or too long to have ever been accepted.
    pub fn presented(text: String) -> Option<Self> {
        let secret = SecretString::from(text);
        let bytes = secret.expose_secret().len();
        (1..=MAX_BYTES).contains(&bytes).then(|| Self(Arc::new(secret)))
    }

    /// A password to keep from now on; `None` when it is too weak.
    pub fn chosen(text: String) -> Option<Self> {
        Self::presented(text).filter(|password| password.0.expose_secret().chars().count() >= MIN_CHARACTERS)
    }

    /// The bytes, to hash them.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_count_characters_below_and_bytes_above() {
        assert!(Password::chosen("1234567".into()).is_none());
        assert!(Password::chosen("ßßßßßßßß".into()).is_some(), "eight characters");
        assert!(Password::chosen("é".repeat(MAX_BYTES / 2)).is_some());
        assert!(Password::chosen("é".repeat(MAX_BYTES / 2 + 1)).is_none());
        assert!(
            Password::presented("x".into()).is_some(),
            "an old one may be shorter"
        );
        assert!(Password::presented(String::new()).is_none());
    }

    #[test]
    fn debug_does_not_show_it() {
        let password = Password::chosen("hunter2hunter2".into()).unwrap();
        assert!(!format!("{password:?}").contains("hunter2"));
    }
}
