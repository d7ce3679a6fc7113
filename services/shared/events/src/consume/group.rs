use std::{collections::HashMap, convert::Infallible, error::Error, sync::Arc, time::Duration};

use lifecycle::{Backoff, Lifecycle};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::{Consumer as _, StreamConsumer},
    error::KafkaError,
    message::BorrowedMessage,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::Instrument as _;

use super::{Consumer, Ended, Session, supervise};
use crate::{
    Config, Record,
    client::{Consuming, is_passing},
    metrics,
};

/// The longest that one record may take.
const HANDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// After so many tries a record is reported as stuck; it is tried on.
const TRIES_BEFORE_ALARM: u32 = 5;

/// Why a record was not processed. It is tried again.
pub type Failed = Box<dyn Error + Send + Sync>;

/// Processes records.
pub trait Handler: Send + Sync + 'static {
    /// Processes a record, in order within its partition. The same record may come again, after an error and after a restart:
    /// use [`crate::inbox::first_time`] in the transaction of the effect.
    fn handle(&self, record: &Record) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// A consumer group: each record is processed by one of its instances, at least once.
///
/// A record that fails is tried again with growing pauses, five times, and is then reported as stuck and tried on every minute.
/// Its partition waits, the others go on. It is never dropped.
#[derive(Clone, Debug)]
pub struct Group {
    ready: watch::Receiver<bool>,
}

impl Group {
    /// Starts to consume, from the oldest record when the group is new.
    pub fn start(
        name: &str,
        topic: &str,
        config: &Config,
        lifecycle: &Lifecycle,
        handler: impl Handler,
    ) -> Self {
        let (sender, ready) = watch::channel(false);
        let metrics = Arc::new(metrics::Consumer::new(name));
        let session = Member {
            name: name.to_owned(),
            topic: topic.to_owned(),
            config: config.clone(),
            ready: sender,
            handler,
            metrics: metrics.clone(),
            failing: HashMap::new(),
        };
        lifecycle.spawn(
            "group consumer",
            supervise(session, name.to_owned(), metrics, lifecycle.clone()),
        );
        Self { ready }
    }

    /// True while this instance is a member of the group.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }
}

/// A partition that stands still at a record which failed.
struct Failing {
    offset: i64,
    backoff: Backoff,
    again: Instant,
    paused: bool,
}

struct Member<H> {
    name: String,
    topic: String,
    config: Config,
    ready: watch::Sender<bool>,
    handler: H,
    metrics: Arc<metrics::Consumer>,
    failing: HashMap<i32, Failing>,
}

impl<H: Handler> Session for Member<H> {
    fn source(&self) -> (String, Config) {
        (self.config.name(&self.topic), self.config.clone())
    }

    fn open(&self) -> Result<Consumer, KafkaError> {
        let mut client = self.config.consumer();
        client
            .set("group.id", self.config.name(&self.name))
            // KIP-848: the broker assigns; a crashed member's partitions move within its session timeout, without a stop
            .set("group.protocol", "consumer")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000");
        StreamConsumer::from_config_and_context(
            &client,
            Consuming {
                ready: self.ready.clone(),
            },
        )
    }

    async fn run(&mut self, consumer: &Arc<Consumer>) -> Result<Infallible, Ended> {
        consumer.subscribe(&[&self.config.name(&self.topic)])?;
        loop {
            let again = self
                .failing
                .values()
                .filter(|failing| failing.paused)
                .map(|failing| failing.again)
                .min();
            tokio::select! {
                message = consumer.recv() => match message {
                    Ok(message) => self.process(consumer, message).await?,
                    Err(error) if is_passing(&error) => {
                        tracing::debug!(consumer = self.name, %error, "a broker is away");
                    }
                    Err(error) => return Err(error.into()),
                },
                () = at(again) => self.resume(consumer)?,
            }
        }
    }

    fn over(&mut self) {
        self.ready.send_replace(false);
        for (_, failing) in self.failing.drain() {
            if failing.backoff.tries() >= TRIES_BEFORE_ALARM {
                self.metrics.stuck(-1);
            }
        }
    }
}

impl<H: Handler> Member<H> {
    async fn process(&mut self, consumer: &Consumer, message: BorrowedMessage<'_>) -> Result<(), KafkaError> {
        let (partition, offset) = (message.partition(), message.offset());
        if self
            .failing
            .get(&partition)
            .is_some_and(|failing| failing.paused && offset > failing.offset)
        {
            // fetched before the pause took effect; it comes again after the record that failed
            return Ok(());
        }
        let record = Record::receive(&message, &self.topic, &self.name);
        drop(message);
        let handled = timeout(
            HANDLE_TIMEOUT,
            self.handler.handle(&record).instrument(record.span.clone()),
        );
        let error: Failed = match handled.await {
            Ok(Ok(())) => {
                self.metrics.consumed();
                self.done(consumer, partition, offset);
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(late) => late.into(),
        };
        self.metrics.failed();
        self.hold(consumer, partition, offset, &error)
    }

    fn done(&mut self, consumer: &Consumer, partition: i32, offset: i64) {
        if let Some(failing) = self.failing.remove(&partition)
            && failing.backoff.tries() >= TRIES_BEFORE_ALARM
        {
            self.metrics.stuck(-1);
            tracing::info!(
                consumer = self.name,
                partition,
                offset,
                "a record that was stuck is processed"
            );
        }
        // refused when the partition has just been given to another instance, which then processes the record again
        if let Err(error) = consumer.store_offset(&self.config.name(&self.topic), partition, offset) {
            tracing::debug!(consumer = self.name, partition, offset, %error, "the offset was not stored");
        }
    }

    /// Halts the partition at a record that failed, until its pause is over.
    fn hold(
        &mut self,
        consumer: &Consumer,
        partition: i32,
        offset: i64,
        error: &Failed,
    ) -> Result<(), KafkaError> {
        let failing = self.failing.entry(partition).or_insert_with(|| Failing {
            offset,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_mins(1)),
            again: Instant::now(),
            paused: false,
        });
        if failing.offset != offset {
            // the partition went away and came back with another offset
            failing.offset = offset;
            failing.backoff.reset();
        }
        let pause = failing.backoff.next();
        failing.again = Instant::now() + pause;
        failing.paused = true;
        let tries = failing.backoff.tries();
        if tries == TRIES_BEFORE_ALARM {
            self.metrics.stuck(1);
            tracing::error!(consumer = self.name, partition, offset, %error, "a record is stuck: its partition waits");
        } else if tries == 1 {
            tracing::warn!(consumer = self.name, partition, offset, %error, "a record failed and is tried again");
        } else {
            tracing::debug!(consumer = self.name, partition, offset, tries, %error, "a record failed again");
        }
        let topic = self.config.name(&self.topic);
        consumer.pause(&one(&topic, partition))?;
        consumer.seek(&topic, partition, Offset::Offset(offset), Duration::ZERO)
    }

    fn resume(&mut self, consumer: &Consumer) -> Result<(), KafkaError> {
        let now = Instant::now();
        let topic = self.config.name(&self.topic);
        for (partition, failing) in &mut self.failing {
            if failing.paused && failing.again <= now {
                failing.paused = false;
                consumer.resume(&one(&topic, *partition))?;
            }
        }
        Ok(())
    }
}

fn one(topic: &str, partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    list
}

/// Waits for a moment, for ever when there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
