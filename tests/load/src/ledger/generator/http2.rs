//! gRPC over HTTP/2: one connection, many unary calls at once, frames written and read by hand.
//!
//! A general client would cost several times the CPU, which the services would then lack. What the service sees is what any
//! client sends, but without Huffman coding.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;

use super::{Answered, Code, Link, Sent, hpack};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// HEADER_TABLE_SIZE 0, so that each header block can be read by itself; ENABLE_PUSH 0; INITIAL_WINDOW_SIZE 1 MiB.
const SETTINGS: [u8; 18] = [0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 4, 0, 16, 0, 0];
const MAX_FRAME: usize = 16 * 1024;
const HEADER: usize = 9;
/// What we let the server send before we say more; the largest there is, less the default.
const WINDOW: u32 = (1 << 31) - 1 - 65_535;
/// Streams between the oldest unanswered and the newest.
const STREAMS: usize = 8_192;
/// A stream that was reset is told from a status by this.
const RESET: Code = 1_000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS_TYPE: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED_OR_PRIORITY: u8 = 0x28;

/// A connection.
pub(in super::super) struct Http2 {
    socket: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
    /// The headers that every request has: spelled out once, then by their numbers in the server's table.
    first: Option<Vec<u8>>,
    streams: Vec<Option<Sent>>,
    next: u32,
    /// What the server still takes.
    window: i64,
    /// Content that waits for the server to take more.
    stalled: VecDeque<(u32, Vec<u8>)>,
    /// What we have read since we last said how much more we take.
    consumed: u32,
    statuses: hpack::Statuses,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: std::ops::Range<usize>,
}

