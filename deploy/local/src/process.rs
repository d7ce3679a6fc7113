//! A server as a child process: started, found ready, signalled, started again on the same address.

mod probe;
mod supervisor;

use std::{
    ffi::OsString,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

pub(crate) use probe::Probe;
use supervisor::Running;

/// How long a dropped process may take to end before it is killed.
const ABANDONED: Duration = Duration::from_secs(3);

/// A system user that a child runs as instead of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Everything needed to start a child, and to start it again.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// What people call it: `PostgreSQL`, `chat 2`.
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, String)>,
    /// Standard output and error are appended to this file.
    pub log: PathBuf,
    pub owner: Option<Owner>,
    pub probe: Probe,
    /// How long it may take until the probe succeeds.
    pub ready_within: Duration,
    /// Asks it to finish its work and end.
    pub stop: Signal,
    /// Ends it when nobody is there to wait: sent when the last handle is dropped.
    pub abandon: Signal,
}

/// A child process and how to start it again. Cheap to clone; when the last clone is dropped, the child is ended.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    spec: Spec,
    running: Mutex<Option<Running>>,
}

impl Process {
    pub(crate) fn new(spec: Spec) -> Self {
        Self(Arc::new(Inner {
            spec,
            running: Mutex::new(None),
        }))
    }

    /// What people call it: `PostgreSQL`, `chat 2`.
    pub fn name(&self) -> &str {
        &self.0.spec.name
    }

