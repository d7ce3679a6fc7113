//! One connection to an instance.

use std::{io, net::SocketAddr, time::Duration};

use http::uri::Scheme;
use tls::{Mutual, Stream};
use tokio::{net::TcpStream, time::timeout};

/// How long an instance may take to accept a connection. The kernel repeats a first packet that was lost after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// How the instances of a service are connected to.
#[derive(Clone)]
pub(crate) struct Connector {
    /// The name that they prove, where there is TLS.
    pub service: &'static str,
    /// Without it, they are talked to in clear text.
    pub tls: Option<Mutual>,
}

impl Connector {
    /// The scheme that requests have.
    pub fn scheme(&self) -> Scheme {
        match self.tls {
            None => Scheme::HTTP,
            Some(_) => Scheme::HTTPS,
        }
    }

    /// Connects.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => tls.connect(self.service, stream).await,
        }
    }
}
