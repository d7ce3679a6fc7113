//! As much of HPACK (RFC 7541) as a benchmark's client needs. Requests are literals without Huffman coding; for answers we tell the
//! server to keep no table, so that each header block can be read by itself, and look for the status only.

use anyhow::{Context, Result, bail};

/// Appends a header with a name and a value of its own; what we send changes nothing in the server's table unless `keep`.
pub(super) fn literal(block: &mut Vec<u8>, keep: bool, name: &str, value: &[u8]) {
    block.push(if keep { 0x40 } else { 0x10 });
    string(block, name.as_bytes());
    string(block, value);
}

/// Appends a header that the server's table has.
pub(super) fn indexed(block: &mut Vec<u8>, index: u8) {
    block.push(0x80 | index);
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    length(block, text.len());
    block.extend_from_slice(text);
}

/// A length of a string that is not Huffman coded: 7 bits, and more bytes of 7 bits.
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(u8::try_from(length).unwrap_or(0));
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(0x80 | u8::try_from(rest % 128).unwrap_or(0));
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap_or(0));
}

/// The codes of the few characters that matter, with their number of bits.
fn code(character: u8) -> Option<(u32, u32)> {
    Some(match character {
        b'0'..=b'2' => (u32::from(character - b'0'), 5),
        b'3'..=b'9' => (0b01_1001 + u32::from(character - b'3'), 6),
        b'a' => (0b0_0011, 5),
        b'c' => (0b0_0100, 5),
        b's' => (0b0_1000, 5),
        b't' => (0b0_1001, 5),
        b'-' => (0b01_0110, 6),
        b'g' => (0b10_0110, 6),
        b'p' => (0b10_1011, 6),
        b'r' => (0b10_1100, 6),
        b'u' => (0b10_1101, 6),
        _ => return None,
    })
}

/// Text in Huffman code, filled up with ones.
fn huffman(text: &[u8]) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for character in text {
        let (code, width) = code(*character)?;
        bits.extend((0..width).rev().map(|bit| code >> bit & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    Some(bits.chunks(8).map(byte).collect())
}

/// Finds a status in header blocks.
pub(super) struct Statuses {
    name: Vec<u8>,
    /// Values in Huffman code and what they mean.
    values: Vec<(Vec<u8>, u16)>,
    /// The block that was read last, as most are the same.
    last: (Vec<u8>, u16),
}

impl Statuses {
    /// Of `grpc-status`.
    pub fn new() -> Result<Self> {
        let values = (0..=16_u16).map(|status| Some((huffman(status.to_string().as_bytes())?, status)));
        Ok(Self {
            name: huffman(b"grpc-status").context("no code")?,
            values: values.collect::<Option<_>>().context("no code")?,
            last: (Vec::new(), 0),
        })
    }

    /// The status that a block tells.
    pub fn read(&mut self, block: &[u8]) -> Result<u16> {
        if self.last.0 != block {
            let status = self.find(block)?.context("an answer ended without grpc-status")?;
            self.last = (block.to_vec(), status);
        }
        Ok(self.last.1)
    }

    fn find(&self, block: &[u8]) -> Result<Option<u16>> {
        let mut rest = block;
        while let Some(first) = rest.first().copied() {
            if first & 0x80 != 0 {
                integer(&mut rest, 7)?;
                continue;
            }
            if first & 0xe0 == 0x20 {
                // the size of the table: nought, as we asked for
                integer(&mut rest, 5)?;
                continue;
            }
            let index = integer(&mut rest, if first & 0x40 != 0 { 6 } else { 4 })?;
            let is_status = index == 0 && {
                let (name, is_coded) = text(&mut rest)?;
                if is_coded {
                    name == self.name
                } else {
                    name == b"grpc-status"
                }
            };
            let (value, is_coded) = text(&mut rest)?;
            if is_status {
                return Ok(Some(self.value(value, is_coded)?));
            }
        }
        Ok(None)
    }

    fn value(&self, value: &[u8], is_coded: bool) -> Result<u16> {
        if !is_coded {
            return Ok(std::str::from_utf8(value)?.parse()?);
        }
        let known = self.values.iter().find(|(coded, _)| coded == value);
        Ok(known.context("an unknown grpc-status")?.1)
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], bool)> {
    let is_coded = rest.first().context("a header block is cut short")? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (text, after) = rest
        .split_at_checked(length)
        .context("a header block is cut short")?;
    *rest = after;
    Ok((text, is_coded))
}

/// An integer whose first bits share a byte with something else.
fn integer(rest: &mut &[u8], bits: u32) -> Result<usize> {
    let mut next = || {
        let (first, after) = rest.split_first().context("a header block is cut short")?;
        *rest = after;
        anyhow::Ok(usize::from(*first))
    };
    let full = (1_usize << bits) - 1;
    let mut value = next()? & full;
    if value < full {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number in a header block is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_found_coded_or_not() {
        let mut statuses = Statuses::new().unwrap();
        // RFC 7541 C.4.1 has no grpc-status; what h2 writes: literal, coded name, coded value
        let coded = [
            0x20, 0x88, 0x00, 0x88, 0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f, 0x81, 0x07,
        ];
        assert_eq!(statuses.read(&coded).unwrap(), 0);
        let mut plain = vec![0x88];
        literal(&mut plain, false, "content-type", b"application/grpc");
        literal(&mut plain, true, "grpc-status", b"14");
        assert_eq!(statuses.read(&plain).unwrap(), 14);
        assert!(statuses.read(&[0x88]).is_err());
        assert!(statuses.read(&[0x00, 0x88]).is_err());
    }

    #[test]
    fn a_long_length_takes_more_bytes() {
        let mut block = Vec::new();
        literal(&mut block, false, "kontor-caller", &[b'x'; 300]);
        let mut rest = &block[1..];
        assert_eq!(text(&mut rest).unwrap(), (b"kontor-caller".as_slice(), false));
        assert_eq!(text(&mut rest).unwrap().0.len(), 300);
        assert!(rest.is_empty());
    }
}
