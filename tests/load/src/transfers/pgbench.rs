//! The peer: the same work as plain SQL, one transaction per transfer.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use local::{Infra, postgres_programs};
use tokio::{process::Command, time::timeout};

use super::figures::Figures;

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

/// Two users by chance, their rows locked in id order, two updates and an insert.
fn script(users: u32) -> String {
    format!(
        "\\set payer random(1, {users})
\\set other random(1, {users} - 1)
\\set payee case when :other < :payer then :other else :other + 1 end
BEGIN;
SELECT balance FROM accounts WHERE id IN (:payer, :payee) ORDER BY id FOR UPDATE;
UPDATE accounts SET balance = balance - 1 WHERE id = :payer;
UPDATE accounts SET balance = balance + 1 WHERE id = :payee;
INSERT INTO transfers (id, payer, payee, amount) VALUES (gen_random_uuid(), :payer, :payee, 1);
COMMIT;
"
    )
}

/// Makes a database with accounts.
pub(super) async fn prepare(infra: &Infra, users: u32) -> Result<()> {
    infra.create_database(DATABASE).await?;
    let accounts =
        format!("INSERT INTO accounts SELECT id, 1000000000 FROM generate_series(1, {users}) AS id;");
    let url = infra.postgres_url(DATABASE);
    let arguments = [
        &url,
        "--quiet",
        "--set",
        "ON_ERROR_STOP=1",
        "--command",
        &format!("{SCHEMA}{accounts}"),
    ];
    run(
        &postgres_programs()?.join("psql"),
        &arguments,
        Path::new("/"),
        Duration::from_secs(30),
    )
    .await
}

/// Measures the same closed loop; pgbench writes the microseconds of each transaction into log files.
pub(super) async fn measure(infra: &Infra, users: u32, clients: usize, seconds: u64) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("transfer.sql");
    std::fs::write(&file, script(users))?;
    let (clients, duration) = (clients.to_string(), seconds.to_string());
    let (url, file) = (infra.postgres_url(DATABASE), file.display().to_string());
    let arguments = [
        "--no-vacuum",
        "--protocol=prepared",
        "--jobs=2",
        "--log",
        "--client",
        &clients,
        "--time",
        &duration,
        "--file",
        &file,
        &url,
    ];
    let limit = Duration::from_secs(seconds + 30);
    run(
        &postgres_programs()?.join("pgbench"),
        &arguments,
        folder.path(),
        limit,
    )
    .await?;
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(folder.path())? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("pgbench_log."))
        {
            let log = std::fs::read_to_string(&path)?;
            // client, transaction, microseconds, …
            latencies.extend(
                log.lines()
                    .filter_map(|line| line.split(' ').nth(2)?.parse::<u32>().ok()),
            );
        }
    }
    Ok(Figures::new(latencies, Duration::from_secs(seconds)))
}

async fn run(program: &Path, arguments: &[&str], folder: &Path, limit: Duration) -> Result<()> {
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
    Ok(())
}