impl Link for Http2 {
    fn connect(address: SocketAddr, path: &str) -> Result<Self> {
        let socket = std::net::TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut first = Vec::new();
        hpack::indexed(&mut first, 3); // :method POST
        hpack::indexed(&mut first, 6); // :scheme http
        for (name, value) in [
            (":path", path),
            (":authority", &address.to_string()),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "5S"),
        ] {
            hpack::literal(&mut first, true, name, value.as_bytes());
        }
        let mut link = Self {
            socket: TcpStream::from_std(socket),
            output: PREFACE.to_vec(),
            input: vec![0; 8 * MAX_FRAME],
            filled: 0,
            first: Some(first),
            streams: vec![None; STREAMS],
            next: 1,
            window: 65_535,
            stalled: VecDeque::new(),
            consumed: 0,
            statuses: hpack::Statuses::new()?,
        };
        link.frame(SETTINGS_TYPE, 0, 0, &[&SETTINGS]);
        link.frame(WINDOW_UPDATE, 0, 0, &[&WINDOW.to_be_bytes()]);
        Ok(link)
    }

    fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    fn put(&mut self, sent: Sent, header: &[u8], body: &[u8]) -> Result<()> {
        ensure!(
            body.len() + 5 <= MAX_FRAME,
            "a request of {} bytes does not fit a frame",
            body.len()
        );
        let stream = self.next;
        self.next += 2;
        let slot = self.slot(stream)?;
        ensure!(slot.is_none(), "a request has waited while {STREAMS} others came");
        *slot = Some(sent);
        let mut block = self.first.take().unwrap_or_else(|| {
            // :method, :scheme; then the five that were kept, the oldest first
            vec![0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe]
        });
        hpack::literal(&mut block, false, "kontor-caller", header);
        self.frame(HEADERS, END_HEADERS, stream, &[&block]);
        let length = u32::try_from(body.len())?.to_be_bytes();
        if self.stalled.is_empty() && self.take_window(body.len() + 5) {
            self.frame(DATA, END_STREAM, stream, &[&[0], &length, body]);
        } else {
            self.stalled
                .push_back((stream, [&[0], &length[..], body].concat()));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut written = 0;
        while written < self.output.len() {
            match self.socket.write(&self.output[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.drain(..written);
        Ok(())
    }

    fn read(&mut self, answered: &mut Vec<Answered>) -> Result<()> {
        loop {
            let room = self.input.len() - self.filled;
            match self.socket.read(&mut self.input[self.filled..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => {
                    self.filled += count;
                    self.frames(answered)?;
                    if count < room {
                        // that was all: asking again would cost a system call for each answer
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Http2 {
    fn slot(&mut self, stream: u32) -> Result<&mut Option<Sent>> {
        let index = usize::try_from(stream / 2)? % STREAMS;
        self.streams.get_mut(index).context("no such stream")
    }

    fn take_window(&mut self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let fits = bytes <= self.window;
        if fits {
            self.window -= bytes;
        }
        fits
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        // lengths are below 2^24: put checks what may be long
        let [_, _, _, _, _, high, middle, low] = (length as u64).to_be_bytes();
        self.output.extend_from_slice(&[high, middle, low, kind, flags]);
        self.output.extend_from_slice(&stream.to_be_bytes());
        for part in parts {
            self.output.extend_from_slice(part);
        }
    }

    /// Takes every whole frame out of the input.
    fn frames(&mut self, answered: &mut Vec<Answered>) -> Result<()> {
        let mut start = 0;
        while let Some(frame) = self.whole_frame(start)? {
            start = frame.payload.end;
            self.take_frame(&frame, answered)?;
        }
        self.input.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(())
    }

    fn whole_frame(&self, start: usize) -> Result<Option<Frame>> {
        let have = &self.input[start..self.filled];
        let Some((header, _)) = have.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let &[high, middle, low, kind, flags, a, b, c, d] = header else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([0, high, middle, low]))?;
        ensure!(length <= MAX_FRAME, "a frame of {length} bytes");
        let payload = start + HEADER..start + HEADER + length;
        Ok((payload.end <= self.filled).then_some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff,
            payload,
        }))
    }

    fn take_frame(&mut self, frame: &Frame, answered: &mut Vec<Answered>) -> Result<()> {
        let ends = frame.flags & END_STREAM != 0;
        match frame.kind {
            DATA => {
                ensure!(!ends, "an answer ended without trailers");
                self.consumed += u32::try_from(frame.payload.len())?;
                if self.consumed > WINDOW / 2 {
                    let consumed = std::mem::take(&mut self.consumed);
                    self.frame(WINDOW_UPDATE, 0, 0, &[&consumed.to_be_bytes()]);
                }
            }
            HEADERS if ends => {
                ensure!(
                    frame.flags & END_HEADERS != 0 && frame.flags & PADDED_OR_PRIORITY == 0,
                    "trailers of a kind that this client does not know"
                );
                let code = self.statuses.read(&self.input[frame.payload.clone()])?;
                self.answer(frame.stream, code, answered)?;
            }
            HEADERS => ensure!(frame.flags & END_HEADERS != 0, "headers in several frames"),
            RST_STREAM => {
                let code = RESET + u16::try_from(self.number(frame)?).unwrap_or(0);
                self.answer(frame.stream, code, answered)?;
            }
            SETTINGS_TYPE if frame.flags & ACK == 0 => self.frame(SETTINGS_TYPE, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => {
                let content = self.input[frame.payload.clone()].to_vec();
                self.frame(PING, ACK, 0, &[&content]);
            }
            WINDOW_UPDATE if frame.stream == 0 => {
                self.window += i64::from(self.number(frame)?);
                while let Some((_, body)) = self.stalled.front() {
                    let bytes = body.len();
                    if !self.take_window(bytes) {
                        break;
                    }
                    if let Some((stream, body)) = self.stalled.pop_front() {
                        self.frame(DATA, END_STREAM, stream, &[&body]);
                    }
                }
            }
            GOAWAY => bail!("the server sends the client away"),
            CONTINUATION => bail!("headers in several frames"),
            _ => {}
        }
        Ok(())
    }

    fn number(&self, frame: &Frame) -> Result<u32> {
        let payload = &self.input[frame.payload.clone()];
        Ok(u32::from_be_bytes(payload.try_into()?))
    }

    fn answer(&mut self, stream: u32, code: Code, answered: &mut Vec<Answered>) -> Result<()> {
        // a stream may be reset after it was answered
        if let Some(sent) = self.slot(stream)?.take() {
            answered.push(Answered { sent, code });
        }
        Ok(())
    }
}
