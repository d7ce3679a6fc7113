//! A chat of one test: its own database and topics, instances in this process, clients over gRPC.

use std::{
    collections::BTreeMap,
    future::Future,
    thread::{self, JoinHandle},
    time::Duration,
};

use channel::{Channel, Stack};
use events::{Outgoing, Relay, outbox};
use lifecycle::{Failure, Lifecycle};
use local::Infra;
use prost::Message as _;
use proto::{
    account::v1::{UserChanged, UserStatus, directory_service_server::DirectoryServiceServer},
    chat::v1::{
        ChatEvent, CreateRoomRequest, Message, RoomPosition, SendDirectMessageRequest,
        SendDirectMessageResponse, SendMessageRequest, SubscribeRequest, SubscribeResponse,
        chat_service_client::ChatServiceClient, subscribe_response::Event,
    },
};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rpc::{Caller, caller::Key, process::Config as _, server::Routes};
use settings::Reader;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::net::TcpListener;
use tonic::{Status, Streaming};
use uuid::Uuid;

use crate::directory::Directory;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub type Client = ChatServiceClient<Stack>;

pub struct World {
    pub pool: PgPool,
    pub directory: Directory,
    infra: Infra,
    name: String,
    account: String,
    lifecycle: Lifecycle,
    processes: Vec<JoinHandle<Result<(), Failure>>>,
}

/// A running instance of chat.
pub struct Instance {
    pub lifecycle: Lifecycle,
    address: String,
}

impl World {
    /// Servers and users 1 to 9, but no chat yet.
    pub async fn start() -> Self {
        let infra = Infra::from_env()
            .unwrap()
            .expect("servers to test on: run the tests with tests/run");
        let name = format!("chat_{}", Uuid::new_v4().simple());
        infra.create_database(&name).await.unwrap();
        let topics = ["chat.messages", "account.users"].map(|topic| format!("{name}.{topic}"));
        infra.create_topics(&topics).await.unwrap();
        let pool = PgPoolOptions::new()
            .connect(&infra.postgres_url(&name))
            .await
            .unwrap();
        let directory = Directory::default();
        (1..=9).for_each(|user| directory.set(user, UserStatus::Active));
        let lifecycle = Lifecycle::new(Duration::ZERO);
        let (listener, account) = listen();
        let routes = Routes::default().with(DirectoryServiceServer::new(directory.clone()));
        let server = config(&infra, &name, &account, &[]).server;
        let life = lifecycle.clone();
        let process = process(async move || {
            let listener = TcpListener::from_std(listener).unwrap();
            life.finish(rpc::server::serve(listener, routes, &server, &life))
                .await
        });
        Self {
            pool,
            directory,
            infra,
            name,
            account,
            lifecycle,
            processes: vec![process],
        }
    }

    /// Starts an instance and waits until it is ready.
    pub async fn instance(&mut self, settings: &[(&str, &str)]) -> Instance {
        let (listener, address) = listen();
        let config = config(&self.infra, &self.name, &self.account, settings);
        let lifecycle = Lifecycle::new(config.server.grace);
        let life = lifecycle.clone();
        self.processes.push(process(async move || {
            chat::run(config, TcpListener::from_std(listener).unwrap(), life).await
        }));
        let instance = Instance { lifecycle, address };
        eventually("the instance is ready", async || instance.is_ready().await).await;
        instance
    }

    /// A client of an instance, as a user.
    pub fn client(&self, instance: &Instance, user_id: i64) -> Client {
        let channel = Channel::new("chat", vec![instance.address.clone()], None, &self.lifecycle);
        let caller = Caller::User {
            user_id,
            operator: false,
            session: None,
        };
        ChatServiceClient::new(Stack::new(channel, key(), "gateway").on_behalf_of(caller))
    }

