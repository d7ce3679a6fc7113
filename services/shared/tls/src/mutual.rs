//! TLS between services: both sides show a certificate of one authority.

use std::{io, sync::Arc, time::Duration};

use lifecycle::Lifecycle;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use settings::{Invalid, Reader};
use tokio::{io::AsyncBufReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    Disagreed, HANDSHAKE_TIMEOUT, LOOK_EVERY, Stream, accept,
    files::{Contents, File, Files, Problem},
    provider,
    reloaded::Reloaded,
};

/// The protocol inside: gRPC.
const ALPN: &[u8] = b"h2";

/// The identity of a service towards the others, and the authority that the others' must come from. Clones share it.
#[derive(Clone)]
pub struct Mutual(Arc<Reloaded<Sides>>);

struct Sides {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Mutual {
    /// Reads `KONTOR_TLS_CERT_FILE`, `KONTOR_TLS_KEY_FILE` and `KONTOR_TLS_CA_FILE`, and the files. `None` when none of
    /// them is set.
    pub fn read(r: &mut Reader) -> Result<Option<Self>, Invalid> {
        let files = Files::read(
            r,
            (
                "KONTOR_TLS_CERT_FILE",
                "certificate of this service for TLS with the others, with its chain; without it they talk in clear text",
            ),
            ("KONTOR_TLS_KEY_FILE", "its private key"),
            Some(("KONTOR_TLS_CA_FILE", "the authority of the others' certificates")),
        )?;
        let Some(files) = files else { return Ok(None) };
        match Reloaded::new(files, make) {
            Ok(sides) => Ok(Some(Self(Arc::new(sides)))),
            Err(problem) => Err(r.fail(problem.setting, problem.what)),
        }
    }

    /// Keeps to the files: those who connect later use what is in them then.
    pub fn watch(&self, lifecycle: &Lifecycle) {
        self.watch_every(LOOK_EVERY, lifecycle);
    }

    /// As [`Mutual::watch`], at another pace.
    pub fn watch_every(&self, every: Duration, lifecycle: &Lifecycle) {
        lifecycle.spawn(
            "certificates",
            Arc::clone(&self.0).watch(every, lifecycle.clone()),
        );
    }

    /// The server's side: the client must show a certificate of the authority.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        accept(Arc::clone(&self.0.get().server), stream).await
    }

    /// The client's side: the server must show a certificate of the authority with the name of the service, and must have
    /// taken ours.
    pub async fn connect(&self, service: &'static str, stream: TcpStream) -> io::Result<Stream> {
        let connector = TlsConnector::from(Arc::clone(&self.0.get().client));
        let agree = async {
            let name = ServerName::try_from(service).map_err(io::Error::other)?;
            let mut stream = connector.connect(name, stream).await?;
            // In TLS 1.3 a client is done before the server has looked at its certificate. A server of HTTP/2 speaks first:
            // then it has. Otherwise the refusal would come as the unknown end of the first request.
            if stream.fill_buf().await?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(stream)
        };
        let agreed = timeout(HANDSHAKE_TIMEOUT, agree).await;
        match agreed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream.into()))),
            Err(cause) => Err(io::Error::other(Disagreed { service, cause })),
        }
    }
}

fn make(files: &Files, contents: &Contents) -> Result<Sides, Problem> {
    let (chain, key) = files.identity(contents)?;
    let authorities = files.authorities.as_ref().unwrap_or(&files.certificate);
    let roots = Arc::new(roots(authorities, &contents.authorities)?);
    let unusable = |error: rustls::Error| files.unusable(&error);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .build()
        .map_err(|error| authorities.problem(error.to_string()))?;
    check_own(&files.certificate, &chain, &*verifier)?;
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(unusable)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // connections last, and each new one shows its certificates anew
    server.session_storage = Arc::new(NoServerSessionStorage {});
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Sides {
        server: Arc::new(server),
        client: Arc::new(client),
    })
}

/// The certificates of a file, as those of authorities.
pub(crate) fn roots(file: &File, content: &[u8]) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in file.certificates(content)? {
        roots
            .add(certificate)
            .map_err(|error| file.problem(format!("{} cannot be used: {error}", file.path.display())))?;
    }
    Ok(roots)
}

/// A certificate that the others would refuse is told here, not by each of them.
fn check_own(
    file: &File,
    chain: &[CertificateDer<'static>],
    verifier: &dyn ClientCertVerifier,
) -> Result<(), Problem> {
    let Some((own, between)) = chain.split_first() else {
        return Ok(());
    };
    match verifier.verify_client_cert(own, between, UnixTime::now()) {
        Ok(_) => Ok(()),
        Err(error) => Err(file.problem(format!(
            "the others would refuse {}: {error}",
            file.path.display()
        ))),
    }
}
