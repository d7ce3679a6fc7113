//! A small real upstream: serves the contracts from memory, and remembers the headers it got.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use http::HeaderMap;
use lifecycle::Lifecycle;
use proto::{
    account::v1::{
        self as account,
        account_service_server::{AccountService, AccountServiceServer},
    },
    auth::v1::{
        self as auth,
        auth_service_server::{AuthService, AuthServiceServer},
        session_service_server::{SessionService, SessionServiceServer},
    },
    chat::v1::{
        self as chat,
        chat_service_server::{ChatService, ChatServiceServer},
    },
};
use rpc::{Caller, caller::Key, error};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, sync::Notify};
use tonic::{Code, Request, Response, Status, body::Body, transport::server::TcpIncoming};
use tower::util::MapRequestLayer;

use crate::ledger::{Accounts, Transfers};

/// The session token of user 1.
pub const ALICE: &str = "alice-alice-alice-alice-alice-alice-alice-a";
/// The session token of an operator.
pub const OPERATOR: &str = "operator-operator-operator-operator-operato";
/// An amount whose transfer never ends.
pub const ENDLESS: i64 = 777;
/// An amount whose transfer waits until [`Bank::gate`] opens.
pub const GATED: i64 = 778;
/// An amount whose transfer had been made before.
pub const REPLAYED: i64 = 779;
/// What an upstream's error must not tell the world.
pub const SECRET: &str = "relation \"users\" does not exist";

#[derive(Clone)]
pub struct Bank(Arc<Inner>);

pub struct Inner {
    key: Key,
    /// The headers of every call, with its path.
    pub seen: Mutex<Vec<(String, HeaderMap)>>,
    pub resolved: AtomicUsize,
    pub waiting: AtomicUsize,
    pub gate: Notify,
}