    /// What account tells of a user through Kafka.
    pub async fn user_changed(&self, user_id: i64, status: UserStatus) {
        // an outbox of its own, in a database of its own, as account has
        let name = format!("account_{}", Uuid::new_v4().simple());
        self.infra.create_database(&name).await.unwrap();
        let pool = PgPoolOptions::new()
            .connect(&self.infra.postgres_url(&name))
            .await
            .unwrap();
        sqlx::raw_sql(outbox::SCHEMA).execute(&pool).await.unwrap();
        let event = UserChanged {
            user_id,
            status: status.into(),
        };
        let outgoing = Outgoing {
            topic: "account.users",
            key: &user_id.to_string(),
            event_type: "kontor.account.v1.UserChanged",
            payload: &event.encode_to_vec(),
        };
        outbox::enqueue(&mut pool.acquire().await.unwrap(), &outgoing)
            .await
            .unwrap();
        let lifecycle = Lifecycle::new(Duration::ZERO);
        Relay::start(
            &pool,
            &config(&self.infra, &self.name, &self.account, &[]).kafka,
            &lifecycle,
        );
        eventually("account's outbox is empty", async || {
            let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
                .fetch_one(&pool)
                .await
                .unwrap();
            waiting == 0
        })
        .await;
        stop(&lifecycle).await;
    }

    /// Stores a message whose event is lost, as no outbox would: what happens when Kafka loses a record.
    pub async fn store_in_silence(&self, room: i64, sender: i64, content: &str) {
        sqlx::query(
            "WITH next AS (UPDATE rooms SET last_seq = last_seq + 1 WHERE id = $1 RETURNING last_seq)
             INSERT INTO messages (id, room_id, seq, sender_id, content)
             SELECT gen_random_uuid(), $1, last_seq, $2, $3 FROM next",
        )
        .bind(room)
        .bind(sender)
        .bind(content)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Gives the topic of messages another partition: the consumers begin anew.
    pub async fn grow_topic(&self) {
        let mut client = rdkafka::ClientConfig::new();
        client.set("bootstrap.servers", self.infra.kafka_brokers());
        let admin: AdminClient<_> = client.create().unwrap();
        let topic = format!("{}.chat.messages", self.name);
        let grown = admin
            .create_partitions([&NewPartitions::new(&topic, 7)], &AdminOptions::new())
            .await
            .unwrap();
        assert!(grown.iter().all(Result::is_ok), "{grown:?}");
    }

    /// Publishes an event once more, as a relay may.
    pub async fn publish_again(&self, event: ChatEvent, room: i64) {
        let outgoing = Outgoing {
            topic: "chat.messages",
            key: &room.to_string(),
            event_type: "kontor.chat.v1.ChatEvent",
            payload: &event.encode_to_vec(),
        };
        outbox::enqueue(&mut self.pool.acquire().await.unwrap(), &outgoing)
            .await
            .unwrap();
    }

    /// Stops everything, as a signal would, and checks that it ended well.
    pub async fn stop(self, instances: &[Instance]) {
        for instance in instances {
            instance.lifecycle.drain();
        }
        self.lifecycle.drain();
        let ended = tokio::task::spawn_blocking(move || {
            self.processes
                .into_iter()
                .for_each(|process| process.join().unwrap().unwrap());
        });
        tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("the shutdown is bounded")
            .unwrap();
    }
}

impl Instance {
    async fn is_ready(&self) -> bool {
        let Ok(endpoint) = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)) else {
            return false;
        };
        let Ok(channel) = endpoint.connect().await else {
            return false;
        };
        let request = tonic_health::pb::HealthCheckRequest {
            service: "kontor.chat.v1.ChatService".to_owned(),
        };
        let answer = tonic_health::pb::health_client::HealthClient::new(channel)
            .check(request)
            .await;
        answer.is_ok_and(|answer| answer.get_ref().status() == tonic_health::ServingStatus::Serving.into())
    }
}

