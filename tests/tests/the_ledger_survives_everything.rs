//! Money survives everything: random histories of all features on three replicas, while replicas, PostgreSQL and Kafka are
//! killed with `kill -9` and connections are cut, half closed, silent and slow. Clients repeat what they do not know the end
//! of. Behind it the journal, the balances, the events and what every client was told agree to the unit.
//!
//! `tests/chaos` runs it for as long as one wants.

mod books;
mod client;
mod history;
mod order;
mod outcomes;
mod parties;
mod planned;
mod published;
mod restless;
mod summary;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, future::try_join_all};
use proto::transfer::v1::{VerifyLedgerRequest, ledger_admin_service_client::LedgerAdminServiceClient};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tests::{
    Service, TestWorld,
    chaos::{Chaos, Rhythm},
    eventually, promise_within, random,
    world::Options,
};
use tonic::Code;

use self::{
    books::Row,
    client::{Doors, Record},
    history::Client,
    order::{By, Order, What},
    outcomes::Journal,
    parties::Parties,
    planned::Planner,
    restless::Restless,
    summary::{Tally, Totals},
};

/// Whether a service of the ledger that is not there yet is an error.
const STRICT: bool = true;
const REPLICAS: usize = 3;
const CLIENTS: u64 = 24;
/// How long everything is broken, in seconds, unless `KONTOR_TEST_CHAOS_SECONDS` says it.
const USUAL: u64 = 35;
/// What the rest may take: the start, the last attempts, the claims of dead replicas, the checks.
const REST: Duration = Duration::from_mins(8);
/// Behind the chaos each replica must do its work again: longer than a connection may be silent, and much shorter than the
/// system takes to give one up that was lost.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// Behind the chaos everything that is under way must end.
const SETTLED_WITHIN: Duration = Duration::from_mins(2);

#[test]
fn all_that_was_acknowledged_is_there_and_nothing_else() -> Result<()> {
    let seconds = Duration::from_secs(seconds());
    promise_within(seconds + REST, async {
        let world = TestWorld::start(Options {
            services: vec![Service::Transfer],
            replicas: REPLICAS,
            own_servers: true,
            proxy_each: true,
            // every batch is large: the way with most that can go wrong
            settings: vec![(
                Some(Service::Transfer),
                "KONTOR_LEDGER_LARGE_BATCH",
                "2".to_owned(),
            )],
            ..Options::default()
        })
        .await?;
        let ledger = ledger(&world).await?;
        let tally = Tally::default();
        let open = || Doors::open(&world, &tally);
        let parties = Parties::gather(&open()?, &ledger, &mut random::choices(0)).await?;
        let until = Instant::now() + seconds;
        let clients =
            (1..=CLIENTS).map(async |number| Client::new(number, open()?, &parties).work(until).await);
        let rhythm = rhythm(seconds);
        let chaos = Chaos::new(&world, Service::Transfer);
        let (clients, planner, restless, faults) = tokio::try_join!(
            try_join_all(clients),
            Planner::new(open()?, &parties).work(until),
            Restless::new(open()?, &parties).work(until),
            chaos.run(&rhythm, until),
        )?;

        let healed = Instant::now();
        let mut records = every_replica_serves(&open()?, &parties).await?;
        let serving_in = healed.elapsed();
        everything_settles(&ledger).await?;
        everything_is_published(&ledger).await?;
        let settled_in = healed.elapsed();
        records.extend(planner.ended().await?);
        records.extend(parties.first.iter().cloned());
        let mut dry = Vec::new();
        for client in clients {
            records.extend(client.records);
            dry.extend(client.dry);
        }
        let journal = books::journal(&ledger).await?;
        let (events, repeated_events) = published::check(&world, &journal).await?;
        let totals = Totals {
            unknown: records.iter().filter(|record| record.unknown > 0).count(),
            rows: journal.len(),
            accounts: books::check(&ledger, &journal, parties.restless.id).await?,
            events,
            repeated_events,
            serving_in,
            settled_in,
        };
        show(&tally.report(&faults, &totals));
        let treasuries = books::treasuries(&ledger).await?;
        Journal::new(&journal, treasuries).agrees_with(&records, &dry)?;
        restless.check(&ledger, &journal).await?;
        the_ledger_verifies_itself(&open()?, journal.len()).await?;
        everything_was_tried(&tally, &journal)
    })
}

