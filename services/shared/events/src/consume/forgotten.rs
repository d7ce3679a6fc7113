//! Finds out that a consumer has forgotten where its brokers are.
//!
//! A broker that is just starting, or about to stop, may name no broker at all when it is asked for metadata. librdkafka then drops
//! all it knew, the configured addresses among them, and asks nobody ever again (its issue 5301, since 2.12). From outside that looks
//! like an outage; but in an outage a new client finds no broker either.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as AnyConsumer, ConsumerContext},
};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::{Consumer, Ended};
use crate::{Config, client::Consuming};

/// Between two looks, and for each question at most.
const PAUSE: Duration = Duration::from_secs(3);
/// So often in a row a new client must have found brokers where the consumer has not: once, it may just be about to connect again.
const TIMES: u32 = 2;

/// Waits until the consumer has forgotten its brokers. Cancel safe.
pub(super) async fn forgotten(consumer: Arc<Consumer>, topic: String, config: Config) -> Ended {
    let mut times = 0;
    while times < TIMES {
        sleep(PAUSE).await;
        let (consumer, topic, config) = (consumer.clone(), topic.clone(), config.clone());
        let is_lost =
            spawn_blocking(move || !finds_brokers(&*consumer, &topic) && another_does(&config, &topic));
        match is_lost.await {
            Ok(is_lost) => times = if is_lost { times + 1 } else { 0 },
            Err(error) => return error.into(),
        }
    }
    Ended::Forgotten
}

/// Blocks.
fn finds_brokers<C: ConsumerContext>(consumer: &impl AnyConsumer<C>, topic: &str) -> bool {
    let answer = consumer.fetch_metadata(Some(topic), PAUSE);
    answer.is_ok_and(|metadata| !metadata.brokers().is_empty())
}

/// Whether a new client finds brokers. Blocks.
fn another_does(config: &Config, topic: &str) -> bool {
    let (ready, _) = watch::channel(false);
    BaseConsumer::from_config_and_context(&config.consumer(), Consuming { ready })
        .is_ok_and(|another: BaseConsumer<Consuming>| finds_brokers(&another, topic))
}

#[cfg(test)]
mod tests {
    use rdkafka::{consumer::StreamConsumer, mocking::MockCluster};

    use super::*;

    const TOPIC: &str = "things";

    fn at(brokers: &str) -> Config {
        Config {
            brokers: vec![brokers.to_owned()],
            ..Config::default()
        }
    }

    fn consumer(brokers: &str) -> Arc<Consumer> {
        let (ready, _) = watch::channel(false);
        let mut client = at(brokers).consumer();
        client.set("group.id", "group");
        Arc::new(StreamConsumer::from_config_and_context(&client, Consuming { ready }).unwrap())
    }

    /// An address where nobody listens, which is all that a consumer which has forgotten its brokers has.
    async fn nowhere() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    }

    #[tokio::test]
    async fn who_finds_no_broker_where_others_do_has_forgotten_it() {
        let cluster = MockCluster::new(1).unwrap();
        let there = at(&cluster.bootstrap_servers());
        let lost = consumer(&nowhere().await);
        assert!(matches!(
            forgotten(lost, TOPIC.to_owned(), there).await,
            Ended::Forgotten
        ));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_outage_is_not_forgetting_and_neither_is_health() {
        let cluster = MockCluster::new(1).unwrap();
        let (well, nowhere) = (consumer(&cluster.bootstrap_servers()), nowhere().await);
        let found =
            spawn_blocking(move || (finds_brokers(&*well, TOPIC), another_does(&at(&nowhere), TOPIC)));
        assert_eq!(found.await.unwrap(), (true, false));
    }
}