/// Runs something on a runtime of its own, as a process would.
fn process<F>(main: impl FnOnce() -> F + Send + 'static) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + 'static,
{
    thread::spawn(move || tokio::runtime::Runtime::new().unwrap().block_on(main()))
}

fn listen() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn key() -> Key {
    Key::new(&SECRET.to_owned().into()).unwrap()
}

fn config(infra: &Infra, name: &str, account: &str, settings: &[(&str, &str)]) -> chat::Config {
    let mut variables: BTreeMap<String, String> = BTreeMap::from(
        [
            ("KONTOR_LISTEN", "127.0.0.1:0"),
            ("KONTOR_DATABASE_URL", &infra.postgres_url(name)),
            ("KONTOR_KAFKA_BROKERS", infra.kafka_brokers()),
            ("KONTOR_KAFKA_TOPIC_PREFIX", &format!("{name}.")),
            ("KONTOR_CALLER_SECRET", SECRET),
            ("KONTOR_ACCOUNT_ADDRESSES", account),
            ("KONTOR_GRACE_MS", "3000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    variables.extend(
        settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    chat::Config::read(&mut Reader::from_map(variables)).unwrap()
}

async fn stop(lifecycle: &Lifecycle) {
    lifecycle.drain();
    lifecycle
        .finish(std::future::ready(Ok::<(), std::io::Error>(())))
        .await
        .unwrap();
}

pub fn direct(sender_id: i64, receiver_id: i64, content: &str, id: Uuid) -> SendDirectMessageRequest {
    SendDirectMessageRequest {
        receiver_id,
        sender_id,
        content: content.to_owned(),
        message_id: id.to_string(),
    }
}

/// Writes a direct message that must be accepted.
pub async fn write(client: &mut Client, from: i64, to: i64, content: &str) -> SendDirectMessageResponse {
    client
        .send_direct_message(direct(from, to, content, Uuid::new_v4()))
        .await
        .unwrap()
        .into_inner()
}

/// Writes to a room; the message must be accepted.
pub async fn post(client: &mut Client, room_id: i64, content: &str) -> i64 {
    let message = SendMessageRequest {
        room_id,
        content: content.to_owned(),
        message_id: Uuid::new_v4().to_string(),
    };
    client.send_message(message).await.unwrap().into_inner().seq
}

pub async fn create_room(client: &mut Client, member_ids: &[i64]) -> i64 {
    let room = CreateRoomRequest {
        name: "harbour".to_owned(),
        member_ids: member_ids.to_vec(),
        request_id: Uuid::new_v4().to_string(),
    };
    client.create_room(room).await.unwrap().into_inner().room_id
}

/// A subscription and where its rooms began.
pub struct Subscription {
    pub begins: Vec<RoomPosition>,
    pub stream: Streaming<SubscribeResponse>,
}

impl Subscription {
    pub async fn begin(client: &mut Client, positions: &[(i64, i64)]) -> Result<Self, Status> {
        let positions = positions
            .iter()
            .map(|(room_id, after_seq)| RoomPosition {
                room_id: *room_id,
                after_seq: *after_seq,
            })
            .collect();
        let mut stream = client
            .subscribe(SubscribeRequest { positions })
            .await?
            .into_inner();
        let Some(Event::Subscribed(first)) = answer(&mut stream).await?.and_then(|answer| answer.event)
        else {
            panic!("the first answer is not `subscribed`");
        };
        Ok(Self {
            begins: first.positions,
            stream,
        })
    }

    /// The next message, or the status with which the subscription ends.
    pub async fn next(&mut self) -> Result<Message, Status> {
        match answer(&mut self.stream).await?.and_then(|answer| answer.event) {
            Some(Event::Message(message)) => Ok(message),
            other => panic!("not a message: {other:?}"),
        }
    }

    /// The next messages of one room must have these positions.
    pub async fn expect(&mut self, room: i64, seqs: std::ops::RangeInclusive<i64>) {
        for seq in seqs {
            let message = self.next().await.unwrap();
            assert_eq!((message.room_id, message.seq), (room, seq));
        }
    }
}

async fn answer(stream: &mut Streaming<SubscribeResponse>) -> Result<Option<SubscribeResponse>, Status> {
    tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("an answer in time")
}

/// Waits for a condition.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn reason(status: &Status) -> String {
    rpc::error::reason(status).unwrap_or_default()
}
