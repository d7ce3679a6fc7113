use std::time::{Duration, Instant};

use chrono::TimeDelta;
use transfer::{
    app::{
        error::Error,
        order::Party,
        schedules::{MAX_ACTIVE, Plan},
    },
    domain::{
        account::Role,
        command::{Authority, Refusal},
        money::Currency,
        schedule::{State, Unit},
    },
};
use uuid::Uuid;

use super::{
    a_schedule_fires_once::{Clock, Scheduler, plan, repeated},
    world::{World, amount, usd},
};
use transfer::app::directory::Accounts as _;

struct Bank {
    world: World,
    clock: Clock,
    scheduler: Scheduler,
    store: transfer::store::Postgres,
}

async fn bank() -> Bank {
    let world = World::new().await;
    let clock = Clock::at("2030-01-01T00:00:00Z");
    let replica = world.replica();
    replica.users(2, 100).await;
    Bank {
        scheduler: clock.scheduler(&replica, Duration::from_mins(1)),
        world,
        clock,
        store: replica.store,
    }
}

#[tokio::test]
async fn however_often_it_is_asked_for() {
    let Bank {
        world,
        clock,
        scheduler,
        ..
    } = bank().await;
    let plan = repeated(plan(1, 2, 10, clock.now()), Unit::Day, 1, 3);
    let attempts = (0..8).map(|_| scheduler.plan(&plan, false));
    let answers: Vec<_> = futures_util::future::join_all(attempts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.schedule == answers[0].schedule)
    );
    // the first occurrence is in the past by then: the answer stays what it was
    clock.pass(TimeDelta::hours(1));
    scheduler.pass().await.unwrap();
    let again = scheduler.plan(&plan, false).await.unwrap();
    assert_eq!((again.replayed, again.schedule.next), (true, 2));
    for (field, other) in others(&plan) {
        match scheduler.plan(&other, false).await {
            Err(Error::ScheduleIdReused(named)) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(world.sql("SELECT count(*) FROM schedules").await, 1);
}

fn others(plan: &Plan) -> Vec<(&'static str, Plan)> {
    let change = |change: &dyn Fn(&mut Plan)| {
        let mut other = plan.clone();
        change(&mut other);
        other
    };
    let payee = |party, minor| (party, amount(minor));
    vec![
        ("schedule_id", change(&|plan| plan.owner = 2)),
        ("transfer.pending", change(&|plan| plan.transfer.pending = true)),
        (
            "transfer.from",
            change(&|plan| plan.transfer.from = Party::Account(1)),
        ),
        (
            "transfer.to",
            change(&|plan| plan.transfer.to = vec![payee(Party::Account(9), 10)]),
        ),
        (
            "transfer.amount",
            change(&|plan| plan.transfer.to = vec![payee(Party::User(2), 11)]),
        ),
        (
            "transfer.splits",
            change(&|plan| plan.transfer.to.push(payee(Party::Account(9), 10))),
        ),
        (
            "transfer.currency",
            change(&|plan| plan.transfer.currency = Some(usd())),
        ),
        (
            "first_at",
            change(&|plan| plan.timing.first += TimeDelta::seconds(1)),
        ),
        ("recurrence", change(&|plan| plan.timing.recurrence = None)),
    ]
}

#[tokio::test]
async fn and_only_when_it_can_become_a_transfer() {
    let Bank {
        world,
        clock,
        scheduler,
        store,
    } = bank().await;
    let euro = Currency::from_code("EUR").unwrap();
    let (euros, _) = store.open_main(3, euro).await.unwrap();
    let treasury = store.system_account(Role::Treasury, usd()).await.unwrap();
    let good = plan(1, 2, 10_000, clock.now());
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = Plan {
            id: Uuid::now_v7(),
            ..good.clone()
        };
        change(&mut plan);
        plan
    };
    let to = |party| with(&move |plan| plan.transfer.to = vec![(party, amount(1))]);
    let refused = [
        (Refusal::CurrencyMismatch, to(Party::Account(euros))),
        (
            Refusal::CurrencyMismatch,
            with(&|plan| plan.transfer.currency = Some(euro)),
        ),
        (Refusal::AccountNotFound, to(Party::Account(treasury))),
        (Refusal::AccountNotFound, to(Party::Account(999))),
        (
            Refusal::NotYourAccount,
            with(&|plan| plan.transfer.from = Party::User(2)),
        ),
        (
            Refusal::NotYourAccount,
            with(&|plan| plan.transfer.from = Party::Account(euros)),
        ),
    ];
    for (refusal, plan) in refused {
        match scheduler.plan(&plan, false).await {
            Err(Error::Refused(refused)) => assert_eq!(refused, refusal, "{plan:?}"),
            other => panic!("{refusal:?}: {other:?}"),
        }
    }
    assert!(matches!(
        scheduler.plan(&to(Party::User(99)), false).await,
        Err(Error::UserNotFound)
    ));
    for away in [TimeDelta::seconds(-1), TimeDelta::days(3_654)] {
        let plan = with(&|plan| plan.timing.first += away);
        assert!(matches!(
            scheduler.plan(&plan, false).await,
            Err(Error::FirstOccurrence(_))
        ));
    }
    assert!(!scheduler.plan(&good, true).await.unwrap().replayed);
    assert_eq!(
        world.sql("SELECT count(*) FROM schedules").await,
        0,
        "a dry run plans nothing"
    );
    scheduler.plan(&good, false).await.unwrap();
    assert_eq!(
        world.sql("SELECT count(*) FROM schedules").await,
        1,
        "there may be money when the time comes"
    );
}

