//! The peer: the same work as plain SQL by pgbench, one transaction for each transfer, on the same PostgreSQL.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use local::{Infra, postgres_programs};
use tokio::{process::Command, time::timeout};

use super::{
    requests::{HOT, Shape, USERS},
    usage::Meter,
};
use crate::cli::say;

const DATABASE: &str = "pgbench";
const SCHEMA: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
    CREATE TABLE transfers (
        id          uuid PRIMARY KEY,
        payer       bigint NOT NULL,
        payee       bigint NOT NULL,
        amount      bigint NOT NULL,
        created_at  timestamptz NOT NULL DEFAULT now()
    );";

/// What pgbench does, to be compared with.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// With the number of clients that is best, on uniform accounts.
    Uniform,
    /// The same on one account.
    Hot,
    /// One client.
    Single,
}

/// The numbers of clients that do most.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    uniform: u32,
    hot: u32,
}

impl Peer {
    /// Finds out how many clients do most.
    pub async fn find(infra: &Infra, meter: &Meter, seconds: u64) -> Result<Self> {
        prepare(infra).await?;
        let best = async |shape, numbers: &[u32]| {
            let mut best = (0, 1);
            for clients in numbers {
                let rate = once(infra, meter, shape, *clients, seconds).await?;
                best = best.max((rate, *clients));
            }
            anyhow::Ok(best.1)
        };
        Ok(Self {
            uniform: best(Shape::Uniform, &[1, 8, 32, 64]).await?,
            hot: best(Shape::Hot, &[1, 8, 32]).await?,
        })
    }

    /// Measures once, in transfers per second.
    pub async fn run(self, way: Way, infra: &Infra, meter: &Meter, seconds: u64) -> Result<u64> {
        let (shape, clients) = match way {
            Way::Uniform => (Shape::Uniform, self.uniform),
            Way::Hot => (Shape::Hot, self.hot),
            Way::Single => (Shape::Uniform, 1),
        };
        once(infra, meter, shape, clients, seconds).await
    }
}

/// Both rows locked in id order, two updates and an insert.
fn script(shape: Shape) -> String {
    let pair = match shape {
        Shape::Uniform => format!("\\set payer random(1, {USERS})"),
        Shape::Hot => format!("\\set payer {HOT}"),
    };
    let payment = match shape {
        Shape::Uniform => "\\set amount 1",
        // the hot account pays or is paid
        Shape::Hot => "\\set amount 2 * random(0, 1) - 1",
    };
    format!(
        "{pair}
\\set other random(1, {USERS} - 1)
\\set payee case when :other < :payer then :other else :other + 1 end
{payment}
BEGIN;
SELECT balance FROM accounts WHERE id IN (:payer, :payee) ORDER BY id FOR UPDATE;
UPDATE accounts SET balance = balance - :amount WHERE id = :payer;
UPDATE accounts SET balance = balance + :amount WHERE id = :payee;
INSERT INTO transfers (id, payer, payee, amount) VALUES (gen_random_uuid(), :payer, :payee, :amount);
COMMIT;
"
    )
}

/// Makes a database with accounts.
async fn prepare(infra: &Infra) -> Result<()> {
    infra.create_database(DATABASE).await?;
    let accounts = format!(
        "{SCHEMA}
INSERT INTO accounts SELECT id, 1000000000 FROM generate_series(1, {USERS}) AS id;"
    );
    let url = infra.postgres_url(DATABASE);
    let arguments = [
        &url,
        "--quiet",
        "--set",
        "ON_ERROR_STOP=1",
        "--command",
        &accounts,
    ];
    let program = postgres_programs()?.join("psql");
    run(&program, &arguments, Path::new("/"), Duration::from_secs(30)).await?;
    Ok(())
}

/// One measurement, in transfers per second.
async fn once(infra: &Infra, meter: &Meter, shape: Shape, clients: u32, seconds: u64) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("transfer.sql");
    fs::write(&file, script(shape))?;
    let (count, duration) = (clients.to_string(), seconds.to_string());
    let (url, file) = (infra.postgres_url(DATABASE), file.display().to_string());
    let mut arguments = vec!["--no-vacuum", "--protocol=prepared", "--jobs=2"];
    if clients == 1 {
        // the microseconds of each transaction, in a file
        arguments.push("--log");
    }
    arguments.extend(["--client", &count, "--time", &duration, "--file", &file, &url]);
    let program = postgres_programs()?.join("pgbench");
    let limit = Duration::from_secs(seconds + 30);
    let before = meter.read()?;
    let report = run(&program, &arguments, folder.path(), limit).await?;
    let usage = meter.read()?.since(&before);
    let rate = rate(&report)?;
    let name = match shape {
        Shape::Uniform => "uniform",
        Shape::Hot => "hot",
    };
    let percentiles = if clients == 1 {
        percentiles(folder.path())?
    } else {
        String::new()
    };
    say(&format!(
        "pgbench {name}, {clients} clients: {rate}/s{percentiles}\n  CPU µs each: {}",
        usage.per_request(rate * seconds)
    ))?;
    Ok(rate)
}

/// `tps = 5334.123 (without initial connection time)`
fn rate(report: &str) -> Result<u64> {
    let whole = report
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .and_then(|rest| rest.split('.').next());
    Ok(whole.with_context(|| format!("no rate in {report}"))?.parse()?)
}

fn percentiles(folder: &Path) -> Result<String> {
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("pgbench_log.") {
            let log = fs::read_to_string(&path)?;
            // client, transaction, microseconds, …
            latencies.extend(
                log.lines()
                    .filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()),
            );
        }
    }
    latencies.sort_unstable();
    let at = |percent| latencies.get(latencies.len() * percent / 100).copied();
    let (p50, p99) = (at(50).unwrap_or(0), at(99).unwrap_or(0));
    Ok(format!(
        ", p50 {}, p99 {} ms",
        super::generator::ms(p50),
        super::generator::ms(p99)
    ))
}

async fn run(program: &Path, arguments: &[&str], folder: &Path, limit: Duration) -> Result<String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let shown = program.display();
    let output = timeout(limit, command.output())
        .await
        .with_context(|| format!("{shown} takes too long"))??;
    ensure!(
        output.status.success(),
        "{shown} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_report() {
        let report = "latency average = 1 ms\ntps = 5334.999 (without initial connection time)\n";
        assert_eq!(rate(report).unwrap(), 5_334);
        assert!(rate("nothing").is_err());
    }
}
