//! Consumers of Kafka topics. Both kinds are owned by the lifecycle and start again by themselves after an error.

mod broadcast;
mod forgotten;
mod group;

use std::{convert::Infallible, sync::Arc, time::Duration};

pub use broadcast::{Broadcast, Delivery};
pub use group::{Failed, Group, Handler};
use lifecycle::{Backoff, Lifecycle};
use rdkafka::{consumer::StreamConsumer, error::KafkaError};
use tokio::time::{Instant, sleep, timeout};

use self::forgotten::forgotten;
use crate::{Config, client::Consuming, metrics};

type Consumer = StreamConsumer<Consuming>;

/// How long a consumer may take to commit its offsets and to leave its group.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// A session that lasted this long was a good one: the next one begins without a pause.
const GOOD_SESSION: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("there is no topic {0}")]
    NoTopic(String),
    #[error("the topic's partitions have changed from {0} to {1}")]
    Repartitioned(usize, usize),
    #[error("it finds no broker, and a new one does")]
    Forgotten,
    #[error("a blocking call failed: {0}")]
    Blocking(#[from] tokio::task::JoinError),
}

/// What a kind of consumer does between the making of a consumer and its end.
trait Session: Send + 'static {
    /// The topic's name, and how to reach it.
    fn source(&self) -> (String, Config);

    /// Makes the consumer.
    fn open(&self) -> Result<Consumer, KafkaError>;

    /// Consumes until an error. Cancelled when the process stops.
    fn run(&mut self, consumer: &Arc<Consumer>) -> impl Future<Output = Result<Infallible, Ended>> + Send;

    /// The session is over; another begins after a pause.
    fn over(&mut self);
}

/// Runs one session after another until the process stops.
async fn supervise(
    mut session: impl Session,
    name: String,
    metrics: Arc<metrics::Consumer>,
    lifecycle: Lifecycle,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        let began = Instant::now();
        let ended = match session.open() {
            Ok(consumer) => {
                let consumer = Arc::new(consumer);
                let (topic, config) = session.source();
                let ended = tokio::select! {
                    () = lifecycle.stopping() => None,
                    ended = session.run(&consumer) => ended.err(),
                    ended = forgotten(consumer.clone(), topic, config) => Some(ended),
                };
                close(consumer).await;
                ended
            }
            Err(error) => Some(error.into()),
        };
        session.over();
        let Some(ended) = ended else { return };
        metrics.restarted();
        if began.elapsed() > GOOD_SESSION {
            backoff.reset();
        }
        if backoff.tries() == 0 {
            tracing::warn!(consumer = name, error = %ended, "a consumer stopped and starts again");
        } else {
            tracing::debug!(consumer = name, error = %ended, "a consumer stopped again");
        }
        tokio::select! {
            () = lifecycle.stopping() => return,
            () = sleep(backoff.next()) => {}
        }
    }
}

/// Closes a consumer, which commits its stored offsets and leaves its group, off the async threads: it blocks.
async fn close(consumer: Arc<Consumer>) {
    let closed = tokio::task::spawn_blocking(move || drop(consumer));
    if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
        tracing::debug!("a consumer did not close in time");
    }
}
