//! What ExportLedger sends, ImportLedger takes: all of it or nothing, and the new ledger goes on where the old one stopped.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use futures_util::{StreamExt as _, stream};
use proto::transfer::v1::{
    ExportLedgerRequest, ImportLedgerRequest, ImportLedgerResponse, LedgerPart, VerifyLedgerRequest,
    ledger_admin_service_server::LedgerAdminService as _, ledger_part::Part,
};
use tonic::{Code, Request, Status};
use transfer::{
    app::error::Error,
    domain::{
        command::Authority,
        schedule::{State, Unit},
    },
    events::Relay,
    rpc::Admin,
    store::Postgres,
};

use super::{
    a_changed_row_is_named::{assert_sound, tamper},
    a_schedule_fires_once::{Clock, plan, repeated},
    histories::{self, USERS, seed, written},
    kafka,
    world::{Replica, World, order, signer, soon},
};

fn admin(world: &World, replica: &Replica) -> Admin<Postgres> {
    Admin::new(replica.store.clone(), signer(), world.lifecycle().clone())
}

pub async fn export(world: &World, replica: &Replica) -> Vec<Part> {
    let parts = admin(world, replica)
        .export_ledger(Request::new(ExportLedgerRequest {}))
        .await
        .unwrap()
        .into_inner();
    let parts: Vec<Part> = parts
        .map(|part| part.unwrap().part.unwrap().part.unwrap())
        .collect()
        .await;
    assert!(matches!(parts.last(), Some(Part::Trailer(_))));
    parts
}

pub async fn import(
    world: &World,
    replica: &Replica,
    parts: &[Part],
) -> Result<ImportLedgerResponse, Status> {
    let requests: Vec<_> = parts
        .iter()
        .map(|part| {
            Ok(ImportLedgerRequest {
                part: Some(LedgerPart {
                    part: Some(part.clone()),
                }),
            })
        })
        .collect();
    let mut answers = admin(world, replica).take(stream::iter(requests))?;
    loop {
        let answer = answers.next().await.unwrap()?;
        if answer.done {
            assert!(answers.next().await.is_none());
            return Ok(answer);
        }
    }
}

/// All but the time of the export.
pub fn content(parts: &[Part]) -> &[Part] {
    assert!(matches!(parts.first(), Some(Part::Header(header)) if header.version == 1));
    &parts[1..]
}

