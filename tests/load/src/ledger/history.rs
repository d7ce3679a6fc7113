//! Reading a ledger that has a long past, against one that has none.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result};
use local::{Service, World, WorldOptions};
use prost::Message;
use proto::transfer::v1::{GetBalanceRequest, ListEntriesRequest};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rpc::caller::Key;
use sqlx::{Connection, PgConnection};

use super::{
    Bench,
    generator::{Http2, Measured, Plan, Source, ms},
    people,
    requests::{USERS, operator, sign},
    table::Line,
    usage::Meter,
};
use crate::cli::say;

/// Reads in a second: what the ledger does with ease, so that the time of one read is seen.
const RATE: u64 = 1_000;
/// Entries on a page.
const PAGE: i32 = 20;

/// $1 transfers, in rounds. In each round every account pays once and is paid once, each round by another; so positions and
/// balances follow from the number of the row. Lane 0 is for what was there before rows were signed.
const PAST: &str = "
WITH account AS (
    SELECT id, position, posted, row_number() OVER (ORDER BY id) - 1 AS number FROM accounts WHERE role = 'main'
), span AS (
    SELECT count(*) AS size, max(last_at) AS since, clock_timestamp() - max(last_at) AS length
      FROM accounts WHERE role = 'main'
), drawn AS (
    SELECT k, k / size AS round, k % size AS payer, 1 + k / size % (size - 1) AS distance, size,
           since + length * (k::double precision / $1) AS at
      FROM span, generate_series(0, $1 - 1) AS k
)
INSERT INTO journal (lane, leg, sequence, id, debit_account, credit_account, moved, held, debit_position, credit_position,
                     debit_posted, debit_held, credit_posted, credit_held, created_at, signature, kind, currency)
SELECT 0, 0, k + 1, gen_random_uuid(), payer.id, payee.id, 1, 0,
       payer.position + 2 * round + CASE WHEN payer.number < distance THEN 1 ELSE 2 END,
       payee.position + 2 * round + CASE WHEN payer.number < payee.number THEN 1 ELSE 2 END,
       payer.posted - CASE WHEN payer.number < distance THEN 1 ELSE 0 END, 0,
       payee.posted + CASE WHEN payer.number < payee.number THEN 1 ELSE 0 END, 0,
       at, 0, 'transfer', 'USD'
  FROM drawn
  JOIN account payer ON payer.number = drawn.payer
  JOIN account payee ON payee.number = (drawn.payer + distance) % size";

/// The accounts have been through $1 rounds, and nothing of the past is news.
const AFTER: [&str; 2] = [
    "UPDATE accounts SET position = position + 2 * $1, last_at = (SELECT max(created_at) FROM journal) WHERE role = 'main'",
    "INSERT INTO published (lane, sequence) SELECT 0, $1 * count(*) FROM accounts WHERE role = 'main'
         ON CONFLICT (lane) DO UPDATE SET sequence = excluded.sequence",
];

/// How often each ledger is read: in turn, as the machine is faster at one time than at another.
const TURNS: usize = 3;

/// A ledger of its own, with accounts.
struct Ledger {
    name: &'static str,
    world: World,
    key: Key,
    meter: Meter,
    accounts: Vec<i64>,
}

impl Ledger {
    async fn open(bench: &Bench, name: &'static str) -> Result<Self> {
        let options = WorldOptions {
            services: vec![Service::Transfer],
            ..WorldOptions::default()
        };
        let world = World::start(Arc::clone(&bench.infra), options).await?;
        let key = Key::new(&world.caller_secret().to_owned().into())?;
        let meter = Meter::new(&world, &bench.infra);
        people::open_accounts(&world, &key, &meter).await?;
        let mut ledger = PgConnection::connect(&world.database_url(Service::Transfer)).await?;
        let accounts = sqlx::query_scalar("SELECT id FROM accounts WHERE role = 'main'")
            .fetch_all(&mut ledger)
            .await?;
        ledger.close().await?;
        Ok(Self {
            name,
            world,
            key,
            meter,
            accounts,
        })
    }
}

