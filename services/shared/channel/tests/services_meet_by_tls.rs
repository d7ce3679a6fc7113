//! TLS between services: the server of `rpc` and the client's channel, over real connections.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use channel::{Channel, Stack, UNREACHABLE};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use lifecycle::{Failure, Lifecycle};
use proto::auth::v1::{
    GetSessionRequest, GetSessionResponse, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse,
    auth_service_client::AuthServiceClient,
    auth_service_server::{AuthService, AuthServiceServer},
};
use rpc::{
    Caller,
    caller::Key,
    error,
    server::{Config, LIVE, Routes, serve},
};
use secrecy::SecretString;
use settings::Reader;
use tempfile::TempDir;
use tls::{
    Mutual,
    testing::{Authority, Issued},
};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tonic::{Code, Request, Response, Status, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Answers everything; who wants to wait, waits until it is released.
#[derive(Clone, Default)]
struct Handler {
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

#[tonic::async_trait]
impl AuthService for Handler {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        if request.get_ref().email == "wait" {
            self.entered.notify_one();
            self.release.notified().await;
        }
        Ok(Response::new(LoginResponse::default()))
    }

    async fn logout(&self, _: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        Ok(Response::new(LogoutResponse::default()))
    }

    async fn get_session(
        &self,
        _: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        Ok(Response::new(GetSessionResponse { user_id: 7, role: 1 }))
    }
}

fn key() -> Key {
    Key::new(&SecretString::from("a secret for tests, 32 bytes long")).unwrap()
}

fn identity(issued: &Issued, authority: &str) -> Mutual {
    let folder = TempDir::new().unwrap();
    read(issued.write(folder.path(), authority))
}

fn read(settings: BTreeMap<String, String>) -> Mutual {
    Mutual::read(&mut Reader::from_map(settings)).unwrap().unwrap()
}

struct Server {
    address: SocketAddr,
    probes: SocketAddr,
    handler: Handler,
    lifecycle: Lifecycle,
    task: JoinHandle<Result<(), Failure>>,
}

#[expect(clippy::disallowed_methods, reason = "the test owns the task")]
async fn start(tls: Mutual) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let probes = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let lifecycle = Lifecycle::new(Duration::from_secs(10));
    let config = Config {
        listen: address,
        max_in_flight: 10,
        default_deadline: Duration::from_secs(5),
        max_deadline: Duration::from_secs(30),
        grace: Duration::from_secs(10),
        key: key(),
        health_listen: Some(probes),
        tls: Some(tls),
        workers: None,
    };
    let handler = Handler::default();
    let routes = Routes::default().with(AuthServiceServer::new(handler.clone()));
    let health = routes.health();
    let life = lifecycle.clone();
    let task = tokio::spawn(async move { life.finish(serve(listener, routes, &config, &life)).await });
    // `serve` begins as not ready
    tokio::task::yield_now().await;
    health.set_ready(true).await;
    Server {
        address,
        probes,
        handler,
        lifecycle,
        task,
    }
}

