//! The instances of a service: which there are, which are up, and which one takes the next request.
//!
//! The choice is "power of two choices" (Mitzenmacher 2001) on requests in flight. An instance that refuses a connection
//! is left out for a while (exponential backoff with jitter); when all are left out, all are tried. A request that was
//! refused goes to an instance that has not refused it yet, left out or not.

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroUsize,
    ops::RangeInclusive,
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
use tokio::sync::Mutex as AsyncMutex;
use tonic::body::Body;

use rpc::gather::gather;

use crate::{connect::Connector, unary};

/// Connections to each instance: one HTTP/2 connection has one lock and one congestion window, so as many as cores use them.
/// More would only send the same in smaller pieces.
const CONNECTIONS: RangeInclusive<usize> = 2..=8;
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Refused connections that one request meets before it is given up.
const REFUSALS: usize = 3;
/// Connections that one request finds closed. An instance that drains leaves several behind, none of which says that the
/// other instances are away too.
const LOST_CONNECTIONS: usize = 16;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// What a stream may send ahead of its reader: this much memory a reader that stands still can cost.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What all streams of a connection may send ahead together: so much that readers who stand still never hold up the others,
/// which they would with the sum of a few windows.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

/// One instance of a service.
pub(crate) struct Instance {
    address: SocketAddr,
    connector: Arc<Connector>,
    connections: Box<[Connection]>,
    /// For calls with one message there and one back.
    unary: Box<[unary::Connection]>,
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

/// The kinds of connections that are used.
#[derive(Clone, Copy)]
pub(crate) struct Kinds {
    streams: bool,
    unary: bool,
}

#[derive(Default)]
struct Outage {
    failures: u32,
    until: Option<Instant>,
}

impl Instance {
    fn new(address: SocketAddr, connector: Arc<Connector>) -> Self {
        Self {
            address,
            connector,
            connections: (0..connections()).map(|_| Connection::default()).collect(),
            unary: (0..connections()).map(|_| unary::Connection::default()).collect(),
            next: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            outage: Mutex::default(),
        }
    }

    /// A live connection, opened when there is none.
    pub async fn connection(&self, lifecycle: &Lifecycle) -> std::io::Result<SendRequest<Body>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.live(&self.connections[next % self.connections.len()], lifecycle)
            .await
    }

    async fn live(
        &self,
        connection: &Connection,
        lifecycle: &Lifecycle,
    ) -> std::io::Result<SendRequest<Body>> {
        if let Some(live) = connection.live() {
            return Ok(live);
        }
        let _connecting = connection.connecting.lock().await;
        if let Some(live) = connection.live() {
            return Ok(live);
        }
        match open(&self.connector, self.address, lifecycle).await {
            Ok(live) => {
                *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = Outage::default();
                *connection.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                self.leave_out(&error);
                Err(error)
            }
        }
    }

    /// A connection for a call with one message, opened when there is none.
    pub async fn unary(&self, lifecycle: &Lifecycle) -> std::io::Result<(&unary::Connection, unary::Live)> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = &self.unary[next % self.unary.len()];
        Ok((connection, self.live_unary(connection, lifecycle).await?))
    }

    async fn live_unary(
        &self,
        connection: &unary::Connection,
        lifecycle: &Lifecycle,
    ) -> std::io::Result<unary::Live> {
        if let Some(live) = connection.live() {
            return Ok(live);
        }
        match connection.open(&self.connector, self.address, lifecycle).await {
            Ok(live) => {
                *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = Outage::default();
                Ok(live)
            }
            Err(error) => {
                self.leave_out(&error);
                Err(error)
            }
        }
    }

    /// Opens the connections of these kinds, for the requests to come. That one is refused, the next request finds out.
    pub async fn open(&self, kinds: Kinds, lifecycle: &Lifecycle) {
        if kinds.streams {
            for connection in &self.connections {
                if self.live(connection, lifecycle).await.is_err() {
                    return;
                }
            }
        }
        if kinds.unary {
            for connection in &self.unary {
                if self.live_unary(connection, lifecycle).await.is_err() {
                    return;
                }
            }
        }
    }

    fn leave_out(&self, error: &std::io::Error) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        // an instance that is away comes back by itself; certificates want somebody's hands
        if tls::is_disagreement(error) && outage.failures == 0 {
            tracing::warn!(%error, upstream = self.connector.service, upstream.address = %self.address, "cannot connect");
        }
        let backoff = (FIRST_BACKOFF * 2u32.saturating_pow(outage.failures.min(16))).min(LONGEST_BACKOFF);
        outage.failures = outage.failures.saturating_add(1);
        outage.until =
            Some(Instant::now() + backoff / 2 + backoff.mul_f64(rand::rng().random_range(0.0..0.5)));
    }

    fn is_up(&self, now: Instant) -> bool {
        self.out_until(now).is_none()
    }

    /// The end of its outage; none, which is before all others, when it is up.
    fn out_until(&self, now: Instant) -> Option<Instant> {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.until.filter(|until| *until > now)
    }

    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