/// Schedules that have happened, will happen, were refused and were cancelled; accounts with all that they can have.
pub async fn with_everything(world: &World, replica: &Replica) -> Clock {
    let clock = Clock::at("2027-03-01T12:00:00Z");
    let scheduler = clock.scheduler(replica, Duration::from_mins(1));
    let first = clock.now() + TimeDelta::hours(1);
    let mut poor = repeated(plan(2, 3, 9_000_000_000, first), Unit::Week, 1, 2);
    poor.transfer.pending = true;
    let mut rich = repeated(plan(3, 4, 5, first), Unit::Month, 2, 100);
    rich.by = Authority::Bank;
    let second = rich.transfer.to[0];
    rich.transfer
        .to
        .push((transfer::app::order::Party::User(5), second.1));
    let cancelled = repeated(plan(1, 2, 1, first), Unit::Day, 1, 100);
    let later = plan(1, 2, 7, first + TimeDelta::days(400));
    for plan in [&poor, &rich, &cancelled, &later] {
        scheduler.plan(plan, false).await.unwrap();
    }
    for _ in 0..3 {
        clock.pass(TimeDelta::days(30));
        while scheduler.pass().await.unwrap() > 0 {}
    }
    scheduler
        .cancel(cancelled.id, 1, Authority::User(1), soon())
        .await
        .unwrap();
    sqlx::raw_sql(
        "INSERT INTO accounts (user_id, role, currency, label, floor, ceiling, status, request_id)
         VALUES (1, 'additional', 'EUR', 'Urlaub & mehr', -500, 900, 'frozen', gen_random_uuid()),
                (NULL, 'fees', 'USD', '', 0, 9007199254740991, 'closed', NULL);
         INSERT INTO account_changes (account_id, changed_by, change, status, floor, ceiling)
         SELECT id, NULLIF(position, 0), 'freeze', 'frozen', floor, ceiling FROM accounts",
    )
    .execute(world.pool())
    .await
    .unwrap();
    clock
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_is_the_same() {
    let seed = seed();
    let (old, replicas) = written(3, seed, 120).await;
    let clock = with_everything(&old, &replicas[0]).await;
    let exported = export(&old, &replicas[0]).await;
    for table in [
        "accounts",
        "account_changes",
        "journal",
        "schedules",
        "schedule_runs",
    ] {
        let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
        let rows: i64 = rows.fetch_one(old.pool()).await.unwrap();
        let parts = exported.iter().filter(|part| table == table_of(part)).count();
        assert_eq!(i64::try_from(parts).unwrap(), rows, "{table}");
        assert!(rows > 1, "{table}");
    }
    let new = World::new().await;
    let replica = new.replica();
    let taken = import(&new, &replica, &exported).await.unwrap();
    assert_eq!(taken.rows, old.sql("SELECT count(*) FROM journal").await);
    assert_eq!(taken.accounts, USERS + 3);
    assert_eq!(taken.schedules, 4);
    assert_sound(&new, &replica).await;
    let again = export(&new, &replica).await;
    assert_eq!(content(&exported), content(&again));
    // with the same key even the signatures are the same
    for table in [
        "journal",
        "batches",
        "holds",
        "schedule_runs",
        "account_changes",
        "accounts",
    ] {
        let digest = format!("SELECT md5(string_agg(row::text, ';' ORDER BY row::text)) FROM {table} AS row");
        let digest = |world: &World| {
            let (pool, digest) = (world.pool().clone(), digest.clone());
            async move {
                let digest = sqlx::query_scalar(sqlx::AssertSqlSafe(digest));
                digest.fetch_one(&pool).await.unwrap()
            }
        };
        let [before, after]: [String; 2] = [digest(&old).await, digest(&new).await];
        assert_eq!(before, after, "{table}");
    }
    goes_on(&new, &replica, &clock, seed).await;
}

pub fn table_of(part: &Part) -> &'static str {
    match part {
        Part::Header(_) | Part::Trailer(_) => "",
        Part::Account(_) => "accounts",
        Part::Change(_) => "account_changes",
        Part::Row(_) => "journal",
        Part::Schedule(_) => "schedules",
        Part::Occurrence(_) => "schedule_runs",
    }
}

