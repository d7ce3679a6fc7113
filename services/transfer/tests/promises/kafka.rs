//! The topic of the events of one ledger, as a stranger's consumer sees it.

use std::time::Duration;

use events::Config;
use local::Infra;
use prost::Message as _;
use proto::transfer::v1::{TransferEvent, transfer_event::Event};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::Headers as _,
};
use uuid::Uuid;

/// A record.
pub struct Seen {
    pub key: i64,
    pub id: Uuid,
    pub event: Event,
}

/// A fresh topic.
pub async fn topic() -> Config {
    let Some(infra) = Infra::from_env().unwrap() else {
        panic!("no servers to test on: run the tests with tests/run");
    };
    let config = Config {
        brokers: vec![infra.kafka_brokers().to_owned()],
        topic_prefix: format!("t{}.", Uuid::new_v4().simple()),
        ..Config::default()
    };
    infra
        .create_topics(&[config.name(transfer::events::TOPIC)])
        .await
        .unwrap();
    config
}

/// All records so far, with the order of each partition kept.
pub async fn read_all(config: &Config) -> Vec<Seen> {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", config.brokers.join(","))
        .set("group.id", Uuid::new_v4().to_string())
        .set("enable.partition.eof", "true");
    let topic = config.name(transfer::events::TOPIC);
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client.create().unwrap();
        let metadata = consumer
            .fetch_metadata(Some(&topic), Duration::from_secs(10))
            .unwrap();
        let mut assignment = rdkafka::TopicPartitionList::new();
        let mut open = 0;
        for partition in metadata.topics()[0].partitions() {
            assignment
                .add_partition_offset(&topic, partition.id(), rdkafka::Offset::Beginning)
                .unwrap();
            open += 1;
        }
        consumer.assign(&assignment).unwrap();
        let mut seen = Vec::new();
        while open > 0 {
            match consumer.poll(Duration::from_secs(10)) {
                Some(Ok(message)) => seen.push(see(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("{error}"),
                None => {}
            }
        }
        seen
    })
    .await
    .unwrap()
}

fn see(message: &impl rdkafka::Message) -> Seen {
    let header = |name: &str| {
        let headers = message.headers().unwrap();
        let value = headers.iter().find(|header| header.key == name).unwrap().value;
        String::from_utf8(value.unwrap().to_vec()).unwrap()
    };
    assert_eq!(header("event-type"), "kontor.transfer.v1.TransferEvent");
    assert_eq!(header("content-type"), "application/x-protobuf");
    Seen {
        key: std::str::from_utf8(message.key().unwrap())
            .unwrap()
            .parse()
            .unwrap(),
        id: Uuid::parse_str(&header("event-id")).unwrap(),
        event: TransferEvent::decode(message.payload().unwrap())
            .unwrap()
            .event
            .unwrap(),
    }
}