/// Reads a ledger with a past and one without, in turn, each in a world of its own.
pub(super) async fn measure(bench: &mut Bench, history: i64) -> Result<()> {
    bench.world.stop().await?;
    let rounds = history / USERS;
    let full = Ledger::open(bench, "full").await?;
    full.world.terminate(Service::Transfer, 0).await?;
    let since = Instant::now();
    load(&full.world, rounds).await?;
    say(&format!(
        "{} transfers were put in within {} s",
        rounds * USERS,
        since.elapsed().as_secs()
    ))?;
    full.world.start_instance(Service::Transfer, 0).await?;
    let empty = Ledger::open(bench, "empty").await?;
    for (work, what) in [
        ("list, long past", What::List),
        ("balance, long past", What::Balance),
    ] {
        let mut found: Option<[Measured; 2]> = None;
        for _ in 0..TURNS {
            let turn = [read(bench, &empty, what).await?, read(bench, &full, what).await?];
            match &mut found {
                None => found = Some(turn),
                Some(found) => {
                    for (all, more) in found.iter_mut().zip(&turn) {
                        all.add(more)?;
                    }
                }
            }
        }
        let [empty, full] = found.context("nothing was read")?;
        bench.lines.push(judge(work, &empty, &full, rounds * USERS)?);
    }
    full.world.stop().await?;
    empty.world.stop().await?;
    Ok(())
}

async fn load(world: &World, rounds: i64) -> Result<()> {
    let mut ledger = PgConnection::connect(&world.database_url(Service::Transfer)).await?;
    sqlx::query(PAST)
        .bind(rounds * USERS)
        .execute(&mut ledger)
        .await?;
    for statement in AFTER {
        sqlx::query(statement).bind(rounds).execute(&mut ledger).await?;
    }
    // else the server would do it while we measure
    sqlx::query("VACUUM ANALYZE journal").execute(&mut ledger).await?;
    sqlx::query("VACUUM ANALYZE accounts")
        .execute(&mut ledger)
        .await?;
    ledger.close().await?;
    Ok(())
}

/// Lists or balances of accounts drawn at random.
async fn read(bench: &mut Bench, ledger: &Ledger, what: What) -> Result<Measured> {
    let address = ledger.world.address(Service::Transfer, 0)?;
    let plan = Plan::open(address, RATE, bench.seed(), bench.during());
    let source = Reads {
        what,
        header: sign(&ledger.key, &operator())?.1,
        accounts: ledger.accounts.clone(),
        random: SmallRng::seed_from_u64(bench.seed()),
    };
    bench.meter = ledger.meter.clone();
    let name = match what {
        What::List => format!("list, {}", ledger.name),
        What::Balance => format!("balance, {}", ledger.name),
    };
    bench.measure::<Http2>(&name, plan, source).await
}

fn judge(work: &'static str, empty: &Measured, full: &Measured, history: i64) -> Result<Line> {
    let p99 = |measured: &Measured| Some(measured.latencies()?.at(0.99));
    let (before, after) = p99(empty).zip(p99(full)).context("nothing was read")?;
    let is_whole = empty.refusals().is_empty() && full.refusals().is_empty();
    let times = after * 100 / before.max(1);
    Ok(Line {
        work,
        measured: format!(
            "p99 {} ms with {history} transfers, {} ms with none{}",
            ms(after),
            ms(before),
            full.refused_note()
        ),
        peer: "–".to_owned(),
        ratio: format!("{}.{:02} × empty", times / 100, times % 100),
        must: "≤ 2 × empty",
        aim: "= empty",
        met: Some((is_whole && times <= 200, times <= 110)),
        others: full.usage.others_percent(),
    })
}

#[derive(Clone, Copy)]
enum What {
    List,
    Balance,
}

struct Reads {
    what: What,
    header: Vec<u8>,
    accounts: Vec<i64>,
    random: SmallRng,
}

impl Source for Reads {
    fn path(&self) -> &'static str {
        match self.what {
            What::List => "/kontor.transfer.v1.LedgerAccountService/ListEntries",
            What::Balance => "/kontor.transfer.v1.LedgerAccountService/GetBalance",
        }
    }

    fn next(&mut self, header: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<Option<u128>> {
        header.extend_from_slice(&self.header);
        let index = self.random.random_range(0..self.accounts.len());
        let account_id = *self.accounts.get(index).context("no such account")?;
        match self.what {
            What::List => ListEntriesRequest {
                account_id,
                page_size: PAGE,
                ..ListEntriesRequest::default()
            }
            .encode(body)?,
            What::Balance => GetBalanceRequest {
                account_id,
                ..GetBalanceRequest::default()
            }
            .encode(body)?,
        }
        Ok(Some(0))
    }
}
