//! The instances of a service: which there are, which are up, and which one takes the next request.
//!
//! The choice is "power of two choices" (Mitzenmacher 2001) on requests in flight. An instance that refuses a connection
//! is left out for a while (exponential backoff with jitter); when all are left out, all are tried.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lifecycle::Lifecycle;
use rand::RngExt as _;
use tokio::{net::TcpStream, sync::Mutex as AsyncMutex};
use tonic::body::Body;

/// Connections to each instance: one HTTP/2 connection has one lock and one congestion window.
const CONNECTIONS: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// What a stream may send ahead of its reader: this much memory a reader that stands still can cost.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What all streams of a connection may send ahead together: so much that readers who stand still never hold up the others,
/// which they would with the sum of a few windows.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

/// One instance of a service.
pub(crate) struct Instance {
    address: SocketAddr,
    connections: [Connection; CONNECTIONS],
    next: AtomicUsize,
    in_flight: AtomicUsize,
    outage: Mutex<Outage>,
}

#[derive(Default)]
struct Connection {
    /// The live connection. A std lock: it is held for a clone, never over an await.
    live: RwLock<Option<SendRequest<Body>>>,
    /// Held by the one task that connects, so that a lost connection is replaced once and not by every waiter.
    connecting: AsyncMutex<()>,
}

#[derive(Default)]
struct Outage {
    failures: u32,
    until: Option<Instant>,
}

impl Instance {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: std::array::from_fn(|_| Connection::default()),
            next: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            outage: Mutex::default(),
        }
    }

    /// A live connection, opened when there is none.
    pub async fn connection(&self, lifecycle: &Lifecycle) -> std::io::Result<SendRequest<Body>> {
        let connection = &self.connections[self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS];
        if let Some(live) = connection.live() {
            return Ok(live);
        }
        let _connecting = connection.connecting.lock().await;
        if let Some(live) = connection.live() {
            return Ok(live);
        }
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, open(self.address, lifecycle)).await;
        let opened = opened.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        match opened {
            Ok(live) => {
                *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = Outage::default();
                *connection.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                self.leave_out();
                Err(error)
            }
        }
    }

    fn leave_out(&self) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let backoff = (FIRST_BACKOFF * 2u32.saturating_pow(outage.failures.min(16))).min(LONGEST_BACKOFF);
        outage.failures = outage.failures.saturating_add(1);
        outage.until =
            Some(Instant::now() + backoff / 2 + backoff.mul_f64(rand::rng().random_range(0.0..0.5)));
    }

    fn is_up(&self, now: Instant) -> bool {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.until.is_none_or(|until| until <= now)
    }

    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Connection {
    fn live(&self) -> Option<SendRequest<Body>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.as_ref()
            .filter(|connection| !connection.is_closed())
            .cloned()
    }
}

async fn open(address: SocketAddr, lifecycle: &Lifecycle) -> std::io::Result<SendRequest<Body>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    lifecycle.spawn_until_stopping("upstream connection", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, upstream.address = %address, "connection ended");
        }
    });
    Ok(sender)
}

/// Counts a request in flight on its instance, until it is dropped.
pub(crate) struct Flight(Arc<Instance>);

impl Flight {
    pub fn instance(&self) -> &Instance {
        &self.0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All instances of a service.
#[derive(Default)]
pub(crate) struct Instances(RwLock<Arc<[Arc<Instance>]>>);

impl Instances {
    /// Replaces the set; an instance that stays keeps its connections.
    pub fn replace(&self, addresses: &[SocketAddr]) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known: HashMap<SocketAddr, &Arc<Instance>> = current
            .iter()
            .map(|instance| (instance.address, instance))
            .collect();
        let next = addresses
            .iter()
            .map(|address| {
                known
                    .get(address)
                    .map_or_else(|| Arc::new(Instance::new(*address)), |it| Arc::clone(it))
            })
            .collect();
        *current = next;
    }

    /// Takes the instance for the next request: of two at random, the one with fewer requests in flight.
    pub fn pick(&self) -> Option<Flight> {
        let all = self.all();
        let chosen = match &*all {
            [] => return None,
            [only] => only,
            several => choose(several, Instant::now()),
        };
        chosen.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Flight(Arc::clone(chosen)))
    }

    /// The instances that are there now.
    pub fn all(&self) -> Arc<[Arc<Instance>]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn choose(all: &[Arc<Instance>], now: Instant) -> &Arc<Instance> {
    let mut rng = rand::rng();
    let (one, other) = (rng.random_range(0..all.len()), rng.random_range(0..all.len()));
    match (all[one].is_up(now), all[other].is_up(now)) {
        (true, true) if all[one].load() <= all[other].load() => &all[one],
        (_, true) => &all[other],
        (true, false) => &all[one],
        // some other one that is up; when none is, all are tried
        (false, false) => {
            let from_one = all[one..].iter().chain(&all[..one]);
            from_one
                .into_iter()
                .find(|instance| instance.is_up(now))
                .unwrap_or(&all[one])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_busier_of_two_is_avoided() {
        let instances = Instances::default();
        instances.replace(&[address(1), address(2)]);
        let flights: Vec<Flight> = (0..1_000).filter_map(|_| instances.pick()).collect();
        let ones = flights
            .iter()
            .filter(|flight| flight.0.address == address(1))
            .count();
        assert!((450..=550).contains(&ones), "{ones} of 1000");
    }

    #[test]
    fn an_instance_that_refuses_is_left_out_until_all_do() {
        let instances = Instances::default();
        instances.replace(&[address(1), address(2)]);
        instances.all()[0].leave_out();
        assert!(
            (0..100)
                .filter_map(|_| instances.pick())
                .all(|flight| flight.0.address == address(2))
        );
        instances.all()[1].leave_out();
        assert!(instances.pick().is_some());
    }

    #[test]
    fn a_new_set_keeps_what_it_knows() {
        let instances = Instances::default();
        instances.replace(&[address(1)]);
        let flight = instances.pick().unwrap();
        instances.replace(&[address(2), address(1)]);
        assert_eq!(instances.all()[1].load(), 1);
        drop(flight);
        assert_eq!(instances.all()[1].load(), 0);
    }
}
