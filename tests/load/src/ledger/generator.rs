//! Sends requests and times them, with little CPU of its own, as it shares the cores with what it measures: one thread, a few
//! connections, no allocation for each request beyond what makes its content.
//!
//! A closed loop finds the highest rate: a request for each answer. An open loop finds latencies: requests come at moments drawn
//! at random (Poisson), whether or not the last ones are answered, and are timed from the moment they were due, so that waiting
//! counts.

mod arrivals;
mod hpack;
mod http1;
mod http2;
mod outcome;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mio::{Events, Interest, Poll, Token, event::Event};

use self::{arrivals::Arrivals, outcome::Recorder};
pub(super) use self::{
    http1::Http1,
    http2::Http2,
    outcome::{Code, Latencies, Measured, ms},
};
use super::usage::Meter;

/// The token of the timer, above all connections.
const TIMER: Token = Token(usize::MAX);
/// The last answers may take as long as the service's deadline.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent.
pub(super) trait Source: Send + 'static {
    /// The path of every request.
    fn path(&self) -> &'static str;

    /// Writes the value of the header that differs and the body of the next request, and returns the number by which its
    /// acceptance is remembered; `None` when there are no more.
    fn next(&mut self, header: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<Option<u128>>;
}

/// A request that is out.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    /// When it was due.
    due: Instant,
    id: u128,
}

/// A request that was answered.
pub(super) struct Answered {
    sent: Sent,
    code: Code,
}

/// A connection that many requests share.
pub(super) trait Link: Sized {
    /// Connects; every request goes to `path`.
    fn connect(address: SocketAddr, path: &str) -> Result<Self>;
    fn socket(&mut self) -> &mut mio::net::TcpStream;
    /// Puts a request into the buffer; the caller keeps to the number that may be out at once.
    fn put(&mut self, sent: Sent, header: &[u8], body: &[u8]) -> Result<()>;
    /// Sends as much as the socket takes.
    fn flush(&mut self) -> Result<()>;
    /// Reads what has come and appends what was answered.
    fn read(&mut self, answered: &mut Vec<Answered>) -> Result<()>;
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// One for each answer.
    Closed,
    /// So many each second, at moments from this seed.
    Open { per_second: u64, seed: u64 },
}

/// A measurement to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub address: SocketAddr,
    pub pace: Pace,
    pub connections: usize,
    /// Requests that each connection may have out at once.
    pub on_each: usize,
    /// Not counted.
    pub warm_up: Duration,
    pub during: Duration,
    /// A request that is due while all connections are full is dropped, rather than sent late.
    pub drop_late: bool,
    /// Remember the numbers of the accepted requests.
    pub keep_accepted: bool,
}

impl Plan {
    /// A closed loop of `in_flight` requests over a few connections.
    pub fn closed(address: SocketAddr, in_flight: usize, during: Duration) -> Self {
        let connections = in_flight.min(8);
        Self {
            address,
            pace: Pace::Closed,
            connections,
            on_each: in_flight / connections,
            warm_up: Duration::from_secs(1),
            during,
            drop_late: false,
            keep_accepted: false,
        }
    }

    /// An open loop; what finds no free place waits.
    pub fn open(address: SocketAddr, per_second: u64, seed: u64, during: Duration) -> Self {
        Self {
            pace: Pace::Open { per_second, seed },
            on_each: 250,
            ..Self::closed(address, 8, during)
        }
    }

    /// One request on each of many connections: HTTP/1.1.
    pub fn one_on_each(self) -> Self {
        Self {
            connections: 512,
            on_each: 1,
            ..self
        }
    }
}

/// Carries out a plan on a thread of its own.
pub(super) async fn run<L: Link, S: Source>(plan: Plan, source: S, meter: Meter) -> Result<Measured> {
    tokio::task::spawn_blocking(move || Generator::<L, S>::new(plan, source, meter)?.run()).await?
}

struct Generator<L, S> {
    plan: Plan,
    source: S,
    meter: Meter,
    poll: Poll,
    links: Vec<L>,
    /// Links with something to flush.
    dirty: Vec<usize>,
    /// For each request that may still go out, the link it goes to.
    places: VecDeque<usize>,
    out: usize,
    exhausted: bool,
    recorder: Recorder,
    answered: Vec<Answered>,
    header: Vec<u8>,
    body: Vec<u8>,
}