fn connections() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.clamp(*CONNECTIONS.start(), *CONNECTIONS.end())
}

impl Connection {
    fn live(&self) -> Option<SendRequest<Body>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.as_ref()
            .filter(|connection| !connection.is_closed())
            .cloned()
    }
}

async fn open(
    connector: &Connector,
    address: SocketAddr,
    lifecycle: &Lifecycle,
) -> std::io::Result<SendRequest<Body>> {
    let stream = connector.connect(address).await?;
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
        if let Err(error) = gather(connection).await {
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

/// What one request has met so far. Only a request that was certainly not processed is tried again.
#[derive(Default)]
pub(crate) struct Tries {
    /// The instances that refused a connection.
    refused: Vec<SocketAddr>,
    lost: usize,
}

impl Tries {
    /// The instance could not be connected to.
    pub fn refused(&mut self, flight: &Flight) {
        self.refused.push(flight.0.address);
    }

    /// The connection ended before the request was processed.
    pub fn lost(&mut self) {
        self.lost += 1;
    }

    fn are_used_up(&self) -> bool {
        self.refused.len() >= REFUSALS || self.lost >= LOST_CONNECTIONS
    }
}

/// All instances of a service.
pub(crate) struct Instances {
    connector: Arc<Connector>,
    all: RwLock<Arc<[Arc<Instance>]>>,
}

impl Instances {
    /// None yet, which will be connected to like this.
    pub fn new(connector: Connector) -> Self {
        Self {
            connector: Arc::new(connector),
            all: RwLock::default(),
        }
    }

    /// The kinds of connections that are open now.
    pub fn kinds(&self) -> Kinds {
        let all = self.all();
        let mut streams = all.iter().flat_map(|instance| &instance.connections);
        let mut unary = all.iter().flat_map(|instance| &instance.unary);
        Kinds {
            streams: streams.any(|connection| connection.live().is_some()),
            unary: unary.any(|connection| connection.live().is_some()),
        }
    }

    /// Replaces the set; an instance that stays keeps its connections. Those that are new.
    pub fn replace(&self, addresses: &[SocketAddr]) -> Vec<Arc<Instance>> {
        let mut current = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let known: HashMap<SocketAddr, &Arc<Instance>> = current
            .iter()
            .map(|instance| (instance.address, instance))
            .collect();
        let mut new = Vec::new();
        let next = addresses
            .iter()
            .map(|address| {
                known.get(address).map_or_else(
                    || {
                        let instance = Arc::new(Instance::new(*address, Arc::clone(&self.connector)));
                        new.push(Arc::clone(&instance));
                        instance
                    },
                    |it| Arc::clone(it),
                )
            })
            .collect();
        *current = next;
        new
    }

    /// Takes the instance for the next try of a request: of two at random, the one with fewer requests in flight. A request
    /// that was refused goes elsewhere, as long as there is an elsewhere.
    pub fn pick(&self, tries: &Tries) -> Option<Flight> {
        if tries.are_used_up() {
            return None;
        }
        let all = self.all();
        let chosen = match &*all {
            [] => return None,
            [only] => only,
            several if tries.refused.is_empty() => choose(several, Instant::now()),
            several => likeliest(several, &tries.refused, Instant::now())?,
        };
        chosen.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Flight(Arc::clone(chosen)))
    }

    /// The instances that are there now.
    pub fn all(&self) -> Arc<[Arc<Instance>]> {
        Arc::clone(&self.all.read().unwrap_or_else(PoisonError::into_inner))
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
                .or_else(|| likeliest(all, &[], now))
                .unwrap_or(&all[one])
        }
    }
}

