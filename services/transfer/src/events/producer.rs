//! Hands records to Kafka and waits until all of them are acknowledged.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use events::{CONTENT_TYPE, EVENT_ID, EVENT_TYPE, PROTOBUF};
use rdkafka::{
    ClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};

use super::{TOPIC, encode};

/// Records that a producer holds at most: more than a page of the relay.
pub(super) const MAX_RECORDS: usize = 20_000;
/// Without an acknowledgement for so long the producer is given up. Shorter than its own limit for a message: were these to
/// end one by one, a later one of the same key could overtake.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the thread sleeps between two looks at first, and when Kafka is slow. A page takes some milliseconds: to look more often
/// only takes the cores from those who make the next one.
const SHORT_LOOK: Duration = Duration::from_millis(4);
const LONG_LOOK: Duration = Duration::from_millis(20);

/// Why records were not acknowledged. Some of them may have arrived nevertheless.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("cannot make a Kafka producer: {0}")]
    Producer(#[source] KafkaError),
    #[error("Kafka does not take a record: {0}")]
    Refused(RDKafkaErrorCode),
    #[error("no acknowledgement for {PATIENCE:?}")]
    Silent,
    #[error("the thread that publishes has crashed")]
    Crashed,
    #[error("the process stops")]
    Stopped,
}

/// A producer of one thread. After a failure it is of no more use.
pub(super) struct Producer {
    inner: BaseProducer<Counting>,
    topic: String,
    sent: usize,
}

/// Counts what was reported.
#[derive(Default)]
struct Counting {
    reported: AtomicUsize,
    /// The first error.
    failed: OnceLock<RDKafkaErrorCode>,
}

impl ClientContext for Counting {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        // what matters of it is said once, by the relay
        tracing::debug!(target: "librdkafka", facility, "{line}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::error(&error, reason);
    }
}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = delivery {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            // the first one stays
            let _ = self.failed.set(code);
            tracing::debug!(%code, "not published");
        }
        self.reported.fetch_add(1, Ordering::Relaxed);
    }
}

impl Producer {
    pub fn new(config: &kafka::Config) -> Result<Self, Failed> {
        let mut client = config.producer();
        client
            // whole pages come at once: a request has hundreds of records instead of a few
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", MAX_RECORDS.to_string())
            .set("queue.buffering.max.kbytes", "32768")
            // an error within a page must not let later records of the same key through: everything stops instead
            .set("enable.gapless.guarantee", "true");
        let inner =
            BaseProducer::from_config_and_context(&client, Counting::default()).map_err(Failed::Producer)?;
        Ok(Self {
            inner,
            topic: config.name(TOPIC),
            sent: 0,
        })
    }

    /// Queues a record.
    pub fn send(&mut self, record: &encode::Encoded<'_>) -> Result<(), Failed> {
        let header = |key, value| Header {
            key,
            value: Some(value),
        };
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(header(EVENT_ID, record.event_id))
            .insert(header(EVENT_TYPE, encode::EVENT_TYPE))
            .insert(header(CONTENT_TYPE, PROTOBUF));
        let record = BaseRecord::to(&self.topic)
            .key(record.key)
            .payload(record.payload)
            .headers(headers);
        match self.inner.send(record) {
            Ok(()) => {
                self.sent += 1;
                Ok(())
            }
            Err((error, _)) => Err(Failed::Refused(
                error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
            )),
        }
    }

    /// Waits until all queued records are acknowledged. Blocks its thread.
    pub fn settle(&self, stop: &AtomicBool) -> Result<(), Failed> {
        let begin = Instant::now();
        let mut seen = (0, begin);
        let context = self.inner.context();
        loop {
            // without a time to wait: with one, the binding polls on and on through the last part of a millisecond
            self.inner.poll(Duration::ZERO);
            if let Some(code) = context.failed.get() {
                return Err(Failed::Refused(*code));
            }
            let reported = context.reported.load(Ordering::Relaxed);
            if reported >= self.sent {
                return Ok(());
            }
            if reported != seen.0 {
                // there may be more
                seen = (reported, Instant::now());
                continue;
            }
            if seen.1.elapsed() > PATIENCE {
                return Err(Failed::Silent);
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Failed::Stopped);
            }
            std::thread::sleep(if begin.elapsed() < LONG_LOOK {
                SHORT_LOOK
            } else {
                LONG_LOOK
            });
        }
    }
}
