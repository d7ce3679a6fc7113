//! kubectl as a child process: what a platform engineer types is what is tested.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// Longer than any rollout; a command that hangs must not hang a test.
const LIMIT: Duration = Duration::from_mins(4);

/// kubectl for one cluster and one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    config: String,
    namespace: String,
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Kubectl {
    /// For the cluster of a kubeconfig file, in the namespace `kontor`.
    pub fn new(config: &str) -> Self {
        Self {
            config: config.to_owned(),
            namespace: "kontor".to_owned(),
        }
    }

    /// The same for another namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..self.clone()
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(["--kubeconfig", &self.config, "--namespace", &self.namespace])
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    /// Runs a command, with an input perhaps; whatever it says is no error.
    pub async fn say(&self, arguments: &[&str], input: &str) -> Result<Said> {
        said(self.command(arguments), input)
            .await
            .with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// The output of a command, which must not fail.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// The same with an input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let said = self.say(arguments, input).await?;
        ensure!(
            said.code == 0,
            "kubectl {}: {}",
            arguments.join(" "),
            said.err.trim()
        );
        Ok(said.out)
    }

    /// `kubectl get … -o json`.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "-o", "json"], arguments].concat()).await?;
        serde_json::from_str(&text).context("kubectl get: not JSON")
    }

    /// `kubectl apply` of a manifest, or of a list of them.
    pub async fn apply(&self, manifest: &Value) -> Result<String> {
        self.run_with(&["apply", "-f", "-"], &manifest.to_string()).await
    }

    /// A way to a port of a pod, until it is dropped.
    pub async fn forward(&self, pod: &str, port: u16) -> Result<Forward> {
        let target = format!("pod/{pod}");
        let mut child = self
            .command(&[
                "port-forward",
                "--address",
                "127.0.0.1",
                &target,
                &format!(":{port}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("kubectl does not run")?;
        let out = child.stdout.take().context("kubectl has no output")?;
        let mut lines = BufReader::new(out).lines();
        let first = tokio::time::timeout(Duration::from_secs(20), lines.next_line())
            .await
            .context("kubectl port-forward does not begin")??
            .unwrap_or_default();
        // Forwarding from 127.0.0.1:43210 -> 7000
        let Some(address) = first.split(' ').find(|word| word.starts_with("127.0.0.1:")) else {
            bail!("kubectl port-forward {target}: {first:?}");
        };
        Ok(Forward {
            address: address.to_owned(),
            _out: lines,
            _child: child,
        })
    }
}

/// A forwarded port. Dropping it ends the way.
#[derive(Debug)]
pub struct Forward {
    /// Where it begins: `127.0.0.1:<port>`.
    pub address: String,
    // kubectl ends when nobody can read what it says
    _out: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

/// Runs a program to its end, within a limit.
pub async fn said(mut command: Command, input: &str) -> Result<Said> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("it does not run")?;
    let mut stdin = child.stdin.take().context("no input")?;
    let talk = async {
        // a program that does not read to the end says itself why
        let written = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await?;
        anyhow::Ok((written, output))
    };
    let (written, output) = tokio::time::timeout(LIMIT, talk)
        .await
        .with_context(|| format!("still not done after {} s", LIMIT.as_secs()))??;
    if output.status.success() {
        written.context("it did not read its input")?;
    }
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
