//! The server's guard and the client's channel, over real connections.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use channel::{Channel, Stack, UNREACHABLE};
use lifecycle::Lifecycle;
use prost::Message as _;
use proto::auth::v1::{
    GetSessionRequest, GetSessionResponse, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse,
    auth_service_client::AuthServiceClient,
    auth_service_server::{AuthService, AuthServiceServer},
};
use rpc::{
    Caller,
    caller::Key,
    error,
    server::{Config, Routes, serve},
};
use secrecy::SecretString;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tonic::{Code, Request, Response, Status};

/// A handler that does what the email says.
#[derive(Clone, Default)]
struct Handler {
    calls: Arc<AtomicUsize>,
    entered: Arc<Notify>,
    release: Arc<Notify>,
}

#[tonic::async_trait]
impl AuthService for Handler {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let remaining = rpc::deadline(&request).remaining();
        match request.get_ref().email.as_str() {
            "panic" => panic!("the handler's own secret"),
            "wait" => {
                self.entered.notify_one();
                self.release.notified().await;
            }
            _ => {}
        }
        let user_id = i64::try_from(remaining.as_millis()).unwrap();
        Ok(Response::new(LoginResponse {
            user_id,
            ..LoginResponse::default()
        }))
    }

    async fn logout(&self, _: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        Ok(Response::new(LogoutResponse::default()))
    }

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        let user_id = rpc::caller(&request)?.user_id()?;
        Ok(Response::new(GetSessionResponse { user_id, role: 1 }))
    }
}

struct Server {
    address: SocketAddr,
    handler: Handler,
    lifecycle: Lifecycle,
    task: JoinHandle<Result<(), lifecycle::Failure>>,
}

fn key() -> Key {
    Key::new(&SecretString::from("a secret for tests, 32 bytes long")).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the test owns the task")]
async fn start(max_in_flight: usize) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let lifecycle = Lifecycle::new(Duration::from_secs(10));
    let config = Config {
        listen: address,
        max_in_flight,
        default_deadline: Duration::from_secs(5),
        max_deadline: Duration::from_secs(30),
        grace: Duration::from_secs(10),
        key: key(),
        health_listen: None,
        tls: None,
        workers: None,
    };
    let handler = Handler::default();
    let routes = Routes::default().with(AuthServiceServer::new(handler.clone()));
    routes.health().set_ready(true).await;
    let life = lifecycle.clone();
    let task = tokio::spawn(async move { life.finish(serve(listener, routes, &config, &life)).await });
    Server {
        address,
        handler,
        lifecycle,
        task,
    }
}

fn client(addresses: &[SocketAddr], caller: Caller) -> AuthServiceClient<Stack> {
    let addresses = addresses.iter().map(ToString::to_string).collect();
    let channel = Channel::new("auth", addresses, None, &Lifecycle::new(Duration::ZERO));
    AuthServiceClient::new(Stack::new(channel, key(), "test").on_behalf_of(caller))
}

fn login(email: &str) -> LoginRequest {
    LoginRequest {
        email: email.to_owned(),
        ..LoginRequest::default()
    }
}

#[tokio::test]
async fn a_user_method_needs_a_signed_user() {
    let server = start(10).await;
    let refused = client(&[server.address], Caller::Anonymous)
        .get_session(GetSessionRequest {})
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unauthenticated, "Unauthorized")
    );
    let user = Caller::User {
        user_id: 7,
        operator: false,
        session: None,
    };
    let answer = client(&[server.address], user)
        .get_session(GetSessionRequest {})
        .await
        .unwrap();
    assert_eq!(answer.into_inner().user_id, 7);
}

#[tokio::test]
async fn a_panic_is_an_internal_error_of_one_request() {
    let server = start(10).await;
    let mut client = client(&[server.address], Caller::Anonymous);
    let failed = client.login(login("panic")).await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (Code::Internal, "Internal error")
    );
    client.login(login("alice")).await.unwrap();
}

