//! The one relay that publishes.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use lifecycle::{Backoff, Lifecycle};
use rdkafka::error::RDKafkaErrorCode;
use sqlx::{
    PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    pipeline::{Flight, Handed, Pipeline, Report},
    relay::{Lost, STATEMENT_TIMEOUT},
    rows::{self, Row},
};
use crate::{Config, metrics};

/// How long a committed event waits at most when no wake comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most rows read at once; with the largest payload that is 32 MiB.
const READ_ROWS: usize = 250;
/// When the oldest event is in flight for longer, the producer is made anew.
const STALLED_AFTER: Duration = Duration::from_secs(15);
/// How long events in flight are waited for when the process stops.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// With more keys held back than this the relay pauses as a whole.
const MAX_HELD: usize = 256;

/// A key whose events wait because Kafka has refused one.
struct Held {
    until: Instant,
    backoff: Backoff,
}

pub(super) struct Leader {
    listener: PgListener,
    pipeline: Option<Pipeline>,
    config: Config,
    metrics: Arc<metrics::Outbox>,
    held: HashMap<(String, String), Held>,
    /// Pauses of the relay as a whole: Kafka is away.
    backoff: Backoff,
    /// More events may wait than were read.
    unread: bool,
    /// The producer's queue is full: only acknowledgements make room.
    full: bool,
}

