//! JSON over HTTP/1.1: one connection that is kept, one request at a time.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;

use super::{Answered, Link, Sent};

/// Enough for any answer that is expected.
const LONGEST: usize = 64 * 1024;

/// A connection.
pub(in super::super) struct Http1 {
    socket: TcpStream,
    /// The part of every request before the session.
    start: Vec<u8>,
    output: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
    sent: Option<Sent>,
}

impl Link for Http1 {
    fn connect(address: SocketAddr, path: &str) -> Result<Self> {
        let socket = std::net::TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let start = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nauthorization: Bearer "
        );
        Ok(Self {
            socket: TcpStream::from_std(socket),
            start: start.into_bytes(),
            output: Vec::new(),
            input: vec![0; 4 * 1024],
            filled: 0,
            sent: None,
        })
    }

    fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    fn put(&mut self, sent: Sent, header: &[u8], body: &[u8]) -> Result<()> {
        ensure!(self.sent.is_none(), "a request before the last one was answered");
        self.sent = Some(sent);
        self.output.extend_from_slice(&self.start);
        self.output.extend_from_slice(header);
        write!(self.output, "\r\ncontent-length: {}\r\n\r\n", body.len())?;
        self.output.extend_from_slice(body);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read(&mut self, answered: &mut Vec<Answered>) -> Result<()> {
        loop {
            if self.filled == self.input.len() {
                ensure!(self.filled < LONGEST, "the answer is too long");
                self.input.resize(self.filled * 2, 0);
            }
            match self.socket.read(&mut self.input[self.filled..]) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => {
                    self.filled += count;
                    if let Some(code) = whole_answer(&self.input[..self.filled])? {
                        let sent = self.sent.take().context("an answer without a request")?;
                        answered.push(Answered { sent, code });
                        self.filled = 0;
                        // nothing more can come before the next request
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

/// The status of an answer once all of it is there.
fn whole_answer(input: &[u8]) -> Result<Option<u16>> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&input[..end])?;
    let status = head.get(9..12).context("no status")?.parse()?;
    let length = head
        .split("\r\n")
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .with_context(|| format!("an answer without a length: {head}"))?
        .1
        .parse::<usize>()?;
    let have = input.len() - end - 4;
    ensure!(have <= length, "more than one answer came");
    Ok((have == length).then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_when_all_of_it_is_there() {
        let answer = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 3\r\nx: y\r\n\r\nabc";
        for cut in 0..answer.len() {
            assert_eq!(whole_answer(&answer[..cut]).unwrap(), None);
        }
        assert_eq!(whole_answer(answer).unwrap(), Some(429));
        assert!(whole_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
