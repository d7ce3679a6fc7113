//! Faults at random moments: servers and replicas are killed and come back, connections are cut, half closed and delayed.
//!
//! The pauses between them are random times and no conditions, as it is in life: whatever is under way then is hit.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, rngs::StdRng};

use crate::{Service, TestWorld, proxy::Mode, random};

/// How often what is broken.
#[derive(Clone, Debug)]
pub struct Rhythm {
    /// Between a replica that is back and the next kill.
    pub replicas: Range<Duration>,
    /// Between a PostgreSQL that is back and its next kill.
    pub postgres: Range<Duration>,
    /// Between a connection that is whole and the next fault of one.
    pub network: Range<Duration>,
    /// Before each kill of Kafka.
    pub kafka: Range<Duration>,
}

/// Something that was broken.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it was.
    pub kind: &'static str,
    /// When it was broken.
    pub begin: Instant,
    /// When it was whole again.
    pub end: Instant,
}

/// Breaks things in a world, and knows what it has broken.
pub struct Chaos<'a> {
    world: &'a TestWorld,
    service: Service,
    faults: Mutex<Vec<Fault>>,
}

impl<'a> Chaos<'a> {
    /// Faults for the replicas of a service and the servers of a world.
    pub fn new(world: &'a TestWorld, service: Service) -> Self {
        Self {
            world,
            service,
            faults: Mutex::default(),
        }
    }

    /// Breaks one thing after another, several kinds at once, until a moment; behind it everything is whole.
    pub async fn run(&self, rhythm: &Rhythm, until: Instant) -> Result<Vec<Fault>> {
        tokio::try_join!(
            self.kill_replicas(&rhythm.replicas, until),
            self.kill_postgres(&rhythm.postgres, until),
            self.break_connections(&rhythm.network, until),
            self.kill_kafka(&rhythm.kafka, until),
        )?;
        Ok(self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn kill_replicas(&self, pauses: &Range<Duration>, until: Instant) -> Result<()> {
        let mut choices = random::choices(1_000_001);
        let replicas = self.world.local().addresses(self.service).len();
        while pause(&mut choices, pauses, until).await {
            let replica = self
                .world
                .instance(self.service, choices.random_range(0..replicas))?;
            let begin = Instant::now();
            replica.kill().await?;
            rest(&mut choices, 100..2_500).await;
            // how long it then takes depends on PostgreSQL, which may be away
            replica.restart().await.context("a killed replica")?;
            self.remember("kill -9 of a replica", begin);
        }
        Ok(())
    }

    async fn kill_postgres(&self, pauses: &Range<Duration>, until: Instant) -> Result<()> {
        let mut choices = random::choices(1_000_002);
        let postgres = self.world.infra().postgres()?;
        while pause(&mut choices, pauses, until).await {
            let begin = Instant::now();
            let kind = match choices.random_range(0..3) {
                0 => {
                    postgres.kill().await?;
                    "kill -9 of PostgreSQL's first process"
                }
                1 => {
                    // the first process then ends all others, and recovers
                    postgres.kill_one_of_family(choices.random_range(0..100))?;
                    "kill -9 of one of PostgreSQL's processes"
                }
                _ => {
                    postgres.kill_family().await?;
                    "kill -9 of all of PostgreSQL's processes"
                }
            };
            rest(&mut choices, 50..1_500).await;
            postgres.restart().await.context("a killed PostgreSQL")?;
            self.remember(kind, begin);
        }
        Ok(())
    }

    async fn break_connections(&self, pauses: &Range<Duration>, until: Instant) -> Result<()> {
        let mut choices = random::choices(1_000_003);
        let proxies = self.world.proxies_of();
        while pause(&mut choices, pauses, until).await {
            let proxy = &proxies[choices.random_range(0..proxies.len())];
            let begin = Instant::now();
            let (kind, mode, lasts) = match choices.random_range(0..7) {
                0 | 1 => ("connections cut", Mode::Cut, 10..1_000),
                2 => ("connections half closed", Mode::HalfClose, 10..1_500),
                3 => ("connections silent", Mode::Stall, 200..3_500),
                4 => {
                    proxy.lose_connections();
                    ("connections lost silently", Mode::Pass, 10..1_000)
                }
                _ => {
                    let later = Duration::from_millis(choices.random_range(2..400));
                    ("connections slow", Mode::Delay(later), 500..3_000)
                }
            };
            proxy.set(mode);
            rest(&mut choices, lasts).await;
            proxy.set(Mode::Pass);
            self.remember(kind, begin);
        }
        Ok(())
    }

    async fn kill_kafka(&self, pauses: &Range<Duration>, until: Instant) -> Result<()> {
        let mut choices = random::choices(1_000_004);
        let kafka = self.world.infra().kafka()?;
        while pause(&mut choices, pauses, until).await {
            let begin = Instant::now();
            kafka.kill().await?;
            rest(&mut choices, 100..2_000).await;
            kafka.restart().await.context("a killed Kafka")?;
            self.remember("kill -9 of Kafka", begin);
        }
        Ok(())
    }

    fn remember(&self, kind: &'static str, begin: Instant) {
        let end = Instant::now();
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(Fault { kind, begin, end });
    }
}

/// Waits; whether there is time for another fault.
async fn pause(choices: &mut StdRng, pauses: &Range<Duration>, until: Instant) -> bool {
    let wake = Instant::now() + choices.random_range(pauses.clone());
    tokio::time::sleep_until(wake.min(until).into()).await;
    wake < until
}

async fn rest(choices: &mut StdRng, millis: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(choices.random_range(millis))).await;
}
