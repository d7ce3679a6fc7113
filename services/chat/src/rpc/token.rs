//! Page tokens: opaque to clients, versioned, unpadded base64url.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::app::Position;

const VERSION: u8 = 1;

/// The list that a token pages through; the tokens of one say nothing to another.
#[derive(Clone, Copy)]
enum List {
    Messages = 1,
    Rooms = 2,
}

/// The page of messages before a position.
pub fn messages(before: Position) -> String {
    write(List::Messages, [before.room, before.seq])
}

/// None when it is no such token.
pub fn read_messages(token: &str) -> Option<Position> {
    let [room, seq] = read(List::Messages, token)?;
    Some(Position { room, seq })
}

/// The page of rooms below a room.
pub fn rooms(below: i64) -> String {
    write(List::Rooms, [below])
}

/// None when it is no such token.
pub fn read_rooms(token: &str) -> Option<i64> {
    let [below] = read(List::Rooms, token)?;
    Some(below)
}

fn write<const N: usize>(list: List, values: [i64; N]) -> String {
    let mut bytes = vec![VERSION, list as u8];
    bytes.extend(values.iter().flat_map(|value| value.to_be_bytes()));
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn read<const N: usize>(list: List, token: &str) -> Option<[i64; N]> {
    // the length first: nobody makes us decode a megabyte
    let bytes = (token.len() < 64).then(|| BASE64_URL_SAFE_NO_PAD.decode(token).ok())??;
    let values = bytes.strip_prefix(&[VERSION, list as u8])?;
    let (chunks, rest) = values.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let values: Vec<i64> = chunks.iter().map(|chunk| i64::from_be_bytes(*chunk)).collect();
    if values.iter().any(|value| *value < 1) {
        return None;
    }
    values.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_others_do_not() {
        let position = Position { room: 7, seq: 1_000 };
        assert_eq!(read_messages(&messages(position)), Some(position));
        assert_eq!(read_rooms(&rooms(5)), Some(5));
        let long = "A".repeat(1_000_000);
        let zero = messages(Position { room: 7, seq: 0 });
        let padded = format!("{}=", rooms(5));
        for wrong in ["", "x", "AQI", "äöü", &long, &zero, &padded, &rooms(5)] {
            assert_eq!(read_messages(wrong), None, "{wrong:.20}");
        }
        assert_eq!(read_rooms(&messages(position)), None);
    }
}
