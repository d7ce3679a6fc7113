use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use settings::{Invalid, Reader};

use crate::Security;

/// Where Kafka is, and how it is reached.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Brokers to begin with, `host:port` each.
    pub brokers: Vec<String>,
    /// Stands before the name of every topic and consumer group, so that several kontors can share a cluster.
    pub topic_prefix: String,
    /// How the connections are protected.
    pub security: Security,
}

impl Config {
    /// Reads `KONTOR_KAFKA_BROKERS` and the other settings of Kafka.
    pub fn read(reader: &mut Reader) -> Result<Self, Invalid> {
        let brokers = reader.list("KONTOR_KAFKA_BROKERS", "Kafka brokers, host:port each");
        let topic_prefix = reader.or(
            "KONTOR_KAFKA_TOPIC_PREFIX",
            "stands before each topic name",
            String::new(),
        );
        let security = Security::read(reader);
        Ok(Self {
            brokers: brokers?,
            topic_prefix: topic_prefix?,
            security: security?,
        })
    }

    /// The full name of a topic or consumer group.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    /// What every client has in common, and all that one for administration needs.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", "kontor")
            // a broker that comes back is found at once, instead of after 10 s
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set_log_level(RDKafkaLogLevel::Warning);
        self.security.apply(&mut client);
        client
    }

    /// What every consumer has in common: memory is bounded, and offsets are stored after the work, by hand.
    pub fn consumer(&self) -> ClientConfig {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const TLS: (&str, &str) = ("KONTOR_KAFKA_TLS", "true");
    const USERNAME: (&str, &str) = ("KONTOR_KAFKA_USERNAME", "kontor");
    const PASSWORD: (&str, &str) = ("KONTOR_KAFKA_PASSWORD", "hunter2");

    /// What is read, and what is wrong with it. Whatever it is, the password is not shown.
    fn read(settings: &[(&str, &str)]) -> (Result<Config, Invalid>, String) {
        let variables: BTreeMap<_, _> = [("KONTOR_KAFKA_BROKERS", "kafka:9092")]
            .iter()
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut r = Reader::from_map(variables);
        let config = Config::read(&mut r);
        let problems = r
            .finish()
            .map_or_else(|errors| errors.to_string(), |()| String::new());
        let shown = format!("{config:?} {problems} {} {}", r.describe(), r.describe().values());
        assert!(!shown.contains(PASSWORD.1), "{shown}");
        (config, problems)
    }

    #[test]
    fn every_client_is_protected_as_the_settings_say() {
        for (settings, protocol) in [
            (vec![], "plaintext"),
            (vec![TLS], "ssl"),
            (vec![USERNAME, PASSWORD], "sasl_plaintext"),
            (vec![TLS, USERNAME, PASSWORD], "sasl_ssl"),
        ] {
            let config = read(&settings).0.unwrap();
            let (tls, login) = (settings.contains(&TLS), settings.contains(&PASSWORD));
            for client in [config.client(), config.consumer(), config.producer()] {
                for (name, value) in [
                    ("security.protocol", Some(protocol)),
                    ("ssl.endpoint.identification.algorithm", tls.then_some("https")),
                    ("sasl.username", login.then_some(USERNAME.1)),
                    ("sasl.password", login.then_some(PASSWORD.1)),
                    ("sasl.mechanisms", login.then_some("SCRAM-SHA-512")),
                ] {
                    assert_eq!(client.get(name), value, "{name} of {settings:?}");
                }
            }
        }
    }

    #[test]
    fn a_password_whose_file_is_not_there_is_none() {
        let file = ("KONTOR_KAFKA_PASSWORD_FILE", "/nowhere/password");
        assert!(read(&[file]).0.unwrap().security.login.is_none());
        let (_, problems) = read(&[file, USERNAME]);
        assert!(
            problems.starts_with("KONTOR_KAFKA_PASSWORD: is required"),
            "{problems}"
        );
    }

    #[test]
    fn what_does_not_fit_together_is_told_at_once() {
        let half = "KONTOR_KAFKA_PASSWORD: is required where KONTOR_KAFKA_USERNAME is set (or KONTOR_KAFKA_PASSWORD_FILE)";
        let plain = ("KONTOR_KAFKA_SASL_MECHANISM", "PLAIN");
        for (settings, told) in [
            (vec![USERNAME], vec![half]),
            (
                vec![PASSWORD],
                vec!["KONTOR_KAFKA_USERNAME: is required where KONTOR_KAFKA_PASSWORD is set"],
            ),
            (
                vec![USERNAME, PASSWORD, plain],
                vec![
                    "KONTOR_KAFKA_SASL_MECHANISM: PLAIN sends the password as it is: it needs KONTOR_KAFKA_TLS=true",
                ],
            ),
            (
                vec![("KONTOR_KAFKA_TLS", "perhaps"), USERNAME],
                vec![
                    "KONTOR_KAFKA_TLS: provided string was not `true` or `false` (found \"perhaps\")",
                    half,
                ],
            ),
            (
                vec![("KONTOR_KAFKA_SASL_MECHANISM", "GSSAPI")],
                vec![
                    "KONTOR_KAFKA_SASL_MECHANISM: is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 (found \"GSSAPI\")",
                ],
            ),
        ] {
            let (_, problems) = read(&settings);
            assert_eq!(problems.lines().collect::<Vec<_>>(), told);
        }
        assert!(read(&[TLS, USERNAME, PASSWORD, plain]).0.is_ok());
    }

    #[test]
    fn an_authority_is_a_certificate_and_for_tls() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        std::fs::write(&file, tls::testing::Authority::new().certificate).unwrap();
        let setting = ("KONTOR_KAFKA_CA_FILE", file.to_str().unwrap());
        let (_, problems) = read(&[setting]);
        assert_eq!(
            problems,
            "KONTOR_KAFKA_TLS: must be true where KONTOR_KAFKA_CA_FILE is set"
        );
        let config = read(&[setting, TLS]).0.unwrap();
        assert_eq!(config.client().get("ssl.ca.location"), Some(setting.1));
        std::fs::write(&file, "nothing").unwrap();
        let (_, problems) = read(&[setting, TLS]);
        assert!(problems.starts_with("KONTOR_KAFKA_CA_FILE: "), "{problems}");
    }
}
