//! TLS: between the services, where each side proves who it is, and at the public door.
//!
//! - [`Mutual`]: both sides show a certificate of one authority; the caller also checks the name of whom it calls.
//! - [`Public`]: the server shows a certificate, its clients show none.
//! - [`Stream`]: a connection with or without it.
//! - [`Authorities`]: who vouches for servers that are not ours.
//!
//! The first two are read from PEM files, and read again when the files change ([`Mutual::watch`], [`Public::watch`]). The
//! cryptography is aws-lc's, as everywhere in kontor.
#![warn(missing_docs)]

mod authorities;
mod files;
mod mutual;
mod public;
mod reloaded;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;

use std::{io, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

pub use authorities::Authorities;
pub use mutual::Mutual;
pub use public::Public;
pub use stream::Stream;

/// How long the two sides may take to agree.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The two sides did not agree: a certificate is missing, is not trusted, or has another name; or one side speaks no TLS.
#[derive(Debug, thiserror::Error)]
#[error("no TLS with {service}: {cause}")]
pub struct Disagreed {
    service: &'static str,
    cause: io::Error,
}

/// Whether a connection failed because the two sides did not agree.
pub fn is_disagreement(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(source) if source.is::<Disagreed>())
}

/// Makes aws-lc the cryptography of the process, for libraries that ask for that one. Again and again does no harm.
pub fn install_provider() {
    // an error says that there is one already
    let _ = aws_lc_rs::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<Stream> {
    let accepted = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await;
    let stream = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(Stream::Tls(Box::new(stream.into())))
}
