use std::{ops::ControlFlow, sync::Arc, time::Duration};

use lifecycle::{Backoff, Lifecycle};
use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{leader::Leader, rows};
use crate::{Config, metrics};

/// How often a relay that is not the one tries to become it.
const COMPETE_EVERY: Duration = Duration::from_millis(300);
/// Wakes that come within this time become one NOTIFY.
const COALESCE: Duration = Duration::from_millis(5);
/// The longest a statement or a connection attempt may take before the session counts as lost.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes the events of the outbox. One relay at a time works per database; the others stand by.
///
/// Each event is published at least once, those of one key in order. An event that Kafka does not take stays, and is tried
/// again with growing pauses for as long as it takes.
#[derive(Clone)]
pub struct Relay {
    wake: Arc<Notify>,
    leads: watch::Receiver<bool>,
}

impl Relay {
    /// Starts the relay. It makes connections of its own, with the options of the pool: one, or two while it is the one.
    pub fn start(pool: &PgPool, config: &Config, lifecycle: &Lifecycle) -> Self {
        let wake = Arc::new(Notify::new());
        let (leading, leads) = watch::channel(false);
        let task = Task {
            options: pool.connect_options(),
            config: config.clone(),
            metrics: Arc::new(metrics::Outbox::new()),
            lifecycle: lifecycle.clone(),
            wake: wake.clone(),
            leading,
        };
        lifecycle.spawn("outbox relay", task.run());
        Self { wake, leads }
    }

    /// Says that a transaction with an event has been committed. Without it the event waits for the next look, a second.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether this relay is the one that publishes.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }
}

struct Task {
    options: Arc<PgConnectOptions>,
    config: Config,
    metrics: Arc<metrics::Outbox>,
    lifecycle: Lifecycle,
    wake: Arc<Notify>,
    leading: watch::Sender<bool>,
}

/// Why a relay's session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("a statement took longer than {STATEMENT_TIMEOUT:?}")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error("the connection for notifications was lost")]
    Deaf,
    #[error("cannot make a Kafka producer: {0}")]
    Producer(#[from] rdkafka::error::KafkaError),
}

impl Task {
    async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while !self.lifecycle.is_stopping() {
            let session = self.session().await;
            if self.leading.send_replace(false) {
                backoff.reset();
            }
            let Err(error) = session else { return };
            if backoff.tries() == 0 {
                tracing::warn!(%error, "the outbox relay lost its session and competes again");
            }
            tokio::select! {
                () = self.lifecycle.stopping() => return,
                () = sleep(backoff.next()) => {}
            }
        }
    }

    /// Stands by, then leads, on one connection whose loss ends both. Ok when the process stops.
    async fn session(&self) -> Result<(), Lost> {
        let mut connection = timeout(STATEMENT_TIMEOUT, PgConnection::connect_with(&self.options)).await??;
        timeout(STATEMENT_TIMEOUT, rows::prepare(&mut connection)).await??;
        while !timeout(STATEMENT_TIMEOUT, rows::try_lock(&mut connection)).await?? {
            if self.stand_by(&mut connection).await?.is_break() {
                return Ok(());
            }
        }
        tracing::info!("this outbox relay leads");
        self.leading.send_replace(true);
        let mut leader = Leader::start(&self.options, &self.config, self.metrics.clone()).await?;
        let led = leader.lead(&mut connection, &self.wake, &self.lifecycle).await;
        leader.close().await;
        // a closed connection gives the lock to another relay at once
        if timeout(STATEMENT_TIMEOUT, connection.close()).await.is_err() {
            tracing::debug!("the relay's connection did not close in time");
        }
        led
    }

    /// Passes wakes on to the relay that leads, until it is time to compete again.
    async fn stand_by(&self, connection: &mut PgConnection) -> Result<ControlFlow<()>, Lost> {
        let compete = sleep(COMPETE_EVERY);
        tokio::pin!(compete);
        loop {
            tokio::select! {
                () = self.lifecycle.stopping() => return Ok(ControlFlow::Break(())),
                () = &mut compete => return Ok(ControlFlow::Continue(())),
                () = self.wake.notified() => {
                    timeout(STATEMENT_TIMEOUT, rows::notify(connection)).await??;
                    sleep(COALESCE).await;
                }
            }
        }
    }
}