impl<L: Link, S: Source> Generator<L, S> {
    fn new(plan: Plan, source: S, meter: Meter) -> Result<Self> {
        let poll = Poll::new()?;
        let mut links = Vec::new();
        for index in 0..plan.connections {
            let mut link = L::connect(plan.address, source.path())?;
            poll.registry().register(
                link.socket(),
                Token(index),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            links.push(link);
        }
        let places = (0..plan.on_each).flat_map(|_| 0..plan.connections).collect();
        Ok(Self {
            plan,
            source,
            meter,
            poll,
            dirty: (0..links.len()).collect(),
            links,
            places,
            out: 0,
            exhausted: false,
            recorder: Recorder::new(plan.keep_accepted)?,
            answered: Vec::new(),
            header: Vec::new(),
            body: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Measured> {
        let start = Instant::now();
        let counted = start + self.plan.warm_up;
        let end = counted + self.plan.during;
        let mut arrivals = match self.plan.pace {
            Pace::Closed => None,
            Pace::Open { per_second, seed } => Some(Arrivals::new(start, per_second, seed)?),
        };
        if let Some(arrivals) = &mut arrivals {
            let timer = arrivals.timer();
            timer.register(self.poll.registry(), TIMER, Interest::READABLE)?;
        }
        let mut events = Events::with_capacity(1024);
        loop {
            let now = Instant::now();
            if now >= counted && !self.recorder.has_begun() {
                self.recorder.begin(now, self.meter.read()?);
            }
            if now >= end && !self.recorder.has_ended() {
                self.recorder.end(now, self.meter.read()?);
            }
            if now < end {
                self.send_due(now, arrivals.as_mut())?;
            }
            if self.out == 0 && (now >= end || self.exhausted) {
                return self.recorder.into_measured(&mut self.meter);
            }
            ensure!(now < end + PATIENCE, "{} requests were not answered", self.out);
            self.flush()?;
            self.wait(&mut events)?;
            for event in &events {
                if event.token() == TIMER {
                    arrivals.as_mut().map(Arrivals::rang);
                } else {
                    self.read(event)?;
                }
            }
        }
    }

    fn wait(&mut self, events: &mut Events) -> Result<()> {
        match self.poll.poll(events, Some(Duration::from_millis(20))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        for index in self.dirty.drain(..) {
            if let Some(link) = self.links.get_mut(index) {
                link.flush()?;
            }
        }
        Ok(())
    }

    fn read(&mut self, event: &Event) -> Result<()> {
        let Token(index) = event.token();
        let link = self.links.get_mut(index).context("no such connection")?;
        self.dirty.push(index);
        if !event.is_readable() {
            return Ok(());
        }
        link.read(&mut self.answered)
            .with_context(|| format!("connection {index}"))?;
        let now = Instant::now();
        for Answered { sent, code } in self.answered.drain(..) {
            self.out -= 1;
            self.places.push_back(index);
            self.recorder.record(sent, code, now)?;
        }
        Ok(())
    }

    /// Sends what is due and finds a place.
    fn send_due(&mut self, now: Instant, arrivals: Option<&mut Arrivals>) -> Result<()> {
        let Some(arrivals) = arrivals else {
            while let Some(index) = self.place() {
                self.put(index, now)?;
            }
            return Ok(());
        };
        arrivals.catch_up(now);
        while let Some(due) = arrivals.first() {
            let Some(index) = self.place() else {
                if self.plan.drop_late {
                    arrivals.drop_all(|due| self.recorder.drop(due));
                }
                break;
            };
            arrivals.take();
            self.put(index, due)?;
        }
        arrivals.set_timer(now)
    }

    fn place(&mut self) -> Option<usize> {
        if self.exhausted {
            None
        } else {
            self.places.pop_front()
        }
    }

    fn put(&mut self, index: usize, due: Instant) -> Result<()> {
        self.header.clear();
        self.body.clear();
        let Some(id) = self.source.next(&mut self.header, &mut self.body)? else {
            self.exhausted = true;
            return Ok(());
        };
        let link = self.links.get_mut(index).context("no such connection")?;
        link.put(Sent { due, id }, &self.header, &self.body)?;
        if self.dirty.last() != Some(&index) {
            self.dirty.push(index);
        }
        self.out += 1;
        Ok(())
    }
}