/// By the path for any request, and by the one for single messages.
async fn call_both(name: &'static str, address: SocketAddr, tls: Option<Mutual>) -> [Result<(), Status>; 2] {
    let channel = Channel::new(
        name,
        vec![address.to_string()],
        tls,
        &Lifecycle::new(Duration::ZERO),
    );
    let stack = Stack::new(channel.clone(), key(), "test").on_behalf_of(Caller::Anonymous);
    let sent = AuthServiceClient::new(stack).login(LoginRequest::default()).await;
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (header::TE, HeaderValue::from_static("trailers")),
    ]);
    let path = "/kontor.auth.v1.AuthService/Login";
    let message = Bytes::from_static(&[0; 5]);
    let unary = channel.unary(path, &headers, &message, 1_000).await;
    let unary = unary.map(|answer| {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    });
    [sent.map(|_| ()), unary]
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The log of this thread, as long as the guard lives.
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn services_of_one_authority_call_each_other() {
    let authority = Authority::new();
    let server = start(identity(&authority.issue("auth"), &authority.certificate)).await;
    let client = identity(&authority.issue("gateway"), &authority.certificate);
    for answer in call_both("auth", server.address, Some(client)).await {
        answer.unwrap();
    }
    server.lifecycle.drain();
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_gets_no_request() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = start(identity(&ours.issue("auth"), &ours.certificate)).await;
    for (name, authority, reason) in [
        ("transfer", &ours, "certificate not valid for name"),
        ("auth", &theirs, "UnknownIssuer"),
    ] {
        let (log, _listening) = Log::listen();
        let client = identity(&authority.issue("gateway"), &authority.certificate);
        for answer in call_both(name, server.address, Some(client)).await {
            let refused = answer.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable);
            assert_eq!(error::reason(&refused).as_deref(), Some(UNREACHABLE));
            assert!(!refused.message().contains("certificate"), "{refused}");
        }
        let told = log.text();
        assert!(
            told.contains(&format!("no TLS with {name}: ")) && told.contains(reason),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_client_that_is_none_of_ours_is_refused_with_a_reason() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = start(identity(&ours.issue("auth"), &ours.certificate)).await;
    let both = format!("{}{}", ours.certificate, theirs.certificate);
    let stranger = identity(&theirs.issue("gateway"), &both);
    for (client, reason) in [(Some(stranger), "UnknownIssuer"), (None, "InvalidContentType")] {
        let (log, _listening) = Log::listen();
        for answer in call_both("auth", server.address, client).await {
            assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
        }
        let told = log.text();
        assert!(
            told.contains("refused a connection: no TLS with the client") && told.contains(reason),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_channel_follows_renewed_certificates() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let (server_files, client_files) = (folder.path().join("auth"), folder.path().join("gateway"));
    let server_tls = read(old.issue("auth").write(&server_files, &old.certificate));
    let client_tls = read(old.issue("gateway").write(&client_files, &old.certificate));
    let lifecycle = Lifecycle::new(Duration::ZERO);
    for tls in [&server_tls, &client_tls] {
        tls.watch_every(Duration::from_millis(5), &lifecycle);
    }
    let server = start(server_tls).await;
    for answer in call_both("auth", server.address, Some(client_tls.clone())).await {
        answer.unwrap();
    }
    new.issue("auth").write(&server_files, &new.certificate);
    new.issue("gateway").write(&client_files, &new.certificate);
    let newcomer = identity(&new.issue("account"), &new.certificate);
    for client in [newcomer, client_tls] {
        let mut tries = 0;
        while call_both("auth", server.address, Some(client.clone()))
            .await
            .iter()
            .any(Result::is_err)
        {
            tries += 1;
            assert!(tries < 500, "the new certificates are not used");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn probes_need_no_certificate_and_see_nothing_else() {
    let authority = Authority::new();
    let server = start(identity(&authority.issue("auth"), &authority.certificate)).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.probes)).unwrap();
    let door = endpoint.connect().await.unwrap();
    let refused = AuthServiceClient::new(door.clone())
        .login(LoginRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let mut health = HealthClient::new(door);
    let mut is_serving = async |name: &str| {
        let request = HealthCheckRequest {
            service: name.to_owned(),
        };
        health.check(request).await.unwrap().into_inner().status == 1
    };
    assert!(is_serving("").await && is_serving(LIVE).await);
    assert!(is_serving("kontor.auth.v1.AuthService").await);

    // a request keeps the server draining: it is not ready, and lives
    let client = identity(&authority.issue("gateway"), &authority.certificate);
    let lifecycle = Lifecycle::new(Duration::ZERO);
    let channel = Channel::new("auth", vec![server.address.to_string()], Some(client), &lifecycle);
    let mut auth = AuthServiceClient::new(Stack::new(channel, key(), "test"));
    let waiting = LoginRequest {
        email: "wait".to_owned(),
        ..LoginRequest::default()
    };
    let draining = async {
        server.handler.entered.notified().await;
        server.lifecycle.drain();
        while is_serving("").await {
            tokio::task::yield_now().await;
        }
        assert!(is_serving(LIVE).await);
        server.handler.release.notify_one();
    };
    let (answered, ()) = tokio::join!(auth.login(waiting), draining);
    answered.unwrap();
    server.task.await.unwrap().unwrap();
}