/// The imported ledger works: new accounts, transfers on the same lanes, schedules that do not repeat themselves.
async fn goes_on(world: &World, replica: &Replica, clock: &Clock, seed: u64) {
    let runs = world.sql("SELECT count(*) FROM schedule_runs").await;
    let scheduler = clock.scheduler(replica, Duration::from_mins(1));
    assert_eq!(
        scheduler.pass().await.unwrap(),
        0,
        "what has happened does not happen again"
    );
    clock.pass(TimeDelta::days(400));
    while scheduler.pass().await.unwrap() > 0 {}
    let later = world.sql("SELECT count(*) FROM schedule_runs").await;
    assert_eq!(
        later,
        runs + 7 + 1,
        "every other month of 400 days, and one that was still to come"
    );
    let (page, _) = scheduler.list(1, None, 10).await.unwrap();
    let states: Vec<State> = page.iter().map(|schedule| schedule.state).collect();
    assert_eq!(states, [State::Finished, State::Cancelled]);
    replica
        .ledger
        .open_main(USERS + 1, super::world::usd())
        .await
        .unwrap();
    replica.pay(order(1, USERS + 1, 3)).await.unwrap();
    histories::write(&[replica.clone(), world.replica()], seed.wrapping_add(2), 80).await;
    world.assert_sound().await;
    assert_sound(world, replica).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_what_is_older_than_signatures() {
    let (old, replicas) = written(2, seed(), 80).await;
    tamper(
        &old,
        &[
            "UPDATE journal SET lane = 0, signature = 0 WHERE lane = 1",
            "DELETE FROM batches WHERE lane = 1",
        ],
    )
    .await;
    let heads = assert_sound(&old, &replicas[0]).await;
    assert_eq!((heads[0].lane, heads[0].batch), (0, 0));
    let exported = export(&old, &replicas[0]).await;
    let new = World::new().await;
    let replica = new.replica();
    import(&new, &replica, &exported).await.unwrap();
    let heads = assert_sound(&new, &replica).await;
    assert!(heads[0].lane == 0 && heads[0].batch > 0, "now it is signed");
    let again = export(&new, &replica).await;
    assert_eq!(content(&exported), content(&again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_not_published_again() {
    let config = kafka::topic().await;
    let (old, replicas) = written(2, seed(), 40).await;
    let exported = export(&old, &replicas[0]).await;
    let new = World::new().await;
    // it leads already, and has seen that nothing is there
    let relay = Relay::start(new.pool(), &config, new.lifecycle());
    let leads = "SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid)
                  WHERE datname = current_database() AND application_name = 'journal relay' AND locktype = 'advisory'";
    while new.sql(leads).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let replica = new.replica();
    import(&new, &replica, &exported).await.unwrap();
    replica.pay(order(1, 2, 1)).await.unwrap();
    relay.wake();
    let waiting = "SELECT count(*) FROM journal j
                    WHERE j.sequence > coalesce((SELECT sequence FROM published p WHERE p.lane = j.lane), 0)";
    while new.sql(waiting).await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kafka::read_all(&config).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_beside_a_replica_that_owns_a_lane() {
    let (old, replicas) = written(2, seed(), 40).await;
    let exported = export(&old, &replicas[0]).await;
    let new = World::new().await;
    let replica = new.replica();
    // refused, but from now on the replica believes that its lane is empty
    let nowhere = transfer::app::order::Party::Account(77);
    let refused = replica
        .pay(transfer::app::order::Order {
            by: Authority::Bank,
            from: nowhere,
            to: vec![(transfer::app::order::Party::Account(78), super::world::amount(1))],
            ..order(1, 2, 1)
        })
        .await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    import(&new, &replica, &exported).await.unwrap();
    let order = order(1, 2, 1);
    match replica.pay(order.clone()).await {
        Ok(_) => {}
        Err(Error::Unavailable(_)) => drop(replica.pay(order).await.unwrap()),
        Err(other) => panic!("{other}"),
    }
    new.assert_sound().await;
    assert_sound(&new, &replica).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_few_at_once_and_not_while_it_stops() {
    let (world, replicas) = written(2, seed(), 400).await;
    let admin = Arc::new(admin(&world, &replicas[0]));
    // nobody reads them: they wait
    let first = admin
        .export_ledger(Request::new(ExportLedgerRequest {}))
        .await
        .unwrap();
    let second = admin
        .export_ledger(Request::new(ExportLedgerRequest {}))
        .await
        .unwrap();
    let third = admin
        .verify_ledger(Request::new(VerifyLedgerRequest::default()))
        .await;
    let refused = third.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // the client goes, and leaves room
    drop(second);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let verified = loop {
        match admin
            .verify_ledger(Request::new(VerifyLedgerRequest::default()))
            .await
        {
            Ok(answers) => break answers.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
        assert!(tokio::time::Instant::now() < deadline, "no room");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let answers: Vec<_> = verified.map(Result::unwrap).collect().await;
    let last = answers.last().unwrap();
    assert!(last.done && last.bad_row.is_none(), "{last:?}");
    assert_eq!(
        last.verified_rows,
        world.sql("SELECT count(*) FROM journal").await
    );
    assert_eq!(last.heads.len(), 2);
    // the heads can be given back as they came
    let known = VerifyLedgerRequest {
        known_heads: last.heads.clone(),
    };
    let answers = admin
        .verify_ledger(Request::new(known))
        .await
        .unwrap()
        .into_inner();
    assert!(
        answers
            .map(Result::unwrap)
            .any(|answer| async move { answer.done && answer.bad_row.is_none() })
            .await
    );
    world.lifecycle().drain();
    let ends: Vec<_> = first.into_inner().collect().await;
    let end = ends.last().unwrap().as_ref().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(rpc::error::reason(end).as_deref(), Some("DRAINING"));
}
