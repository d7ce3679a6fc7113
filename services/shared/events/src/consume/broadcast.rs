use std::{convert::Infallible, sync::Arc, time::Duration};

use lifecycle::Lifecycle;
use rdkafka::{
    Offset, TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::{Consumer as _, StreamConsumer},
    error::KafkaError,
    metadata::MetadataPartition,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{Consumer, Ended, Session, supervise};
use crate::{
    Config, Record,
    client::{Consuming, is_passing},
    metrics,
};

/// Bounds each question to the cluster.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the number of partitions is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a [`Broadcast`] hands over.
#[derive(Debug)]
pub enum Delivery {
    /// Records from now on are complete, but some before may be missing: the first of all deliveries, and again each time that
    /// the consumer had to begin anew. What was published before is to be read from where it came from.
    Reset,
    /// A record, in order within its partition.
    Record(Record),
}

/// Brings every new record of a topic to every instance: all partitions, from the end, without a group.
#[derive(Clone, Debug)]
pub struct Broadcast {
    ready: watch::Receiver<bool>,
}

impl Broadcast {
    /// Starts to consume. `deliver` runs on the consuming task: it must not block and not wait.
    pub fn start(
        name: &str,
        topic: &str,
        config: &Config,
        lifecycle: &Lifecycle,
        deliver: impl FnMut(Delivery) + Send + 'static,
    ) -> Self {
        let (sender, ready) = watch::channel(false);
        let metrics = Arc::new(metrics::Consumer::new(name));
        let session = Listening {
            name: name.to_owned(),
            topic: topic.to_owned(),
            config: config.clone(),
            ready: sender,
            deliver,
            metrics: metrics.clone(),
        };
        lifecycle.spawn(
            "broadcast consumer",
            supervise(session, name.to_owned(), metrics, lifecycle.clone()),
        );
        Self { ready }
    }

    /// True while every record published from now on will be delivered. A broker that is away does not make it false:
    /// the consumer goes on where it was.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }
}

struct Listening<D> {
    name: String,
    topic: String,
    config: Config,
    ready: watch::Sender<bool>,
    deliver: D,
    metrics: Arc<metrics::Consumer>,
}

impl<D: FnMut(Delivery) + Send + 'static> Session for Listening<D> {
    fn source(&self) -> (String, Config) {
        (self.config.name(&self.topic), self.config.clone())
    }

    fn open(&self) -> Result<Consumer, KafkaError> {
        let mut client = self.config.consumer();
        client
            // librdkafka wants a group to assign partitions; nothing is ever committed to it
            .set("group.id", self.config.name(&self.name))
            .set("enable.auto.commit", "false")
            // an offset that is gone is an error to be told, not a place to jump from in silence
            .set("auto.offset.reset", "error");
        let (assigned, _) = watch::channel(false);
        StreamConsumer::from_config_and_context(&client, Consuming { ready: assigned })
    }

    async fn run(&mut self, consumer: &Arc<Consumer>) -> Result<Infallible, Ended> {
        let topic = self.config.name(&self.topic);
        let partitions = assign_all(consumer, &topic).await?;
        // After the assignment: what a reader of the database does not see from now on comes as a record.
        (self.deliver)(Delivery::Reset);
        self.ready.send_replace(true);
        tracing::info!(topic, partitions, "broadcast consumer is ready");
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counting = None;
        loop {
            tokio::select! {
                message = consumer.recv() => match message {
                    Ok(message) => {
                        let record = Record::receive(&message, &self.topic, &self.name);
                        drop(message);
                        self.metrics.consumed();
                        let span = record.span.clone();
                        span.in_scope(|| (self.deliver)(Delivery::Record(record)));
                    }
                    Err(error) if is_passing(&error) => {
                        tracing::debug!(consumer = self.name, %error, "a broker is away");
                    }
                    Err(error) => return Err(error.into()),
                },
                // asks in the background: records go on meanwhile
                _ = look.tick(), if counting.is_none() => {
                    let (consumer, topic) = (consumer.clone(), topic.clone());
                    counting = Some(spawn_blocking(move || partition_ids(&consumer, &topic)));
                }
                counted = wait(&mut counting) => {
                    counting = None;
                    match counted? {
                        Ok(ids) if ids.len() > partitions => {
                            return Err(Ended::Repartitioned(partitions, ids.len()));
                        }
                        Ok(_) => {}
                        Err(error) => tracing::debug!(%error, "the partitions were not counted"),
                    }
                }
            }
        }
    }

    fn over(&mut self) {
        self.ready.send_replace(false);
    }
}

/// Assigns every partition at its end, and returns how many there are. The offsets are explicit: with the logical end,
/// what is published between the assignment and the first fetch would be lost.
async fn assign_all(consumer: &Arc<Consumer>, topic: &str) -> Result<usize, Ended> {
    let (asking, topic) = (consumer.clone(), topic.to_owned());
    let assignment = spawn_blocking(move || {
        let ids = partition_ids(&asking, &topic)?;
        if ids.is_empty() {
            return Err(Ended::NoTopic(topic));
        }
        let mut assignment = TopicPartitionList::with_capacity(ids.len());
        for id in ids {
            let (_, end) = asking.fetch_watermarks(&topic, id, ASK_TIMEOUT)?;
            assignment.add_partition_offset(&topic, id, Offset::Offset(end))?;
        }
        Ok(assignment)
    })
    .await??;
    consumer.assign(&assignment)?;
    Ok(assignment.count())
}

/// The partitions of a topic; none when there is no such topic. Blocks.
fn partition_ids(consumer: &Consumer, topic: &str) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
    Ok(metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic && found.error().is_none())
        .flat_map(|found| found.partitions().iter().map(MetadataPartition::id))
        .collect())
}

/// Waits for a task when there is one, for ever when there is none. Cancel safe.
async fn wait<T>(task: &mut Option<tokio::task::JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