#[tokio::test]
async fn and_a_thousand_times_for_a_user() {
    let Bank {
        world,
        clock,
        scheduler,
        ..
    } = bank().await;
    let first = plan(1, 2, 1, clock.now() + TimeDelta::days(1));
    scheduler.plan(&first, false).await.unwrap();
    sqlx::query(
        "INSERT INTO schedules (id, owner_id, by_bank, created_at, from_user, payee_users, payee_accounts, payee_amounts,
                                pending, first_at, next_at)
         SELECT gen_random_uuid(), owner_id, by_bank, created_at, from_user, payee_users, payee_accounts, payee_amounts,
                pending, first_at, next_at
           FROM schedules, generate_series(2, $1 - 1)",
    )
    .bind(MAX_ACTIVE)
    .execute(world.pool())
    .await
    .unwrap();
    let more: Vec<Plan> = (0..4).map(|_| plan(1, 2, 1, clock.now())).collect();
    let answers = futures_util::future::join_all(more.iter().map(|plan| scheduler.plan(plan, false))).await;
    assert_eq!(
        answers.iter().filter(|answer| answer.is_ok()).count(),
        1,
        "one place was left"
    );
    assert!(
        answers
            .iter()
            .any(|answer| matches!(answer, Err(Error::TooManySchedules)))
    );
    let dry = scheduler.plan(&plan(1, 2, 1, clock.now()), true).await;
    assert!(matches!(dry, Err(Error::TooManySchedules)));
    scheduler.plan(&plan(2, 1, 1, clock.now()), false).await.unwrap();
    let soon = Instant::now() + Duration::from_secs(5);
    let ended = scheduler.cancel(first.id, 1, first.by, soon).await.unwrap();
    assert_eq!(ended.state, State::Cancelled);
    scheduler.plan(&plan(1, 2, 1, clock.now()), false).await.unwrap();
    let (mut all, mut below) = (0, None);
    loop {
        let (page, next) = scheduler.list(1, below, 300).await.unwrap();
        assert!(page.is_sorted_by(|one, other| one.ordinal > other.ordinal));
        all += page.len();
        below = next;
        if below.is_none() {
            break;
        }
    }
    assert_eq!(all, 1_001, "the cancelled one is still listed");
}

#[tokio::test]
async fn and_is_its_owners() {
    let Bank {
        world: _world,
        clock,
        scheduler,
        ..
    } = bank().await;
    let plan = plan(1, 2, 1, clock.now());
    scheduler.plan(&plan, false).await.unwrap();
    let soon = Instant::now() + Duration::from_secs(5);
    let stranger = Authority::User(2);
    assert!(matches!(
        scheduler.read(plan.id, 2, stranger).await,
        Err(Error::ScheduleNotFound)
    ));
    assert!(matches!(
        scheduler.cancel(plan.id, 2, stranger, soon).await,
        Err(Error::ScheduleNotFound)
    ));
    assert!(scheduler.list(2, None, 10).await.unwrap().0.is_empty());
    assert!(scheduler.read(plan.id, 9, Authority::Bank).await.is_ok());
    for _ in 0..2 {
        let cancelled = scheduler.cancel(plan.id, 1, plan.by, soon).await.unwrap();
        assert_eq!((cancelled.state, cancelled.next_at()), (State::Cancelled, None));
    }
    assert_eq!(scheduler.pass().await.unwrap(), 0);
}