/// The instance that has refused a request least often; of several, one that is up, or is so soonest.
fn likeliest<'a>(
    all: &'a [Arc<Instance>],
    refused: &[SocketAddr],
    now: Instant,
) -> Option<&'a Arc<Instance>> {
    all.iter().min_by_key(|instance| {
        let refusals = refused.iter().filter(|address| **address == instance.address);
        (refusals.count(), instance.out_until(now), instance.load())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Instances {
        Instances::new(Connector {
            service: "test",
            tls: None,
        })
    }

    fn refused() -> std::io::Error {
        std::io::ErrorKind::ConnectionRefused.into()
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_busier_of_two_is_avoided() {
        let instances = none();
        instances.replace(&[address(1), address(2)]);
        let flights: Vec<Flight> = (0..1_000)
            .filter_map(|_| instances.pick(&Tries::default()))
            .collect();
        let ones = flights
            .iter()
            .filter(|flight| flight.0.address == address(1))
            .count();
        assert!((450..=550).contains(&ones), "{ones} of 1000");
    }

    #[test]
    fn an_instance_that_refuses_is_left_out_until_all_do() {
        let instances = none();
        instances.replace(&[address(1), address(2)]);
        instances.all()[0].leave_out(&refused());
        assert!(
            (0..100)
                .filter_map(|_| instances.pick(&Tries::default()))
                .all(|flight| flight.0.address == address(2))
        );
        instances.all()[1].leave_out(&refused());
        assert!(instances.pick(&Tries::default()).is_some());
    }

    #[test]
    fn a_refused_request_goes_to_each_of_the_others_first() {
        let instances = none();
        instances.replace(&[address(1), address(2), address(3)]);
        for _ in 0..100 {
            // all have been away, and were found so at different times
            let all = instances.all();
            let which = rand::rng().random_range(0..all.len());
            all[which].leave_out(&refused());
            let mut tries = Tries::default();
            let mut asked = Vec::new();
            while let Some(flight) = instances.pick(&tries) {
                tries.refused(&flight);
                asked.push(flight.0.address.port());
            }
            asked.sort_unstable();
            assert_eq!(asked, [1, 2, 3]);
        }
    }

    #[test]
    fn a_new_set_keeps_what_it_knows() {
        let instances = none();
        instances.replace(&[address(1)]);
        let flight = instances.pick(&Tries::default()).unwrap();
        instances.replace(&[address(2), address(1)]);
        assert_eq!(instances.all()[1].load(), 1);
        drop(flight);
        assert_eq!(instances.all()[1].load(), 0);
    }

    #[tokio::test]
    async fn a_new_instance_gets_the_connections_that_the_others_have() -> std::io::Result<()> {
        let listen = async || tokio::net::TcpListener::bind(address(0)).await;
        let (one, other) = (listen().await?, listen().await?);
        let lifecycle = Lifecycle::new(Duration::ZERO);
        let instances = none();
        // nothing is known of what will be used: requests open what they need
        assert_eq!(instances.replace(&[one.local_addr()?]).len(), 1);
        let kinds = instances.kinds();
        assert!(!kinds.streams && !kinds.unary);
        instances.all()[0].connection(&lifecycle).await?;

        let kinds = instances.kinds();
        let new = instances.replace(&[one.local_addr()?, other.local_addr()?]);
        assert_eq!(new.len(), 1);
        new[0].open(kinds, &lifecycle).await;
        assert!(new[0].connections.iter().all(|it| it.live().is_some()));
        assert!(new[0].unary.iter().all(|it| it.live().is_none()));
        Ok(())
    }
}
