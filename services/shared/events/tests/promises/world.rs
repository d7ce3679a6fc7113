//! A database and topics of one test.

use std::{collections::BTreeMap, future::Future, time::Duration};

use events::{Config, Outgoing, outbox};
use lifecycle::Lifecycle;
use local::Infra;
use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions, NewPartitions},
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

pub struct World {
    pub pool: PgPool,
    pub config: Config,
    pub lifecycle: Lifecycle,
    infra: Infra,
}

/// A record as a stranger's consumer sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub partition: i32,
    pub key: String,
    pub payload: String,
    pub headers: BTreeMap<String, String>,
}

impl World {
    pub async fn start(topics: &[&str]) -> Self {
        let infra = Infra::from_env()
            .unwrap()
            .expect("servers to test on: run the tests with tests/run");
        let name = format!("events_{}", Uuid::new_v4().simple());
        infra.create_database(&name).await.unwrap();
        let pool = PgPoolOptions::new()
            .connect(&infra.postgres_url(&name))
            .await
            .unwrap();
        sqlx::raw_sql(outbox::SCHEMA).execute(&pool).await.unwrap();
        sqlx::raw_sql(events::inbox::SCHEMA).execute(&pool).await.unwrap();
        sqlx::raw_sql("CREATE TABLE effects (event text NOT NULL)")
            .execute(&pool)
            .await
            .unwrap();
        let config = Config {
            brokers: vec![infra.kafka_brokers().to_owned()],
            topic_prefix: format!("{name}."),
            ..Config::default()
        };
        let world = Self {
            pool,
            config,
            lifecycle: Lifecycle::new(Duration::from_secs(1)),
            infra,
        };
        for topic in topics {
            world.create_topic(topic).await;
        }
        world
    }

    pub async fn create_topic(&self, topic: &str) {
        self.infra
            .create_topics(&[self.config.name(topic)])
            .await
            .unwrap();
    }

    pub async fn delete_topic(&self, topic: &str) {
        let deleted = self
            .admin()
            .delete_topics(&[&self.config.name(topic)], &AdminOptions::new())
            .await
            .unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.config.brokers.join(","));
        client
    }

    fn admin(&self) -> AdminClient<rdkafka::client::DefaultClientContext> {
        self.client().create().unwrap()
    }

    pub async fn grow(&self, topic: &str, partitions: usize) {
        let topic = self.config.name(topic);
        let more = NewPartitions::new(&topic, partitions);
        let made = self
            .admin()
            .create_partitions([&more], &AdminOptions::new())
            .await
            .unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Enqueues in a transaction of its own.
    pub async fn enqueue(&self, topic: &str, key: &str, payload: &str) {
        let mut transaction = postgres::begin(&self.pool).await.unwrap();
        let event = Outgoing {
            topic,
            key,
            event_type: "kontor.test.v1.Event",
            payload: payload.as_bytes(),
        };
        outbox::enqueue(&mut transaction, &event).await.unwrap();
        transaction.commit().await.unwrap();
    }

    pub async fn waiting(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub async fn drained(&self) {
        eventually("the outbox is empty", async || self.waiting().await == 0).await;
    }

    /// All records of a topic so far, with the order of each partition kept.
    pub async fn read_all(&self, topic: &str) -> Vec<Seen> {
        let mut client = self.client();
        client
            .set("group.id", Uuid::new_v4().to_string())
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true");
        let topic = self.config.name(topic);
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client.create().unwrap();
            let partitions = consumer
                .fetch_metadata(Some(&topic), Duration::from_secs(10))
                .unwrap();
            let mut open = partitions.topics()[0].partitions().len();
            let mut assignment = rdkafka::TopicPartitionList::new();
            for partition in partitions.topics()[0].partitions() {
                assignment
                    .add_partition_offset(&topic, partition.id(), rdkafka::Offset::Beginning)
                    .unwrap();
            }
            consumer.assign(&assignment).unwrap();
            let mut seen = Vec::new();
            while open > 0 {
                match consumer.poll(Duration::from_secs(10)) {
                    Some(Ok(message)) => seen.push(see(&message)),
                    Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => open -= 1,
                    Some(Err(error)) => panic!("{error}"),
                    None => {}
                }
            }
            seen
        })
        .await
        .unwrap()
    }

    pub async fn effects(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT event FROM effects ORDER BY event")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Ends everything the way a service does.
    pub async fn stop(self) {
        self.lifecycle.drain();
        let served = std::future::ready(Ok::<(), std::io::Error>(()));
        tokio::time::timeout(Duration::from_secs(10), self.lifecycle.finish(served))
            .await
            .expect("the shutdown is bounded")
            .unwrap();
    }
}

fn see(message: &BorrowedMessage<'_>) -> Seen {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    Seen {
        partition: message.partition(),
        key: text(message.key()),
        payload: text(message.payload()),
        headers: message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter())
            .map(|header| (header.key.to_owned(), text(header.value)))
            .collect(),
    }
}

/// The first occurrence of each payload, for each key in the order of the records.
pub fn first_of_each(seen: &[Seen]) -> BTreeMap<String, Vec<String>> {
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in seen {
        let payloads = by_key.entry(record.key.clone()).or_default();
        if !payloads.contains(&record.payload) {
            payloads.push(record.payload.clone());
        }
    }
    by_key
}

/// Waits for a condition, half a minute.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