    /// The process number, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.0.alive().map(|running| running.pid)
    }

    /// The file with its standard output and error.
    pub fn log_path(&self) -> &Path {
        &self.0.spec.log
    }

    /// Starts the child and waits until it answers. Does nothing when it runs already.
    pub async fn start(&self) -> Result<()> {
        self.launch().await?;
        self.ready().await
    }

    /// Starts the child again and again until it answers: after `kill -9` a server may find its own traces in the way.
    pub async fn restart(&self) -> Result<()> {
        let deadline = Instant::now() + self.0.spec.ready_within;
        loop {
            match self.start().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Starts the child without waiting until it answers.
    pub async fn launch(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let running = supervisor::spawn(&self.0.spec).await.map_err(|error| {
            let program = self.0.spec.program.display();
            anyhow!("{} does not start ({program}: {error:#})", self.name())
        })?;
        *self.0.lock() = Some(running);
        Ok(())
    }

    /// Waits until the child answers. An error is one line that says what went wrong; its cause quotes the end of the log.
    pub async fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + self.0.spec.ready_within;
        loop {
            let problem = tokio::select! {
                biased;
                _ = self.exited() => {
                    let how = self.last_words();
                    return Err(self.quote_log().context(format!("{} ended before it was ready ({how})", self.name())));
                }
                answer = self.0.spec.probe.check() => answer,
            };
            let Err(problem) = problem else { return Ok(()) };
            if Instant::now() > deadline {
                let seconds = self.0.spec.ready_within.as_secs();
                let name = self.name();
                return Err(self
                    .quote_log()
                    .context(format!("{name} is not ready after {seconds} s ({problem:#})")));
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until the child has ended; `None` when it was never started.
    pub async fn exited(&self) -> Option<ExitStatus> {
        let mut exit = self.0.lock().as_ref()?.exit.clone();
        *exit.wait_for(Option::is_some).await.ok()?
    }

    /// Kills the child (`kill -9`) and waits until it is gone.
    pub async fn kill(&self) -> Result<ExitStatus> {
        self.send(Signal::SIGKILL)?;
        self.gone(Duration::from_secs(10)).await
    }

    /// Kills the child and the processes that it has started (`kill -9`), and waits until it is gone: what it had in memory
    /// is lost at one blow. A child killed alone may leave some that go on for a moment.
    pub async fn kill_family(&self) -> Result<ExitStatus> {
        let offspring = self.offspring()?;
        self.send(Signal::SIGKILL)?;
        for pid in offspring {
            // it may have ended by itself meanwhile, which is as good
            let _ = kill(pid, Signal::SIGKILL);
        }
        self.gone(Duration::from_secs(10)).await
    }

    /// The processes that the child has started and that still run.
    fn offspring(&self) -> Result<Vec<Pid>> {
        let Some(pid) = self.pid() else {
            bail!("{} does not run", self.name())
        };
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .with_context(|| format!("cannot read what {} has started", self.name()))?;
        let pids = list.split_whitespace().map(|pid| Ok(Pid::from_raw(pid.parse()?)));
        pids.collect()
    }

    /// Kills one of the processes that the child has started (`kill -9`): that of a place in their list, taken round.
    pub fn kill_one_of_family(&self, place: usize) -> Result<()> {
        let offspring = self.offspring()?;
        let pid = offspring.get(place % offspring.len().max(1));
        let pid = pid.with_context(|| format!("{} has started nothing", self.name()))?;
        // it may have ended by itself meanwhile, which is as good
        let _ = kill(*pid, Signal::SIGKILL);
        Ok(())
    }

    /// Asks the child to end, and returns how it ended. One that outlives `within` is killed, which is an error.
    pub async fn stop(&self, within: Duration) -> Result<ExitStatus> {
        self.send(self.0.spec.stop)?;
        if let Ok(status) = self.gone(within).await {
            return Ok(status);
        }
        self.kill().await?;
        bail!(
            "{} did not end within {} s and was killed; {}",
            self.name(),
            within.as_secs(),
            self.quote_log()
        );
    }

    /// Sends a signal; an error when the child does not run.
    pub fn send(&self, signal: Signal) -> Result<()> {
        let Some(running) = self.0.alive() else {
            bail!("{} does not run", self.name())
        };
        running
            .send(signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name()))
    }

    async fn gone(&self, within: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(within, self.exited()).await {
            Ok(Some(status)) => Ok(status),
            Ok(None) => bail!("{} does not run", self.name()),
            Err(_) => bail!("{} still runs", self.name()),
        }
    }

    /// Sends the last signal without waiting, so that many can end side by side before they are dropped.
    pub(crate) fn abandon(&self) {
        if let Some(running) = self.0.alive() {
            // it may have ended by itself meanwhile, which is as good
            let _ = running.send(self.0.spec.abandon);
        }
    }

    /// How the child ended, in words.
    pub(crate) fn last_words(&self) -> String {
        match self.0.lock().as_ref().and_then(|running| *running.exit.borrow()) {
            Some(status) => status.to_string(),
            None => "it was not started".to_owned(),
        }
    }

    fn quote_log(&self) -> anyhow::Error {
        let path = self.log_path();
        anyhow::Error::msg(match tail(path, 2_000) {
            Ok(text) if text.trim().is_empty() => format!("its log {} is empty", path.display()),
            Ok(text) => format!("its log {} ends with:\n{}", path.display(), text.trim_end()),
            Err(error) => format!("its log {} cannot be read: {error}", path.display()),
        })
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Process")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .finish()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        // the guarded value is replaced whole, so a panic elsewhere leaves it sound
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Option<Running> {
        self.lock()
            .as_ref()
            .filter(|running| running.exit.borrow().is_none())
            .cloned()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(running) = self.alive() else { return };
        let _ = running.send(self.spec.abandon);
        let deadline = Instant::now() + ABANDONED;
        // blocks, as the folders that the child writes to are removed next
        while running.exit.borrow().is_none() {
            if Instant::now() > deadline {
                let _ = running.send(Signal::SIGKILL);
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Running {
    fn send(&self, signal: Signal) -> nix::Result<()> {
        kill(Pid::from_raw(self.pid.cast_signed()), signal)
    }
}

/// The end of a file, from a line's beginning where it is cut.
fn tail(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, whole_lines)) if start > 0 => whole_lines.to_owned(),
        _ => text,
    })
}
