//! The public port by TLS, and the port of the probes beside it.

use std::{fs, net::SocketAddr, sync::Arc};

use ::tls::testing::Authority;
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::auth::v1::{GetSessionRequest, auth_service_client::AuthServiceClient};
use rpc::server::LIVE;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::world::World;

struct Door {
    world: World,
    probes: SocketAddr,
    authority: Authority,
    _folder: TempDir,
}

async fn door() -> Door {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let issued = authority.issue("kontor.example");
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let probes = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let world = World::unready(&[
        (
            "KONTOR_PUBLIC_TLS_CERT_FILE",
            &path("tls.crt", &issued.certificate),
        ),
        ("KONTOR_PUBLIC_TLS_KEY_FILE", &path("tls.key", &issued.key)),
        ("KONTOR_HEALTH_LISTEN", &probes.to_string()),
    ])
    .await;
    Door {
        world,
        probes,
        authority,
        _folder: folder,
    }
}

impl Door {
    async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.certificate.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.world.address).await.unwrap();
        let name = ServerName::try_from("kontor.example").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }
}

#[tokio::test]
async fn the_public_port_speaks_both_protocols_by_tls() {
    let door = door().await;
    let mut http1 = door.connect(b"http/1.1").await;
    let question = b"GET /livez HTTP/1.1\r\nhost: kontor.example\r\nconnection: close\r\n\r\n";
    http1.write_all(question).await.unwrap();
    let mut answer = String::new();
    http1.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"status":"live"}"#),
        "{answer}"
    );

    let stream = TokioIo::new(door.connect(b"h2").await);
    let (mut http2, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let question = Request::get("https://kontor.example/livez").version(Version::HTTP_2);
    let asked = http2.send_request(question.body(Empty::<Bytes>::new()).unwrap());
    tokio::select! {
        answer = asked => assert_eq!(answer.unwrap().status(), 200),
        ended = connection => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn the_public_port_takes_no_clear_text_then() {
    let door = door().await;
    door.world.get("/livez").send().await.unwrap_err();
}

#[tokio::test]
async fn the_port_of_the_probes_tells_health_only() {
    let door = door().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", door.probes)).unwrap();
    let mut channel = None;
    while channel.is_none() {
        channel = endpoint.connect().await.ok();
    }
    let channel = channel.unwrap();
    let is_serving = async |name: &str| {
        let service = name.to_owned();
        let answer = HealthClient::new(channel.clone())
            .check(HealthCheckRequest { service })
            .await;
        answer.is_ok_and(|answer| answer.into_inner().status == 1)
    };
    door.world.eventually("live", || is_serving(LIVE)).await;
    door.world.eventually("ready", || is_serving("")).await;
    door.world
        .eventually("told", || is_serving("kontor.chat.v1.ChatService"))
        .await;
    let refused = AuthServiceClient::new(channel.clone())
        .get_session(GetSessionRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}
