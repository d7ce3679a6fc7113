//! The gRPC doors: the public one of a gateway, and those of the services behind it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use rpc::caller::{self, Caller, Key};
use tls::Mutual;
use tokio::net::TcpStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

/// A client's transport with its credentials.
pub type Door = InterceptedService<Channel, Credentials>;

/// What a client shows with each call.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nothing.
    None,
    /// `authorization: Bearer <token>`.
    Bearer(String),
    /// A signed caller context, as only services send it.
    Signed(MetadataValue<Ascii>),
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        match self {
            Self::None => {}
            Self::Bearer(token) => {
                let value = format!("Bearer {token}")
                    .parse()
                    .map_err(|_| Status::internal("not a token"))?;
                request.metadata_mut().insert("authorization", value);
            }
            Self::Signed(context) => {
                request.metadata_mut().insert(caller::HEADER, context.clone());
            }
        }
        Ok(request)
    }
}

/// A door at `address` (`host:port`). Connects when it is used, and again when the connection is lost.
pub fn door(address: &str, credentials: Credentials) -> Result<Door> {
    let endpoint = Endpoint::from_shared(format!("http://{}", address.trim_start_matches("http://")))
        .with_context(|| format!("not an address: {address}"))?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true);
    Ok(InterceptedService::new(endpoint.connect_lazy(), credentials))
}

/// A door at one instance of a service that talks by TLS.
pub fn door_by_tls(
    address: SocketAddr,
    service: &'static str,
    tls: &Mutual,
    credentials: Credentials,
) -> Result<Door> {
    let tls = tls.clone();
    let connect = service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            tls.connect(service, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{service}"))?;
    Ok(InterceptedService::new(
        endpoint.connect_with_connector_lazy(connect),
        credentials,
    ))
}

/// Credentials of a caller, signed as the gateway does it.
pub fn signed(key: &Key, caller: &Caller) -> Result<Credentials> {
    let context = key.sign("gateway", caller)?;
    Ok(Credentials::Signed(MetadataValue::try_from(context.as_bytes())?))
}
