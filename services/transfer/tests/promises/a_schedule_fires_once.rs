use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use lifecycle::Lifecycle;
use rand::RngExt as _;
use tokio::task::JoinSet;
use transfer::{
    app::{
        engine::{self, Engine},
        ledger::{ItemError, Ledger},
        order::Party,
        schedules::{Plan, Schedules, Template},
    },
    domain::{
        command::{Authority, Refusal},
        schedule::{Recurrence, State, Timing, Unit},
    },
    store::Postgres,
};
use uuid::Uuid;

use super::world::{Replica, World, amount, order};

pub type Scheduler = Arc<Schedules<Postgres, Postgres>>;

/// A clock that stands until the test moves it.
#[derive(Clone)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    pub fn at(text: &str) -> Self {
        let at: DateTime<Utc> = text.parse().unwrap();
        Self(Arc::new(AtomicI64::new(at.timestamp())))
    }

    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.0.load(Ordering::SeqCst), 0).unwrap()
    }

    pub fn pass(&self, time: TimeDelta) {
        self.0.fetch_add(time.num_seconds(), Ordering::SeqCst);
    }

    pub fn scheduler(&self, replica: &Replica, claim: Duration) -> Scheduler {
        let clock = self.clone();
        Arc::new(Schedules::new(
            replica.store.clone(),
            Arc::clone(&replica.ledger),
            Arc::new(move || clock.now()),
            claim,
        ))
    }
}

const CLAIM: Duration = Duration::from_mins(1);

pub fn plan(from: i64, to: i64, minor: i64, first: DateTime<Utc>) -> Plan {
    Plan {
        id: Uuid::now_v7(),
        owner: from,
        by: Authority::User(from),
        transfer: Template {
            from: Party::User(from),
            to: vec![(Party::User(to), amount(minor))],
            currency: None,
            pending: false,
            note: None,
        },
        timing: Timing {
            first,
            recurrence: None,
        },
    }
}

pub fn repeated(mut plan: Plan, unit: Unit, every: u32, count: u32) -> Plan {
    plan.timing.recurrence = Some(Recurrence {
        unit,
        every,
        count: Some(count),
        until: None,
    });
    plan
}

async fn work_off(scheduler: &Scheduler) -> usize {
    let mut all = 0;
    loop {
        match scheduler.pass().await.unwrap() {
            0 => return all,
            some => all += some,
        }
    }
}

/// What is recorded is what the journal has.
async fn assert_recorded(world: &World) {
    let made = "SELECT count(*) FROM schedule_runs r
                 WHERE (r.refused IS NULL) <> EXISTS (SELECT FROM journal j WHERE j.id = r.transfer_id)";
    assert_eq!(world.sql(made).await, 0, "a record and the journal disagree");
    world.assert_sound().await;
}

const TRANSFERS: &str =
    "SELECT count(*) FROM journal j JOIN accounts a ON a.id = j.debit_account WHERE a.user_id = 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_replicas_there_are() {
    let world = World::new().await;
    let clock = Clock::at("2030-01-01T00:00:00Z");
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(2, 1_000).await;
    let schedulers = replicas.map(|replica| clock.scheduler(&replica, CLAIM));
    for _ in 0..70 {
        let plan = repeated(plan(1, 2, 1, clock.now()), Unit::Second, 60, 3);
        schedulers[0].plan(&plan, false).await.unwrap();
    }
    clock.pass(TimeDelta::seconds(90));
    let mut working = JoinSet::new();
    for scheduler in schedulers.clone() {
        working.spawn(async move { work_off(&scheduler).await });
    }
    let begun: usize = working.join_all().await.into_iter().sum();
    assert_eq!(
        begun, 140,
        "two of three occurrences are due, and each is one replica's"
    );
    assert_eq!(world.sql(TRANSFERS).await, 140);
    assert_eq!(
        world
            .sql("SELECT count(*) FROM schedules WHERE state = 'active' AND next_number = 3")
            .await,
        70
    );
    clock.pass(TimeDelta::seconds(30));
    assert_eq!(work_off(&schedulers[1]).await, 70);
    assert_eq!(
        world
            .sql("SELECT count(*) FROM schedules WHERE state = 'finished'")
            .await,
        70
    );
    assert_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_replica_is_killed() {
    let world = World::new().await;
    let clock = Clock::at("2030-01-01T00:00:00Z");
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(2, 1_000).await;
    let claim = Duration::from_millis(100);
    let schedulers = replicas.map(|replica| clock.scheduler(&replica, claim));
    for _ in 0..10 {
        let plan = repeated(plan(1, 2, 1, clock.now()), Unit::Day, 1, 20);
        schedulers[0].plan(&plan, false).await.unwrap();
    }
    clock.pass(TimeDelta::days(30));
    let deadline = Instant::now() + Duration::from_mins(1);
    let done = "SELECT count(*) FROM schedules WHERE state = 'finished'";
    while world.sql(done).await < 10 {
        assert!(Instant::now() < deadline, "it does not get on");
        let mut working = JoinSet::new();
        for scheduler in schedulers.clone() {
            working.spawn(async move {
                let _ = tokio::time::timeout(Duration::from_secs(5), scheduler.pass()).await;
            });
        }
        // they are dropped wherever they are: before, in or behind the claim, the transfer, the record
        let lived = Duration::from_micros(rand::rng().random_range(0..40_000));
        tokio::time::sleep(lived).await;
        working.shutdown().await;
    }
    assert_eq!(world.sql(TRANSFERS).await, 200);
    assert_eq!(
        world
            .sql("SELECT count(*) FROM schedule_runs WHERE refused IS NULL")
            .await,
        200
    );
    assert_recorded(&world).await;
}

