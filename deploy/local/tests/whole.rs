//! `local up` from an empty folder to a clean stop, twice. Needs the five programs: `cargo build --workspace --bins`.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

struct Up {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Up {
    /// Starts it and waits until it says that everything is up.
    fn start(data: &Path, port: u16) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_local"))
            .args([
                "up",
                "--replicas",
                "2",
                "--inner-port",
                &inner_ports()?.to_string(),
                "--port",
                &port.to_string(),
                "--data",
            ])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let mut said = Vec::new();
        for line in lines.by_ref() {
            said.push(line?);
            if said.last().is_some_and(|line| line.starts_with("kontor is up")) {
                return Ok(Self { child, lines });
            }
        }
        anyhow::bail!(
            "local up ended with {}; it said:\n{}",
            child.wait()?,
            said.join("\n")
        )
    }

    /// Ctrl-C; returns what it said last.
    fn interrupt(mut self) -> Result<String> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        let last = self
            .lines
            .by_ref()
            .map_while(Result::ok)
            .last()
            .unwrap_or_default();
        let status = self.child.wait()?;
        ensure!(status.success(), "local up ended with {status}: {last}");
        Ok(last)
    }
}

/// The first of the inner ports that two replicas take.
fn inner_ports() -> Result<u16> {
    let services = (1..5).flat_map(|hundred| hundred * 100..hundred * 100 + 2);
    local::ports::free_row(&(0..5).chain(services).collect::<Vec<_>>())
}

/// The first of the ports of two gateways.
fn gateway_ports() -> Result<u16> {
    local::ports::free_row(&[0, 1])
}

impl Drop for Up {
    fn drop(&mut self) {
        // a failed test must not leave it: its children die with it
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn everything_comes_up_stops_cleanly_and_keeps_its_data() -> Result<()> {
    let data = tempfile::tempdir()?;
    let first = Up::start(data.path(), gateway_ports()?)?;
    ensure!(
        first.interrupt()?.contains("stopped; the data stays"),
        "it does not say that it stopped"
    );
    ensure!(
        data.path().join("demo-loaded").exists(),
        "the demo data was not loaded"
    );

    let port = gateway_ports()?;
    let second = Up::start(data.path(), port)?;
    let login = r#"{"email":"alice@example.com","password":"password123"}"#;
    let answer = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "10",
            "--json",
            login,
            &format!("http://127.0.0.1:{}/api/login", port + 1),
        ])
        .output()?;
    let answer = String::from_utf8(answer.stdout)?;
    ensure!(
        answer.contains(r#""user_id":1"#),
        "Alice cannot sign in at the second gateway: {answer}"
    );
    second.interrupt()?;
    Ok(())
}
