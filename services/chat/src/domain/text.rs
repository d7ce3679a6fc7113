//! What may be written.

/// The longest message, in characters.
pub const MAX_CONTENT: usize = 4_096;
/// The longest name of a room, in characters.
pub const MAX_ROOM_NAME: usize = 100;

/// What is wrong with the text of a message.
pub fn content_problem(content: &str) -> Option<&'static str> {
    // the length in bytes first: no need to count the characters of a megabyte
    if content.is_empty() || content.len() > MAX_CONTENT * 4 || content.chars().count() > MAX_CONTENT {
        Some("must have 1 to 4,096 characters")
    } else if content.contains('\0') {
        Some("must not contain NUL")
    } else {
        None
    }
}

/// What is wrong with the name of a room.
pub fn room_name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > MAX_ROOM_NAME * 4 || name.chars().count() > MAX_ROOM_NAME {
        Some("must have 1 to 100 characters")
    } else if name.chars().any(char::is_control) {
        Some("must not contain control characters")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_in_characters() {
        assert_eq!(content_problem(&"😀".repeat(MAX_CONTENT)), None);
        assert!(content_problem(&"😀".repeat(MAX_CONTENT + 1)).is_some());
        assert!(content_problem(&"x".repeat(MAX_CONTENT + 1)).is_some());
        assert!(content_problem("").is_some());
        assert!(content_problem("a\0b").is_some());
        assert_eq!(content_problem("line\nline\ttab"), None);
    }

    #[test]
    fn a_room_name_is_one_line() {
        assert_eq!(room_name_problem("Tea & Täfelchen"), None);
        assert!(room_name_problem("a\nb").is_some());
        assert!(room_name_problem("").is_some());
        assert!(room_name_problem(&"x".repeat(101)).is_some());
    }
}