#[tokio::test]
async fn or_is_refused_once_and_the_next_comes() {
    let world = World::new().await;
    let clock = Clock::at("2030-01-01T00:00:00Z");
    let replica = world.replica();
    replica.users(3, 100).await;
    let scheduler = clock.scheduler(&replica, CLAIM);
    let plan = repeated(plan(1, 2, 90, clock.now()), Unit::Week, 1, 3);
    scheduler.plan(&plan, false).await.unwrap();
    assert_eq!(work_off(&scheduler).await, 1);
    clock.pass(TimeDelta::weeks(1));
    assert_eq!(work_off(&scheduler).await, 1);
    replica.pay(order(3, 1, 100)).await.unwrap();
    clock.pass(TimeDelta::weeks(1));
    assert_eq!(work_off(&scheduler).await, 1);
    let (schedule, runs) = scheduler.read(plan.id, 1, plan.by).await.unwrap();
    let outcomes: Vec<_> = runs.iter().map(|run| (run.number, run.refused)).collect();
    let poor = Some(ItemError::Refused(Refusal::InsufficientBalance));
    assert_eq!(outcomes, [(3, None), (2, poor), (1, None)]);
    assert_eq!((schedule.state, schedule.next_at()), (State::Finished, None));
    assert_recorded(&world).await;
}

#[tokio::test]
async fn and_late_but_in_order_after_a_downtime() {
    let world = World::new().await;
    let clock = Clock::at("2027-12-31T10:00:00Z");
    let replica = world.replica();
    replica.users(2, 1_000).await;
    let scheduler = clock.scheduler(&replica, CLAIM);
    let monthly = repeated(plan(1, 2, 1, clock.now()), Unit::Month, 1, 5);
    let weekly = repeated(plan(1, 2, 2, clock.now()), Unit::Week, 1, 3);
    for plan in [&monthly, &weekly] {
        scheduler.plan(plan, false).await.unwrap();
    }
    clock.pass(TimeDelta::days(90));
    assert_eq!(work_off(&scheduler).await, 6);
    let (_, runs) = scheduler.read(monthly.id, 1, monthly.by).await.unwrap();
    let due: Vec<String> = runs
        .iter()
        .rev()
        .map(|run| run.due_at.format("%F").to_string())
        .collect();
    assert_eq!(
        due,
        ["2027-12-31", "2028-01-31", "2028-02-29"],
        "the 31st of March is to come"
    );
    let unordered = "SELECT count(*) FROM schedule_runs one JOIN schedule_runs other USING (schedule_id)
                      WHERE one.number < other.number AND one.recorded_at >= other.recorded_at";
    assert_eq!(world.sql(unordered).await, 0);
    assert_recorded(&world).await;
}

