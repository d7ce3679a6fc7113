use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use settings::{Invalid, Reader};

/// Where Kafka is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Brokers to begin with, `host:port` each.
    pub brokers: Vec<String>,
    /// Stands before the name of every topic and consumer group, so that several kontors can share a cluster.
    pub topic_prefix: String,
}

impl Config {
    /// Reads `KONTOR_KAFKA_BROKERS` and `KONTOR_KAFKA_TOPIC_PREFIX`.
    pub fn read(reader: &mut Reader) -> Result<Self, Invalid> {
        let brokers = reader.list("KONTOR_KAFKA_BROKERS", "Kafka brokers, host:port each");
        let topic_prefix = reader.or(
            "KONTOR_KAFKA_TOPIC_PREFIX",
            "stands before each topic name",
            String::new(),
        );
        Ok(Self {
            brokers: brokers?,
            topic_prefix: topic_prefix?,
        })
    }

    /// The full name of a topic or consumer group.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    /// What every client has in common.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", "kontor")
            // a broker that comes back is found at once, instead of after 10 s
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set_log_level(RDKafkaLogLevel::Warning);
        client
    }

    /// What every consumer has in common: memory is bounded, and offsets are stored after the work, by hand.
    pub(crate) fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            .set("enable.auto.offset.store", "false")
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.max.bytes", "4194304")
            .set("max.partition.fetch.bytes", "1048576")
            .set("fetch.wait.max.ms", "500")
            // an empty partition is asked again soon, also after an error
            .set("fetch.error.backoff.ms", "100");
        client
    }

    /// An idempotent producer that keeps the order of each partition. For services whose own tables are the outbox.
    pub fn producer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // the same partition for a key as Java's clients; librdkafka's default differs
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "10000")
            .set("queue.buffering.max.kbytes", "16384")
            // Longer than the relay waits before it gives up a producer as a whole: were messages to time out one by one,
            // a later one of the same key could overtake.
            .set("message.timeout.ms", "60000")
            .set("request.timeout.ms", "10000")
            // a topic that is missing is said to be missing before the relay gives up for another reason
            .set("topic.metadata.propagation.max.ms", "5000");
        client
    }
}
