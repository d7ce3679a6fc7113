//! Connections: accepted up to a limit, HTTP/1.1 or HTTP/2 as the client speaks, drained at the end.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use lifecycle::Lifecycle;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_io_timeout::TimeoutStream;

use crate::pipeline::Gateway;

/// Connections at the same time. Beyond, new ones wait in the system's backlog.
const MAX_CONNECTIONS: usize = 10_000;
/// How long a client may take to send the headers of a request, and to begin the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest headers of a request: lines together on HTTP/1.1, a decoded list on HTTP/2.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
const MAX_HEADERS: usize = 100;
/// How long a client may leave what is sent to it unread before its connection is ended: answers wait in memory meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams that a client may open on one connection.
const MAX_STREAMS: u32 = 256;
/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Resets of streams that wait to be noticed, beyond which the client is cut off (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;
/// The pause after an error of `accept` that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until the lifecycle drains. The connections are tasks of the lifecycle, which waits for them.
pub(crate) async fn serve(listener: TcpListener, gateway: Arc<Gateway>, lifecycle: &Lifecycle) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let http = Arc::new(builder());
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = lifecycle.draining() => return,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let connection = connection(
                    stream,
                    peer,
                    Arc::clone(&http),
                    Arc::clone(&gateway),
                    lifecycle.clone(),
                    place,
                );
                lifecycle.spawn_request_scoped("connection", connection);
            }
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // without it, small answers wait for the client's acknowledgement of the one before
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    // set_nodelay on a connection that is gone again is an InvalidInput on some systems
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected
    )
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .half_close(true)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    builder
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    http: Arc<auto::Builder<TokioExecutor>>,
    gateway: Arc<Gateway>,
    lifecycle: Lifecycle,
    _place: OwnedSemaphorePermit,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(gateway.handle(peer, request).await) }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let mut connection = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let mut draining = pin!(lifecycle.draining());
    // until the first bytes tell the protocol, none of its timeouts runs
    let mut first = pin!(sleep(HEADER_TIMEOUT));
    let (mut ending, mut waiting) = (false, true);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = draining.as_mut(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = first.as_mut(), if waiting => {
                waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