#[tokio::test]
async fn a_deadline_is_kept_and_travels() {
    let server = start(10).await;
    let mut client = client(&[server.address], Caller::Anonymous);
    // the default of a call between services
    let remaining = client.login(login("alice")).await.unwrap().into_inner().user_id;
    assert!((4_000..=5_000).contains(&remaining), "{remaining} ms");
    let tonic_timeout = tokio::time::timeout(Duration::from_secs(20), client.login(login("wait"))).await;
    assert_eq!(tonic_timeout.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_at_once() {
    let server = start(1).await;
    let mut one = client(&[server.address], Caller::Anonymous);
    let mut other = one.clone();
    let (first, second) = tokio::join!(one.login(login("wait")), async {
        server.handler.entered.notified().await;
        let refused = other.login(login("alice")).await;
        server.handler.release.notify_one();
        refused
    });
    first.unwrap();
    let refused = second.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(error::reason(&refused).as_deref(), Some("OVERLOADED"));
    // the place is free again
    other.login(login("alice")).await.unwrap();
}

#[tokio::test]
async fn a_request_in_flight_outlives_the_drain() {
    let server = start(10).await;
    let mut client = client(&[server.address], Caller::Anonymous);
    let (answer, ()) = tokio::join!(client.login(login("wait")), async {
        server.handler.entered.notified().await;
        server.lifecycle.drain();
        server.handler.release.notify_one();
    });
    answer.unwrap();
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_instance_costs_no_request() {
    let (one, other) = (start(100).await, start(100).await);
    let mut client = client(&[one.address, other.address], Caller::Anonymous);
    for _ in 0..50 {
        client.login(login("alice")).await.unwrap();
    }
    assert!(
        one.handler.calls.load(Ordering::SeqCst) > 0,
        "both instances get their share"
    );
    one.lifecycle.drain();
    one.task.await.unwrap().unwrap();
    let before = other.handler.calls.load(Ordering::SeqCst);
    for _ in 0..50 {
        client.login(login("alice")).await.unwrap();
    }
    assert_eq!(other.handler.calls.load(Ordering::SeqCst), before + 50);
}

#[tokio::test]
async fn a_call_of_one_message_is_like_any_other() {
    let (one, other) = (start(100).await, start(100).await);
    let addresses = [one.address, other.address]
        .map(|address| address.to_string())
        .to_vec();
    let channel = Channel::new("auth", addresses, None, &Lifecycle::new(Duration::ZERO));
    let login = login("alice");
    let mut framed = vec![0, 0, 0, 0, u8::try_from(login.encoded_len()).unwrap()];
    login.encode(&mut framed).unwrap();
    let framed = bytes::Bytes::from(framed);
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    let call = async || {
        let path = "/kontor.auth.v1.AuthService/Login";
        channel.unary(path, &headers, &framed, 1_000).await
    };
    for _ in 0..50 {
        let answer = call().await.unwrap();
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
        let told = LoginResponse::decode(answer.data.slice(5..)).unwrap();
        assert!(told.user_id > 4_000, "the default deadline");
    }
    assert!(one.handler.calls.load(Ordering::SeqCst) > 0);
    // its connections are told to leave, and nothing is lost
    one.lifecycle.drain();
    one.task.await.unwrap().unwrap();
    for _ in 0..50 {
        call().await.unwrap();
    }
    other.lifecycle.drain();
    other.task.await.unwrap().unwrap();
    let refused = call().await.unwrap_err();
    assert_eq!(error::reason(&refused).as_deref(), Some(UNREACHABLE));
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = client(&[address], Caller::Anonymous)
        .login(login("alice"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(error::reason(&refused).as_deref(), Some(UNREACHABLE));
}

#[tokio::test]
async fn a_host_name_stands_for_its_addresses() {
    let server = start(10).await;
    let lifecycle = Lifecycle::new(Duration::ZERO);
    let name = format!("localhost:{}", server.address.port());
    let channel = Channel::new("auth", vec![name], None, &lifecycle);
    let mut client = AuthServiceClient::new(Stack::new(channel.clone(), key(), "test"));
    tokio::time::timeout(Duration::from_secs(10), async {
        while !channel.is_reachable().await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    client.login(login("alice")).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_decoded_is_the_callers_mistake() {
    let server = start(10).await;
    let addresses = vec![server.address.to_string()];
    let channel = Channel::new("auth", addresses, None, &Lifecycle::new(Duration::ZERO));
    // field 1 of LoginRequest is a string, and this one says that it is 100 bytes long
    for body in [
        &b"\0\0\0\0\x02\x0a\x64"[..],
        b"\0\0\0\0\x03\x0a\x01\xff",
        b"\x02\0\0\0\0",
        b"",
    ] {
        let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::copy_from_slice(body)));
        let request = http::Request::post("/kontor.auth.v1.AuthService/Login")
            .header("content-type", "application/grpc")
            .body(body)
            .unwrap();
        let response = channel.send(request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(error::reason(&status).as_deref(), Some("INVALID_ARGUMENT"));
    }
}
