//! TLS at the public door: the server shows a certificate, its clients show none.

use std::{io, sync::Arc, time::Duration};

use lifecycle::Lifecycle;
use rustls::{
    ServerConfig,
    version::{TLS12, TLS13},
};
use settings::{Invalid, Reader};
use tokio::net::TcpStream;

use crate::{
    LOOK_EVERY, Stream, accept,
    files::{Contents, Files, Problem},
    provider,
    reloaded::Reloaded,
};

/// The protocols inside, the better one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The identity of the public door. Clones share it.
#[derive(Clone)]
pub struct Public(Arc<Reloaded<Arc<ServerConfig>>>);

impl Public {
    /// Reads `KONTOR_PUBLIC_TLS_CERT_FILE` and `KONTOR_PUBLIC_TLS_KEY_FILE`, and the files. `None` when neither is set.
    pub fn read(r: &mut Reader) -> Result<Option<Self>, Invalid> {
        let files = Files::read(
            r,
            (
                "KONTOR_PUBLIC_TLS_CERT_FILE",
                "certificate of the public port, with its chain; without it the port speaks clear text",
            ),
            ("KONTOR_PUBLIC_TLS_KEY_FILE", "its private key"),
            None,
        )?;
        let Some(files) = files else { return Ok(None) };
        match Reloaded::new(files, make) {
            Ok(config) => Ok(Some(Self(Arc::new(config)))),
            Err(problem) => Err(r.fail(problem.setting, problem.what)),
        }
    }

    /// Keeps to the files: clients that connect later see what is in them then.
    pub fn watch(&self, lifecycle: &Lifecycle) {
        self.watch_every(LOOK_EVERY, lifecycle);
    }

    /// As [`Public::watch`], at another pace.
    pub fn watch_every(&self, every: Duration, lifecycle: &Lifecycle) {
        lifecycle.spawn(
            "public certificate",
            Arc::clone(&self.0).watch(every, lifecycle.clone()),
        );
    }

    /// The server's side.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        accept(Arc::clone(&self.0.get()), stream).await
    }
}

fn make(files: &Files, contents: &Contents) -> Result<Arc<ServerConfig>, Problem> {
    let (chain, key) = files.identity(contents)?;
    let unusable = |error: rustls::Error| files.unusable(&error);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}