impl Leader {
    pub async fn start(
        options: &PgConnectOptions,
        config: &Config,
        metrics: Arc<metrics::Outbox>,
    ) -> Result<Self, Lost> {
        // a pool of its own, so that a session which listens is never handed to a request
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(STATEMENT_TIMEOUT)
            .connect_lazy_with(options.clone().application_name("outbox listener"));
        let mut listener = timeout(STATEMENT_TIMEOUT, PgListener::connect_with(&pool)).await??;
        listener.eager_reconnect(false);
        timeout(STATEMENT_TIMEOUT, listener.listen(rows::CHANNEL)).await??;
        Ok(Self {
            listener,
            pipeline: Some(Pipeline::start(config)?),
            config: config.clone(),
            metrics,
            held: HashMap::new(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            unread: true,
            full: false,
        })
    }

    /// Publishes until the process stops (Ok) or the session is lost.
    pub async fn lead(
        &mut self,
        connection: &mut PgConnection,
        wake: &Notify,
        lifecycle: &Lifecycle,
    ) -> Result<(), Lost> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let Some(pipeline) = &mut self.pipeline else {
                // Kafka is away: pause, then begin with a new producer
                let lag = timeout(STATEMENT_TIMEOUT, rows::lag_ms(connection)).await??;
                self.metrics.lag(u64::try_from(lag).unwrap_or(0));
                tokio::select! {
                    () = lifecycle.stopping() => return Ok(()),
                    () = sleep(self.backoff.next()) => {}
                }
                self.pipeline = Some(Pipeline::start(&self.config)?);
                self.unread = true;
                self.full = false;
                continue;
            };
            if self.unread && !self.full && pipeline.room() >= READ_ROWS {
                self.fill(connection).await?;
                continue;
            }
            tokio::select! {
                biased;
                () = lifecycle.stopping() => return self.finish(connection).await,
                _ = look.tick() => self.look(connection).await?,
                reports = pipeline.reports(), if !pipeline.is_empty() => {
                    self.settle(connection, reports).await?;
                }
                () = wake.notified() => self.unread = true,
                heard = self.listener.try_recv() => match heard? {
                    Some(_) => self.unread = true,
                    None => return Err(Lost::Deaf),
                },
            }
        }
    }

    /// Ends the producer and the second connection.
    pub async fn close(self) {
        if let Some(pipeline) = self.pipeline {
            pipeline.give_up().await;
        }
    }

    /// The look that needs no wake: late events, held keys, a producer that hangs, the lag.
    async fn look(&mut self, connection: &mut PgConnection) -> Result<(), Lost> {
        let lag = timeout(STATEMENT_TIMEOUT, rows::lag_ms(connection)).await??;
        self.metrics.lag(u64::try_from(lag).unwrap_or(0));
        self.unread = true;
        self.full = false;
        if self
            .pipeline
            .as_ref()
            .is_some_and(|pipeline| pipeline.longest() > STALLED_AFTER)
        {
            self.give_up(connection, "no acknowledgement").await?;
        }
        Ok(())
    }

    /// Reads and sends as much as there is room for.
    async fn fill(&mut self, connection: &mut PgConnection) -> Result<(), Lost> {
        let Some(pipeline) = &mut self.pipeline else {
            return Ok(());
        };
        let now = Instant::now();
        let (topics, keys): (Vec<_>, Vec<_>) = self
            .held
            .iter()
            .filter(|(_, held)| held.until > now)
            .map(|(key, _)| key.clone())
            .unzip();
        let limit = READ_ROWS.min(pipeline.room());
        let rows = timeout(
            STATEMENT_TIMEOUT,
            rows::read(
                connection,
                &pipeline.ids(),
                (&topics, &keys),
                i64::try_from(limit).unwrap_or(1),
            ),
        )
        .await??;
        self.unread = rows.len() == limit;
        if let Some(first) = rows.first()
            && pipeline.is_empty()
        {
            self.metrics.lag(u64::try_from(first.age_ms).unwrap_or(0));
        }
        self.send(connection, rows).await
    }

    async fn send(&mut self, connection: &mut PgConnection, rows: Vec<Row>) -> Result<(), Lost> {
        // keys with an event that was refused in this very batch: what follows in it must not overtake
        let mut skipped: Vec<(String, String)> = Vec::new();
        for row in rows {
            let Some(pipeline) = &mut self.pipeline else {
                return Ok(());
            };
            if skipped
                .iter()
                .any(|(topic, key)| *topic == row.topic && *key == row.key)
            {
                continue;
            }
            match pipeline.send(&row) {
                Handed::InFlight => {}
                Handed::Full => {
                    // the rest is read again, in order, when there is room
                    self.unread = true;
                    self.full = true;
                    return Ok(());
                }
                Handed::Refused(code) => {
                    self.refused(connection, &row.topic, &row.key, code).await?;
                    skipped.push((row.topic, row.key));
                }
            }
        }
        Ok(())
    }

    /// Deletes what was acknowledged and deals with what was not.
    async fn settle(
        &mut self,
        connection: &mut PgConnection,
        reports: Vec<(Report, Option<Flight>)>,
    ) -> Result<(), Lost> {
        self.full = false;
        let mut acknowledged = Vec::with_capacity(reports.len());
        let mut refused = Vec::new();
        for (report, flight) in reports {
            let Some(flight) = flight else { continue };
            match report.result {
                Ok(()) => acknowledged.push((report.id, flight)),
                Err(code) => refused.push((flight, code)),
            }
        }
        self.acknowledge(connection, acknowledged).await?;
        for (flight, code) in refused {
            self.refused(connection, &flight.topic, &flight.key, code).await?;
        }
        Ok(())
    }

    async fn acknowledge(
        &mut self,
        connection: &mut PgConnection,
        acknowledged: Vec<(i64, Flight)>,
    ) -> Result<(), Lost> {
        if acknowledged.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = acknowledged.iter().map(|(id, _)| *id).collect();
        timeout(STATEMENT_TIMEOUT, rows::delete(connection, &ids)).await??;
        if self.backoff.tries() > 0 {
            tracing::info!("the outbox relay publishes again");
            self.backoff.reset();
        }
        for (_, flight) in acknowledged {
            self.metrics.published(&flight.topic);
            self.held.remove(&(flight.topic, flight.key));
        }
        Ok(())
    }

    /// An event was not taken: its key waits when that is the event's own fault, else everything does.
    async fn refused(
        &mut self,
        connection: &mut PgConnection,
        topic: &str,
        key: &str,
        code: RDKafkaErrorCode,
    ) -> Result<(), Lost> {
        self.metrics.failed(topic);
        let own_fault = matches!(
            code,
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidTimestamp
        );
        if !own_fault || self.held.len() >= MAX_HELD {
            return self.give_up(connection, &code.to_string()).await;
        }
        let held = self
            .held
            .entry((topic.to_owned(), key.to_owned()))
            .or_insert_with(|| Held {
                until: Instant::now(),
                backoff: Backoff::new(Duration::from_millis(500), Duration::from_mins(1)),
            });
        if held.backoff.tries() == 0 {
            tracing::error!(topic, key, error = %code, "an event is refused and holds back those behind it");
        }
        held.until = Instant::now() + held.backoff.next();
        Ok(())
    }

    /// Drops the producer with all that is in flight; what was not acknowledged is read and sent again.
    async fn give_up(&mut self, connection: &mut PgConnection, reason: &str) -> Result<(), Lost> {
        let Some(pipeline) = self.pipeline.take() else {
            return Ok(());
        };
        if self.backoff.tries() == 0 {
            tracing::warn!(
                reason,
                "the outbox relay cannot publish and tries again until it can"
            );
        }
        let acknowledged = pipeline.give_up().await;
        self.acknowledge(connection, acknowledged).await
    }

    /// Waits a moment for what is in flight, so that the next relay does not send it again.
    async fn finish(&mut self, connection: &mut PgConnection) -> Result<(), Lost> {
        let deadline = tokio::time::Instant::now() + LAST_WAIT;
        while let Some(pipeline) = self.pipeline.as_mut().filter(|pipeline| !pipeline.is_empty()) {
            let Ok(reports) = tokio::time::timeout_at(deadline, pipeline.reports()).await else {
                break;
            };
            self.settle(connection, reports).await?;
        }
        Ok(())
    }
}
