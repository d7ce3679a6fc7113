//! The context of every librdkafka client: its log lines go to `tracing`.

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext, Rebalance},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::watch;

/// The context of a consumer: knows whether it has been given partitions.
pub(crate) struct Consuming {
    pub(crate) ready: watch::Sender<bool>,
}

impl ClientContext for Consuming {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        kafka::line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::error(&error, reason);
    }
}

impl ConsumerContext for Consuming {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                tracing::debug!(partitions = partitions.count(), "partitions assigned");
                self.ready.send_replace(true);
            }
            Rebalance::Revoke(partitions) => {
                tracing::debug!(partitions = partitions.count(), "partitions revoked");
            }
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
    }
}

/// Errors after which librdkafka goes on by itself, at the place where it was.
pub(crate) fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::PartitionEOF(_)
            | KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::NotLeaderForPartition
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::NotCoordinator
            )
    )
}
