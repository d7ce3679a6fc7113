//! Tells on Kafka that a stored balance differs from the journal.
//!
//! By a producer of its own, which lives for one call: drifts are rare, and the relay's order is that of the entries alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use ::events::Config;
use proto::transfer::v1::{DriftFound, transfer_event::Event};
use uuid::Uuid;

use super::{
    encode::Encoder,
    producer::{Failed, Producer},
};
use crate::app::{
    error::Source,
    reconcile::{Alarm, Drift},
};

/// Publishes drifts.
#[derive(Clone)]
pub struct Drifts {
    config: Config,
}

/// Ends the thread that publishes when nobody waits for it any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drifts {
    /// Publishes to these brokers.
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Alarm for Drifts {
    async fn tell(&self, drifts: Vec<Drift>) -> Result<(), Source> {
        let stop = Stop(Arc::default());
        let (config, stopped) = (self.config.clone(), Arc::clone(&stop.0));
        let publishing = tokio::task::spawn_blocking(move || {
            let mut producer = Producer::new(&config)?;
            let mut encoder = Encoder::default();
            for drift in drifts {
                let event = Event::DriftFound(found(&drift));
                producer.send(&encoder.other(drift.compared.account, event, Uuid::new_v4()))?;
            }
            producer.settle(&stopped)
        });
        let published = publishing.await.map_err(|_| Failed::Crashed)?;
        drop(stop);
        Ok(published?)
    }
}

fn found(drift: &Drift) -> DriftFound {
    let (stored, journal) = (drift.compared.stored, drift.compared.journal);
    DriftFound {
        account_id: drift.compared.account,
        stored_posted: stored.posted,
        stored_held: stored.held,
        journal_posted: journal.posted,
        journal_held: journal.held,
        found_at: Some(SystemTime::from(drift.found_at).into()),
        stored_incoming: stored.incoming,
        journal_incoming: journal.incoming,
        stored_position: stored.position,
        journal_position: journal.position,
    }
}