#[tokio::test]
async fn when_the_ledger_is_back() {
    let world = World::new().await;
    let clock = Clock::at("2030-01-01T00:00:00Z");
    let replica = world.replica();
    replica.users(2, 100).await;
    let plan = plan(1, 2, 10, clock.now());
    clock.scheduler(&replica, CLAIM).plan(&plan, false).await.unwrap();
    // a ledger that stops: the outcome of what it is asked is unknown
    let stopping = Lifecycle::new(Duration::ZERO);
    let config = engine::Config {
        queue: 1_000,
        large_batch: 1_000,
        clock: || DateTime::UNIX_EPOCH,
    };
    let engine = Engine::start(replica.store.clone(), config, |_| {}, &stopping);
    stopping.drain();
    stopping
        .finish(async { Ok::<(), std::io::Error>(()) })
        .await
        .unwrap();
    let stopped = Replica {
        ledger: Arc::new(Ledger::new(replica.store.clone(), engine.clone())),
        engine,
        store: replica.store.clone(),
    };
    assert_eq!(clock.scheduler(&stopped, CLAIM).pass().await.unwrap(), 1);
    let (schedule, runs) = clock
        .scheduler(&replica, CLAIM)
        .read(plan.id, 1, plan.by)
        .await
        .unwrap();
    assert_eq!(
        (schedule.state, schedule.begun, runs.len()),
        (State::Active, true, 0),
        "it is not recorded"
    );
    let scheduler = clock.scheduler(&replica, CLAIM);
    let deadline = Instant::now() + Duration::from_secs(10);
    while world
        .sql("SELECT count(*) FROM schedules WHERE state = 'finished'")
        .await
        == 0
    {
        assert!(Instant::now() < deadline, "it is not tried again");
        scheduler.pass().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.sql(TRANSFERS).await, 1);
    assert_recorded(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_never_behind_the_answer_to_a_cancellation() {
    let world = World::new().await;
    let clock = Clock::at("2030-01-01T00:00:00Z");
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(2, 10_000).await;
    let schedulers = replicas.map(|replica| clock.scheduler(&replica, Duration::from_millis(300)));
    let mut plans = Vec::new();
    for _ in 0..40 {
        // more occurrences than happen before the last plan is cancelled
        let plan = repeated(plan(1, 2, 1, clock.now()), Unit::Second, 60, 1_400);
        schedulers[0].plan(&plan, false).await.unwrap();
        plans.push(plan);
    }
    clock.pass(TimeDelta::days(1));
    let mut working = JoinSet::new();
    for scheduler in schedulers.clone() {
        working.spawn(async move {
            loop {
                // some passes are killed on the way; on a busy machine too, others come to their end
                if rand::rng().random() {
                    let lives = Duration::from_micros(rand::rng().random_range(5_000..60_000));
                    let _ = tokio::time::timeout(lives, scheduler.pass()).await;
                } else {
                    let _ = scheduler.pass().await;
                }
            }
        });
    }
    let mut counts = Vec::new();
    for plan in &plans {
        let deadline = Instant::now() + Duration::from_secs(20);
        let schedule = schedulers[1].cancel(plan.id, 1, plan.by, deadline).await.unwrap();
        assert_eq!((schedule.state, schedule.begun), (State::Cancelled, false));
        counts.push(occurrences(&world, plan.id, schedule.next + 1).await);
        assert_eq!(
            counts.last().unwrap().0,
            schedule.next - 1,
            "what has happened is recorded"
        );
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    working.shutdown().await;
    for (plan, before) in plans.iter().zip(counts) {
        assert_eq!(
            occurrences(&world, plan.id, before.0 + 2).await,
            before,
            "something happened behind the answer"
        );
    }
    assert_recorded(&world).await;
}

/// How many are recorded, and how many of those up to a number are in the journal.
async fn occurrences(world: &World, schedule: Uuid, up_to: i64) -> (i64, i64) {
    let ids: Vec<Uuid> = (1..=up_to)
        .map(|number| transfer::app::schedules::occurrence_id(schedule, number))
        .collect();
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM schedule_runs WHERE schedule_id = $1), (SELECT count(*) FROM journal WHERE id = ANY ($2))",
    )
    .bind(schedule)
    .bind(ids)
    .fetch_one(world.pool())
    .await
    .unwrap()
}
