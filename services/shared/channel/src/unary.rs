//! Calls with one message there and one back: most of all calls, and straight on the HTTP/2 connection.
//!
//! A body that may be of any length needs a task that carries it, and channels there and back. A whole message needs none of
//! that: it is handed to the connection at once, and the caller's own task reads the answer.

use std::{
    net::SocketAddr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use h2::{Ping, PingPong, Reason, RecvStream, client::SendRequest};
use http::{HeaderMap, Request, StatusCode};
use lifecycle::Lifecycle;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{sleep, timeout},
};
use tonic::Status;

use rpc::{error, gather::gather};

use crate::{
    balance::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT, STREAM_WINDOW_BYTES},
    connect::Connector,
};

/// The answer of a call, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: StatusCode,
    /// The headers, which have the gRPC status when there is no message.
    pub headers: HeaderMap,
    /// The frames of the answer.
    pub data: Bytes,
    /// What came after the frames, the gRPC status among it.
    pub trailers: Option<HeaderMap>,
}

/// Why there is no answer.
pub(crate) enum Failed {
    /// The request was certainly not processed.
    Unprocessed,
    /// Nobody knows what became of it.
    Unknown(Status),
}

/// A connection for such calls, opened again when it is lost.
#[derive(Default)]
pub(crate) struct Connection {
    live: RwLock<Option<Live>>,
    /// Held by the one task that connects.
    connecting: AsyncMutex<()>,
    opened: AtomicU64,
}

/// An open connection. The number tells it from the one before.
#[derive(Clone)]
pub(crate) struct Live {
    sender: SendRequest<Bytes>,
    number: u64,
}

impl Connection {
    /// The open connection, if there is one.
    pub fn live(&self) -> Option<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the connection, unless another caller has just done it.
    pub async fn open(
        &self,
        connector: &Connector,
        address: SocketAddr,
        lifecycle: &Lifecycle,
    ) -> std::io::Result<Live> {
        let _connecting = self.connecting.lock().await;
        if let Some(live) = self.live() {
            return Ok(live);
        }
        let live = Live {
            sender: handshake(connector, address, lifecycle).await?,
            number: self.opened.fetch_add(1, Ordering::Relaxed),
        };
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
        Ok(live)
    }

    /// Forgets a connection that takes no more requests.
    pub fn lose(&self, lost: u64) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| live.number == lost) {
            *live = None;
        }
    }
}

async fn handshake(
    connector: &Connector,
    address: SocketAddr,
    lifecycle: &Lifecycle,
) -> std::io::Result<SendRequest<Bytes>> {
    let stream = connector.connect(address).await?;
    let (sender, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(stream)
        .await
        .map_err(std::io::Error::other)?;
    let pings = connection.ping_pong();
    lifecycle.spawn_until_stopping("upstream connection", async move {
        tokio::select! {
            ended = gather(connection) => if let Err(error) = ended {
                tracing::debug!(%error, upstream.address = %address, "connection ended");
            },
            () = silence(pings) => {
                tracing::debug!(upstream.address = %address, "the peer is gone");
            }
        }
    });
    Ok(sender)
}

/// Ends when the peer does not answer a ping in time.
async fn silence(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(KEEP_ALIVE).await;
        if !matches!(
            timeout(KEEP_ALIVE_TIMEOUT, pings.ping(Ping::opaque())).await,
            Ok(Ok(_))
        ) {
            return;
        }
    }
}

impl Live {
    /// Which connection it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Sends a request with its one message, and reads the whole answer, of at most `most` bytes.
    pub async fn call(self, request: Request<()>, message: Bytes, most: usize) -> Result<Answer, Failed> {
        let mut sender = self.sender.ready().await.map_err(|_| Failed::Unprocessed)?;
        let (response, mut stream) = sender
            .send_request(request, false)
            .map_err(|_| Failed::Unprocessed)?;
        // the connection keeps what the peer's window does not take yet; an error shows in the answer
        let _ = stream.send_data(message, true);
        let (parts, body) = response.await.map_err(|error| failed(&error))?.into_parts();
        let (data, trailers) = read(body, most).await?;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            data,
            trailers,
        })
    }
}

async fn read(mut body: RecvStream, most: usize) -> Result<(Bytes, Option<HeaderMap>), Failed> {
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            // the peer has said all, and does not want to hear the rest
            Err(error) if error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => break,
            Err(error) => return Err(broken(&error)),
        };
        let _ = body.flow_control().release_capacity(chunk.len());
        // most answers are one chunk, which is not copied
        if first.is_empty() && more.is_empty() {
            first = chunk;
            continue;
        }
        if more.is_empty() {
            more.extend_from_slice(&first);
        }
        more.extend_from_slice(&chunk);
        if more.len() > most {
            return Err(Failed::Unknown(error::internal("the answer is too large")));
        }
    }
    let trailers = body.trailers().await.map_err(|error| broken(&error))?;
    let data = if more.is_empty() { first } else { more.freeze() };
    Ok((data, trailers))
}

fn failed(error: &h2::Error) -> Failed {
    if is_unprocessed(error) {
        return Failed::Unprocessed;
    }
    Failed::Unknown(error::unavailable(&format_args!("no answer: {error}")))
}

fn broken(error: &h2::Error) -> Failed {
    Failed::Unknown(error::unavailable(&format_args!("the answer broke off: {error}")))
}

/// Whether the server has certainly not processed a request: it drains, or has refused the stream (RFC 9113, 6.8 and 8.7).
pub(crate) fn is_unprocessed(error: &h2::Error) -> bool {
    let going_away = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    let refused = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    going_away || refused
}