impl std::ops::Deref for Bank {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Bank {
    /// Serves until the lifecycle stops.
    pub async fn start(key: Key, lifecycle: &Lifecycle) -> (Self, SocketAddr) {
        let bank = Self(Arc::new(Inner {
            key,
            seen: Mutex::default(),
            resolved: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            gate: Notify::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .layer(MapRequestLayer::new({
                let bank = bank.clone();
                move |request| bank.arrive(request)
            }))
            .add_service(AuthServiceServer::new(bank.clone()))
            .add_service(SessionServiceServer::new(bank.clone()))
            .add_service(AccountServiceServer::new(bank.clone()))
            .add_service(Transfers(bank.clone()))
            .add_service(Accounts)
            .add_service(ChatServiceServer::new(bank.clone()))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        lifecycle.spawn_until_stopping("bank", async move { server.await.unwrap() });
        (bank, address)
    }

    /// The headers of the last call to a method, by the end of its path.
    pub fn last(&self, method: &str) -> HeaderMap {
        let seen = self.seen.lock().unwrap();
        let call = seen.iter().rev().find(|(path, _)| path.ends_with(method));
        call.unwrap_or_else(|| panic!("no call of {method}")).1.clone()
    }

    /// How many calls of a method have come, by the end of its path.
    pub fn calls(&self, method: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(path, _)| path.ends_with(method)).count()
    }

    pub fn caller(&self, headers: &HeaderMap) -> Caller {
        self.key.verify(&headers["kontor-caller"]).unwrap()
    }
}

impl Inner {
    /// Notes a call, and verifies who calls.
    fn arrive(&self, mut request: http::Request<Body>) -> http::Request<Body> {
        let headers = request.headers().clone();
        if let Some(signed) = headers.get("kontor-caller") {
            let caller = self.key.verify(signed).unwrap();
            request.extensions_mut().insert(caller);
        }
        self.seen
            .lock()
            .unwrap()
            .push((request.uri().path().to_owned(), headers));
        request
    }
}

#[tonic::async_trait]
impl SessionService for Bank {
    async fn resolve_session(
        &self,
        request: Request<auth::ResolveSessionRequest>,
    ) -> Result<Response<auth::ResolveSessionResponse>, Status> {
        self.resolved.fetch_add(1, Ordering::SeqCst);
        // long enough for everybody who asks at the same time
        tokio::time::sleep(Duration::from_millis(50)).await;
        let digest = request.into_inner().token_digest;
        let is = |token: &str| digest[..] == Sha256::digest(token)[..];
        let (user_id, role) = match () {
            () if is(ALICE) => (1, auth::Role::User),
            () if is(OPERATOR) => (9, auth::Role::Operator),
            () => {
                return Err(error::reject(
                    Code::Unauthenticated,
                    "SESSION_INVALID",
                    "Unauthorized",
                ));
            }
        };
        Ok(Response::new(auth::ResolveSessionResponse {
            user_id,
            role: role.into(),
            expires_at: None,
        }))
    }
}

#[tonic::async_trait]
impl AuthService for Bank {
    async fn login(
        &self,
        request: Request<auth::LoginRequest>,
    ) -> Result<Response<auth::LoginResponse>, Status> {
        if request.get_ref().password != "password123" {
            return Err(error::reject(
                Code::Unauthenticated,
                "INVALID_CREDENTIALS",
                "Invalid credentials",
            ));
        }
        let answer = auth::LoginResponse {
            status: "logged_in".into(),
            user_id: 1,
            ..Default::default()
        };
        let mut response = Response::new(answer);
        response
            .metadata_mut()
            .insert("kontor-set-session", ALICE.parse().unwrap());
        response
            .metadata_mut()
            .insert("kontor-session-max-age", "86400".parse().unwrap());
        Ok(response)
    }

    async fn logout(
        &self,
        _: Request<auth::LogoutRequest>,
    ) -> Result<Response<auth::LogoutResponse>, Status> {
        let mut response = Response::new(auth::LogoutResponse {
            status: "logged_out".into(),
        });
        response
            .metadata_mut()
            .insert("kontor-clear-session", "1".parse().unwrap());
        Ok(response)
    }

    async fn get_session(
        &self,
        request: Request<auth::GetSessionRequest>,
    ) -> Result<Response<auth::GetSessionResponse>, Status> {
        let user_id = rpc::caller(&request)?.user_id()?;
        Ok(Response::new(auth::GetSessionResponse {
            user_id,
            role: auth::Role::User.into(),
        }))
    }
}

#[tonic::async_trait]
impl AccountService for Bank {
    async fn create_user(
        &self,
        request: Request<account::CreateUserRequest>,
    ) -> Result<Response<account::CreateUserResponse>, Status> {
        if request.get_ref().name.is_empty() {
            return Err(error::invalid([
                ("name", "must not be empty"),
                ("request_id", "must be a UUID"),
            ]));
        }
        Ok(Response::new(account::CreateUserResponse { id: 3 }))
    }

    async fn get_user(
        &self,
        request: Request<account::GetUserRequest>,
    ) -> Result<Response<account::GetUserResponse>, Status> {
        match request.get_ref().id {
            500 => Err(Status::internal(SECRET)),
            502 => Err(Status::unknown(SECRET)),
            id @ 1 => {
                let user = account::User {
                    id,
                    name: "Alice".into(),
                    email: Some("alice@example.com".into()),
                    balance: Some(1_000),
                    currency: None,
                };
                Ok(Response::new(account::GetUserResponse { user: Some(user) }))
            }
            _ => Err(error::reject(Code::NotFound, "USER_NOT_FOUND", "User not found")),
        }
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<chat::SubscribeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ChatService for Bank {
    type SubscribeStream = Messages;

    /// `subscribed`, one message for each position asked for, then silence.
    async fn subscribe(
        &self,
        request: Request<chat::SubscribeRequest>,
    ) -> Result<Response<Messages>, Status> {
        use chat::subscribe_response::Event;
        let messages = request.into_inner().positions.into_iter().map(|position| {
            Event::Message(chat::Message {
                room_id: position.room_id,
                ..Default::default()
            })
        });
        let events = std::iter::once(Event::Subscribed(chat::Subscribed::default())).chain(messages);
        let events = stream::iter(events).map(|event| Ok(chat::SubscribeResponse { event: Some(event) }));
        Ok(Response::new(Box::pin(events.chain(stream::pending()))))
    }

    async fn list_direct_messages(
        &self,
        _: Request<chat::ListDirectMessagesRequest>,
    ) -> Result<Response<chat::ListDirectMessagesResponse>, Status> {
        // larger than any window or frame on the way
        let message = chat::Message {
            content: "x".repeat(4_096),
            ..Default::default()
        };
        let messages = vec![message; 1_000];
        Ok(Response::new(chat::ListDirectMessagesResponse {
            messages,
            previous_page_token: None,
        }))
    }

    async fn send_direct_message(
        &self,
        request: Request<chat::SendDirectMessageRequest>,
    ) -> Result<Response<chat::SendDirectMessageResponse>, Status> {
        let message_id = request.into_inner().message_id;
        let status = "sent".into();
        Ok(Response::new(chat::SendDirectMessageResponse {
            status,
            message_id,
            ..Default::default()
        }))
    }

    async fn create_room(
        &self,
        _: Request<chat::CreateRoomRequest>,
    ) -> Result<Response<chat::CreateRoomResponse>, Status> {
        Err(Status::invalid_argument("a library's own words"))
    }

    async fn list_rooms(
        &self,
        _: Request<chat::ListRoomsRequest>,
    ) -> Result<Response<chat::ListRoomsResponse>, Status> {
        Ok(Response::new(chat::ListRoomsResponse::default()))
    }

    async fn send_message(
        &self,
        _: Request<chat::SendMessageRequest>,
    ) -> Result<Response<chat::SendMessageResponse>, Status> {
        panic!("an upstream that breaks")
    }

    async fn list_messages(
        &self,
        _: Request<chat::ListMessagesRequest>,
    ) -> Result<Response<chat::ListMessagesResponse>, Status> {
        Err(error::overloaded())
    }
}
