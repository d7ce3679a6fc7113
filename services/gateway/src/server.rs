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

use http::{HeaderValue, Request, Version, header::CONNECTION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use lifecycle::Lifecycle;
use tls::{Public, Stream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
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
/// HTTP/1.1 has no word for a client that is about to send its next request: for so long, an answer says that it is the last one
/// of its connection, before those that rest are closed.
const LINGER: Duration = Duration::from_secs(1);
/// Resets of streams that wait to be noticed, beyond which the client is cut off (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;
/// The pause after an error of `accept` that is not the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until the lifecycle drains. The connections are tasks of the lifecycle, which waits for them.
pub(crate) async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    tls: Option<Public>,
    lifecycle: &Lifecycle,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let http = Arc::new(builder());
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = lifecycle.draining() => return,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (http, gateway) = (Arc::clone(&http), Arc::clone(&gateway));
                let (tls, life) = (tls.clone(), lifecycle.clone());
                lifecycle.spawn_request_scoped("connection", async move {
                    let _place = place;
                    match secured(stream, tls).await {
                        Ok(stream) => connection(stream, peer, http, gateway, life).await,
                        Err(error) => tracing::debug!(client.address = %peer, %error, "no TLS with a client"),
                    }
                });
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

async fn secured(stream: TcpStream, tls: Option<Public>) -> io::Result<Stream> {
    match tls {
        None => Ok(Stream::Plain(stream)),
        Some(tls) => tls.accept(stream).await,
    }
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
    stream: Stream,
    peer: SocketAddr,
    http: Arc<auto::Builder<TokioExecutor>>,
    gateway: Arc<Gateway>,
    lifecycle: Lifecycle,
) {
    let (asked, one_by_one) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let last = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let is_http1 = request.version() < Version::HTTP_2;
        one_by_one.store(is_http1, Ordering::Relaxed);
        let (gateway, last) = (Arc::clone(&gateway), Arc::clone(&last));
        async move {
            let mut response = gateway.handle(peer.ip(), request).await;
            if is_http1 && last.load(Ordering::Relaxed) {
                let headers = response.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let mut connection = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let mut draining = pin!(lifecycle.draining());
    // until the first bytes tell the protocol, none of its timeouts runs
    let mut closing = pin!(sleep(HEADER_TIMEOUT));
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
                if one_by_one.load(Ordering::Relaxed) {
                    last.store(true, Ordering::Relaxed);
                    waiting = true;
                    closing.as_mut().reset(Instant::now() + LINGER);
                } else {
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = closing.as_mut(), if waiting => {
                waiting = false;
                if ending || !asked.load(Ordering::Relaxed) {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
