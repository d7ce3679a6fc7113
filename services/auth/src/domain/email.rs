//! An email as a key to sign in with.

use sha2::{Digest as _, Sha256};

/// The longest email, in bytes: RFC 5321, section 4.5.3.1, less the angle brackets.
pub const MAX_BYTES: usize = 254;

/// The digest of a normalised email. The email itself is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginKey([u8; 32]);

impl LoginKey {
    /// The key of an email; white space around it and the case of letters do not matter. `None` for one that is empty or
    /// too long. Whether it can receive mail is the account service's concern.
    pub fn of(email: &str) -> Option<Self> {
        let email = email.trim();
        if email.is_empty() || email.len() > MAX_BYTES {
            return None;
        }
        Some(Self(Sha256::digest(email.to_lowercase()).into()))
    }

    /// The bytes of the digest.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key as it was stored.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_white_space_do_not_matter() {
        assert_eq!(
            LoginKey::of(" Alice@Example.com "),
            LoginKey::of("alice@example.com")
        );
        assert_ne!(
            LoginKey::of("alice@example.com"),
            LoginKey::of("alice@example.org")
        );
    }

    #[test]
    fn neither_empty_nor_endless_emails_are_keys() {
        assert_eq!(LoginKey::of(" "), None);
        assert_eq!(LoginKey::of(&"a".repeat(MAX_BYTES + 1)), None);
        assert!(LoginKey::of(&"a".repeat(MAX_BYTES)).is_some());
    }
}
