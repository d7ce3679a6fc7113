//! The service as its process runs it, and calls to it as the gateway makes them.

use std::{collections::BTreeMap, thread::JoinHandle, time::Duration};

use channel::{Channel, Stack};
use lifecycle::Lifecycle;
use prost::Message;
use proto::transfer::v1::transfer_service_client::TransferServiceClient;
use rpc::{Caller, caller::Key, process::Config as _};
use settings::Reader;
use sqlx::ConnectOptions as _;
use tokio::net::TcpListener;
use tonic::{
    Code, Status,
    codegen::{
        Bytes,
        http::{HeaderMap, HeaderValue},
    },
};
use transfer::Config;

use super::world::World;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// What is read of an answer: as much as the gateway does.
const LONGEST_ANSWER: usize = 32 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_mins(1);

/// A running service.
pub struct Server {
    channel: Channel,
    key: Key,
    lifecycle: Lifecycle,
    process: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lifecycle.drain();
        let ended = self.process.take().map(JoinHandle::join);
        assert!(
            matches!(ended, Some(Ok(()))) || std::thread::panicking(),
            "the service failed"
        );
    }
}

pub fn user(user_id: i64) -> Caller {
    Caller::User {
        user_id,
        operator: false,
        session: None,
    }
}

pub fn operator() -> Caller {
    Caller::User {
        user_id: 1_000,
        operator: true,
        session: None,
    }
}

impl Server {
    /// Serves the ledger of a world.
    pub fn start(world: &World) -> Self {
        let database = world.database.options.to_url_lossy().to_string();
        let settings: BTreeMap<String, String> = [
            ("KONTOR_DATABASE_URL", database.as_str()),
            ("KONTOR_CALLER_SECRET", SECRET),
            ("KONTOR_LEDGER_KEY", "a key for tests, of more than 32 bytes"),
            // none: the journal is published later
            ("KONTOR_KAFKA_BROKERS", "127.0.0.1:1"),
            ("KONTOR_DEADLINE_MS", "30000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let config = Config::read(&mut Reader::from_map(settings))
            .map_err(|errors| errors.to_string())
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let lifecycle = Lifecycle::new(Duration::ZERO);
        let serving = lifecycle.clone();
        // as a process of its own would: with a runtime of its own
        let process = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                transfer::run(config, listener, serving).await.unwrap();
            });
        });
        Self {
            channel: Channel::new("transfer", vec![address], None, world.lifecycle()),
            key: Key::new(&SECRET.into()).unwrap(),
            lifecycle,
            process: Some(process),
        }
    }

    /// Calls a method with one message.
    pub async fn call<A: Message + Default>(
        &self,
        by: &Caller,
        path: &'static str,
        request: &impl Message,
    ) -> Result<A, Status> {
        self.call_within("30S", by, path, request).await
    }

    /// The same with a deadline, as the header has it.
    pub async fn call_within<A: Message + Default>(
        &self,
        timeout: &'static str,
        by: &Caller,
        path: &'static str,
        request: &impl Message,
    ) -> Result<A, Status> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-timeout", HeaderValue::from_static(timeout));
        headers.insert(rpc::caller::HEADER, self.key.sign("gateway", by).unwrap());
        let message = request.encode_to_vec();
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        let framed = Bytes::from(framed);
        let answer = self.channel.unary(path, &headers, &framed, LONGEST_ANSWER);
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap()?;
        let status = answer
            .trailers
            .as_ref()
            .and_then(Status::from_header_map)
            .or_else(|| Status::from_header_map(&answer.headers))
            .unwrap();
        if status.code() != Code::Ok {
            return Err(status);
        }
        Ok(A::decode(answer.data.slice(5..)).unwrap())
    }

    /// A client for streams.
    pub fn client(&self, by: Caller) -> TransferServiceClient<Stack> {
        let stack = Stack::new(self.channel.clone(), self.key.clone(), "gateway");
        TransferServiceClient::new(stack.on_behalf_of(by))
    }
}
