//! Publishes the journal, page by page.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ::events::Config;
use lifecycle::{Backoff, Lifecycle};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::Notify,
    time::{sleep, sleep_until, timeout},
};

use super::{
    encode::{Encoder, Side},
    metrics,
    producer::{Failed, Producer},
};
use crate::{
    app::engine::Committed,
    store::{Lost, Publication, Recent, Unpublished},
};

/// Rows in a page at most; each is two records.
const PAGE: usize = 4_096;
/// Pages that are not full begin so far apart: one with thousands of rows costs little more than one with a few. What comes
/// after a pause goes at once.
const PACE: Duration = Duration::from_millis(40);
/// How long a row of another instance waits to be found; nobody announces it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the lag is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// How often a relay that is not the one tries to become it.
const COMPETE_EVERY: Duration = Duration::from_millis(300);
/// How long a page that is on its way is waited for when the process stops.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Publishes every row of the journal, at least once, in order for each account. One relay works per database, others
/// stand by.
#[derive(Clone)]
pub struct Relay {
    recent: Recent,
    wake: Arc<Notify>,
}

impl Relay {
    /// Starts a relay with a connection of its own, made with the options of the pool.
    pub fn start(pool: &PgPool, config: &Config, lifecycle: &Lifecycle) -> Self {
        let (recent, wake) = (Recent::default(), Arc::new(Notify::new()));
        let task = Task {
            options: pool.connect_options(),
            config: config.clone(),
            lifecycle: lifecycle.clone(),
            recent: recent.clone(),
            wake: Arc::clone(&wake),
        };
        lifecycle.spawn("journal relay", task.run());
        Self { recent, wake }
    }

    /// Says what this instance has committed.
    pub fn committed(&self, batch: Committed) {
        self.recent.push(batch);
        self.wake();
    }

    /// Says that rows have been committed. Without it they wait for the next look.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

struct Task {
    options: Arc<PgConnectOptions>,
    config: Config,
    lifecycle: Lifecycle,
    recent: Recent,
    wake: Arc<Notify>,
}

impl Task {
    async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let Err(error) = self.session(&mut backoff).await else {
                return;
            };
            if backoff.tries() == 0 {
                tracing::warn!(%error, "the journal relay lost its session and competes again");
            }
            if self.pause(backoff.next()).await.is_break() {
                return;
            }
        }
    }

    /// Stands by, then leads, on one session whose loss ends both. Ok when the process stops.
    async fn session(&self, backoff: &mut Backoff) -> Result<(), Lost> {
        let mut publication = Publication::connect(&self.options, self.recent.clone()).await?;
        while !publication.try_lead().await? {
            if self.pause(COMPETE_EVERY).await.is_break() {
                return Ok(());
            }
        }
        backoff.reset();
        tracing::info!("this journal relay leads");
        let led = self.lead(&mut publication).await;
        publication.close().await;
        led
    }

    /// Publishes until the process stops (Ok) or the session is lost.
    async fn lead(&self, publication: &mut Publication) -> Result<(), Lost> {
        let mut kafka = Kafka::new(self.config.clone());
        let mut away = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut measured: Option<Instant> = None;
        loop {
            if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
                metrics::lag(publication.lag().await?);
                measured = Some(Instant::now());
            }
            let begin = tokio::time::Instant::now();
            let page = publication.next(PAGE).await?;
            if page.rows.is_empty() {
                tokio::select! {
                    () = self.lifecycle.stopping() => return Ok(()),
                    () = self.wake.notified() => {}
                    () = sleep(LOOK_EVERY) => {}
                }
                continue;
            }
            match kafka.publish(page.rows, &self.lifecycle).await {
                Ok(rows) => {
                    publication.advance(&rows).await?;
                    metrics::published(2 * rows.len());
                    if away.tries() > 0 {
                        tracing::info!("the journal relay publishes again");
                        away.reset();
                    }
                    if !page.full {
                        tokio::select! {
                            () = self.lifecycle.stopping() => return Ok(()),
                            () = sleep_until(begin + PACE) => {}
                        }
                    }
                }
                Err(Failed::Stopped) => return Ok(()),
                Err(error) => {
                    metrics::failed();
                    if away.tries() == 0 {
                        tracing::warn!(%error, "the journal relay cannot publish and tries again until it can");
                    }
                    if self.pause(away.next()).await.is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn pause(&self, pause: Duration) -> ControlFlow<()> {
        tokio::select! {
            () = self.lifecycle.stopping() => ControlFlow::Break(()),
            () = sleep(pause) => ControlFlow::Continue(()),
        }
    }
}

/// A producer that is made when it is needed, and anew after a failure.
struct Kafka {
    config: Config,
    idle: Option<(Producer, Encoder)>,
}

impl Kafka {
    fn new(config: Config) -> Self {
        Self { config, idle: None }
    }

    /// Publishes rows and gives them back when all are acknowledged. It blocks a thread and not the runtime.
    ///
    /// After a failure some of them may have arrived: for each account the first ones, as the producer keeps the order and
    /// stops at an error. Sent again, the first occurrences of all are still in order.
    async fn publish(
        &mut self,
        rows: Vec<Unpublished>,
        lifecycle: &Lifecycle,
    ) -> Result<Vec<Unpublished>, Failed> {
        let stop = Arc::new(AtomicBool::new(false));
        let (idle, config, stopped) = (self.idle.take(), self.config.clone(), Arc::clone(&stop));
        let mut publishing = tokio::task::spawn_blocking(move || {
            let (mut producer, mut encoder) = match idle {
                Some(idle) => idle,
                None => (Producer::new(&config)?, Encoder::default()),
            };
            for row in &rows {
                producer.send(&encoder.entry(row, Side::Debit))?;
                producer.send(&encoder.entry(row, Side::Credit))?;
            }
            producer.settle(&stopped)?;
            Ok((rows, (producer, encoder)))
        });
        let published = tokio::select! {
            published = &mut publishing => published,
            () = lifecycle.stopping() => {
                if let Ok(published) = timeout(LAST_WAIT, &mut publishing).await {
                    published
                } else {
                    stop.store(true, Ordering::Relaxed);
                    return Err(Failed::Stopped);
                }
            }
        };
        let (rows, idle) = published.map_err(|_| Failed::Crashed)??;
        self.idle = Some(idle);
        Ok(rows)
    }
}