/// What did not happen, the test has not shown.
fn everything_was_tried(tally: &Tally, journal: &[Row]) -> Result<()> {
    const KINDS: [&str; 9] = [
        "transfer",
        "split",
        "pending",
        "post",
        "void",
        "reversal",
        "in a batch, linked",
        "in a stream, linked",
        "planned transfer",
    ];
    let (done, refused) = tally.totals();
    ensure!(done > 200 && refused > 20, "{done} done, {refused} refused");
    let missing: Vec<_> = KINDS.into_iter().filter(|kind| tally.done(kind) == 0).collect();
    ensure!(missing.is_empty(), "never done: {missing:?}");
    ensure!(
        journal.iter().any(|row| row.kind == "expire"),
        "nothing ended by itself"
    );
    Ok(())
}

/// Faults follow each other so that a short run has some of each kind.
fn rhythm(seconds: Duration) -> Rhythm {
    let millis = |from, to| Duration::from_millis(from)..Duration::from_millis(to);
    Rhythm {
        replicas: millis(500, 4_000),
        postgres: millis(3_000, 9_000),
        network: millis(200, 3_000),
        // once in a short run
        kafka: seconds.min(Duration::from_secs(30)) / 3..Duration::from_secs(40).min(seconds / 2),
    }
}

fn seconds() -> u64 {
    // the one variable that steers a test by hand; a program's settings come from `settings`
    #[expect(clippy::disallowed_methods, reason = "a test has no settings::Reader")]
    let given = std::env::var("KONTOR_TEST_CHAOS_SECONDS");
    given.ok().and_then(|given| given.parse().ok()).unwrap_or(USUAL)
}

/// The ledger's database, whose connections are made anew when PostgreSQL was killed.
async fn ledger(world: &TestWorld) -> Result<PgPool> {
    let options = (*world.database(Service::Transfer).await?.connect_options()).clone();
    Ok(PgPoolOptions::new().max_connections(2).connect_lazy_with(options))
}

/// Nothing is broken any more: each replica must find that out, whatever has become of its connections.
async fn every_replica_serves(doors: &Doors<'_>, parties: &Parties) -> Result<Vec<Record>> {
    try_join_all((0..REPLICAS).map(async |at| {
        let what = What::Deposit {
            to: parties.accounts[0],
            amount: 1,
        };
        let order = Order::new(By::Operator, what);
        let answer = doors.until_it_answers(at, &order, SERVES_WITHIN).await?;
        Ok(Record {
            order,
            answer,
            unknown: 0,
            chain: None,
        })
    }))
    .await
}

/// Waits until nothing is on its way: expired transfers have ended, and planned ones have happened.
async fn everything_settles(ledger: &PgPool) -> Result<()> {
    eventually(
        "everything has ended whose time is over",
        SETTLED_WITHIN,
        async || {
            let over: i64 =
                sqlx::query_scalar("SELECT count(*) FROM holds WHERE expires_at < now() + interval '10 s'")
                    .fetch_one(ledger)
                    .await?;
            ensure!(over == 0, "{over} pending transfers are over");
            let due: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM schedules WHERE state = 'active' OR tries > 0 AND state = 'cancelled'",
            )
            .fetch_one(ledger)
            .await?;
            ensure!(due == 0, "{due} planned transfers are due");
            Ok(())
        },
    )
    .await
}

async fn everything_is_published(ledger: &PgPool) -> Result<()> {
    eventually("the journal is published", SETTLED_WITHIN, async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*)
               FROM journal
               LEFT JOIN published ON published.lane = journal.lane
              WHERE journal.sequence > coalesce(published.sequence, 0)",
        )
        .fetch_one(ledger)
        .await?;
        ensure!(waiting == 0, "{waiting} rows wait");
        Ok(())
    })
    .await
}

async fn the_ledger_verifies_itself(doors: &Doors<'_>, rows: usize) -> Result<()> {
    let patience = Duration::from_mins(2);
    let request = doors.request(&By::Operator.caller(), VerifyLedgerRequest::default(), patience)?;
    let answers = LedgerAdminServiceClient::new(doors.channel(0))
        .verify_ledger(request)
        .await;
    let mut answers = match answers {
        Ok(answers) => answers.into_inner(),
        Err(status) if status.code() == Code::Unimplemented && !STRICT => return Ok(()),
        Err(status) => bail!("the ledger cannot be verified: {status}"),
    };
    let mut last = None;
    while let Some(answer) = answers.next().await {
        last = Some(answer?);
    }
    let last = last.context("no answer")?;
    ensure!(
        last.done && last.bad_row.is_none(),
        "the ledger is not sound: {last:?}"
    );
    ensure!(
        last.verified_rows == i64::try_from(rows)?,
        "{} rows verified",
        last.verified_rows
    );
    Ok(())
}

fn show(text: &str) {
    #[expect(
        clippy::print_stderr,
        reason = "the summary is what one runs the long form for"
    )]
    {
        eprintln!("{text}");
    }
}
