//! On a real broker that speaks TLS and asks for a password: all kinds of clients get through with the right settings, and who is
//! refused, or does not trust the broker, hears of it soon. Broken on purpose: the password, the authority, the name of the host.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use kafka::Config;
use local::{Guard, Guarded};
use rdkafka::{
    ClientContext, Message as _,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use settings::Reader;
use tls::testing::Authority;

/// How soon a refusal must be said: librdkafka asks again within a second or so.
const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);
const TOPIC: &str = "things";

/// The settings of a client that gets through, with some of them replaced.
fn config(kafka: &Guarded, authority: &Path, replaced: &[(&str, &str)]) -> Config {
    let mut settings = BTreeMap::from([
        ("KONTOR_KAFKA_BROKERS", format!("127.0.0.1:{}", kafka.port())),
        ("KONTOR_KAFKA_TLS", "true".to_owned()),
        ("KONTOR_KAFKA_CA_FILE", authority.display().to_string()),
        ("KONTOR_KAFKA_USERNAME", "kontor".to_owned()),
        ("KONTOR_KAFKA_PASSWORD", "right".to_owned()),
    ]);
    settings.extend(replaced.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
    Config::read(&mut Reader::from_map(settings.collect())).unwrap()
}

async fn create_topic(config: &Config) {
    let admin: AdminClient<DefaultClientContext> = config.client().create().unwrap();
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
    let options = AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE));
    let made = admin.create_topics([&topic], &options).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// Sends a record, and receives it.
fn goes_through(config: &Config, text: &str) {
    let producer: BaseProducer = config.producer().create().unwrap();
    producer
        .send(BaseRecord::to(TOPIC).key("key").payload(text))
        .map_err(|(error, _)| error)
        .unwrap();
    producer.flush(PATIENCE).unwrap();
    let mut client = config.consumer();
    client.set("group.id", text).set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = client.create().unwrap();
    consumer.subscribe(&[TOPIC]).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(message) = consumer.poll(Duration::from_millis(100))
            && message.unwrap().payload() == Some(text.as_bytes())
        {
            return;
        }
    }
    panic!("{text} was not received within {PATIENCE:?}");
}

/// The first refusal that a client hears of, as it hears of all errors.
#[derive(Default)]
struct Listening(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl ClientContext for Listening {
    fn error(&self, error: KafkaError, reason: &str) {
        if kafka::is_refusal(&error) {
            let code = error.rdkafka_error_code().unwrap();
            self.0.lock().unwrap().get_or_insert((code, reason.to_owned()));
        }
    }
}

impl rdkafka::consumer::ConsumerContext for Listening {}

/// Why a client is refused, and that it learns nothing.
fn refusal(config: &Config) -> (RDKafkaErrorCode, String) {
    let client = BaseConsumer::from_config_and_context(&config.client(), Listening::default());
    let client: BaseConsumer<Listening> = client.unwrap();
    let begun = Instant::now();
    assert!(
        client
            .fetch_metadata(Some(TOPIC), Duration::from_millis(500))
            .is_err()
    );
    while begun.elapsed() < SOON {
        // an error comes by the way of records
        let _ = client.poll(Duration::from_millis(100));
        if let Some(heard) = client.context().0.lock().unwrap().take() {
            return heard;
        }
    }
    panic!("nothing was said within {SOON:?}");
}

#[tokio::test]
async fn a_record_goes_through_and_a_refusal_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let [known, unknown] =
        [("known.crt", &authority), ("unknown.crt", &stranger)].map(|(name, authority)| {
            let path = folder.path().join(name);
            std::fs::write(&path, &authority.certificate).unwrap();
            path
        });
    let issued = authority.issue("127.0.0.1");
    let kafka = Guarded::kafka(Guard {
        certificate: &issued.certificate,
        key: &issued.key,
        user: "kontor",
        password: "right",
    });
    let kafka = kafka.await.unwrap();

    create_topic(&config(&kafka, &known, &[])).await;
    goes_through(&config(&kafka, &known, &[]), "SCRAM-SHA-512");
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let chosen = [("KONTOR_KAFKA_SASL_MECHANISM", mechanism)];
        goes_through(&config(&kafka, &known, &chosen), mechanism);
    }

    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let wrong = [
            ("KONTOR_KAFKA_SASL_MECHANISM", mechanism),
            ("KONTOR_KAFKA_PASSWORD", "wrong"),
        ];
        let (code, reason) = refusal(&config(&kafka, &known, &wrong));
        assert_eq!(code, RDKafkaErrorCode::Authentication, "{reason}");
    }
    // the public authorities did not sign it either
    let system = config(&kafka, &known, &[("KONTOR_KAFKA_CA_FILE", "")]);
    // a certificate is for the address that it names
    let localhost = format!("localhost:{}", kafka.port());
    let renamed = config(&kafka, &known, &[("KONTOR_KAFKA_BROKERS", &localhost)]);
    for distrustful in [config(&kafka, &unknown, &[]), system, renamed] {
        let (code, reason) = refusal(&distrustful);
        assert_eq!(code, RDKafkaErrorCode::SSL, "{reason}");
        assert!(reason.contains("certificate verify failed"), "{reason}");
    }
    // the broker is well all the while
    goes_through(&config(&kafka, &known, &[]), "afterwards");
}
