//! Owns the tasks of a process and ends them in two stages.
//!
//! 1. *Draining*: no new work is taken, requests in flight finish. Begins with a signal, with [`Lifecycle::drain`], or when an
//!    owned task fails. Lasts until the server is done, at most the grace time.
//! 2. *Stopping*: background tasks end (what a request started is still carried out by then) and are joined, for at most
//!    [`JOIN_TIMEOUT`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), lifecycle::Failure> {
//! let lifecycle = lifecycle::Lifecycle::new(std::time::Duration::from_secs(10));
//! lifecycle.on_signal();
//! let task = lifecycle.clone();
//! lifecycle.spawn("sweeper", async move { task.stopping().await });
//! # lifecycle.drain();
//! let serve = async { lifecycle.draining().await; Ok::<(), std::io::Error>(()) };
//! lifecycle.finish(serve).await
//! # }
//! ```
#![warn(missing_docs)]

mod backoff;
mod failure;
mod tasks;

use std::{error::Error, sync::Arc, time::Duration};

pub use backoff::Backoff;
pub use failure::Failure;
use futures_util::FutureExt;
use settings::{Invalid, Reader};
use tasks::Tasks;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long the second stage waits for background tasks; what still runs then is dropped and reported.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads `KONTOR_GRACE_MS`, the longest time that requests in flight get at shutdown.
pub fn grace(r: &mut Reader) -> Result<Duration, Invalid> {
    r.millis(
        "KONTOR_GRACE_MS",
        "time for requests in flight at shutdown",
        0..=600_000,
        10_000,
    )
}

/// The life of a process. Clones share it.
#[derive(Clone)]
pub struct Lifecycle(Arc<Inner>);

struct Inner {
    grace: Duration,
    draining: CancellationToken,
    stopping: CancellationToken,
    /// Everything is dropped where it stands.
    halted: CancellationToken,
    failure: failure::First,
    tasks: Tasks,
}

impl Lifecycle {
    /// A running process whose requests get `grace` at shutdown.
    pub fn new(grace: Duration) -> Self {
        Self(Arc::new(Inner {
            grace,
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            halted: CancellationToken::new(),
            failure: failure::First::default(),
            tasks: Tasks::default(),
        }))
    }

    /// From now on SIGTERM and SIGINT begin the draining, and a second one ends everything at once.
    pub fn on_signal(&self) {
        // registered here, not in the task: a signal that comes before the task runs must not kill the process
        let signals =
            signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
        match signals {
            Ok((term, interrupt)) => {
                self.spawn_until_stopping("signals", wait_for_signals(self.clone(), term, interrupt));
            }
            Err(error) => self.fail(Failure::Signals(error)),
        }
    }

    /// Owns a task that lives until [`Lifecycle::stopping`]. When it panics, or ends before the shutdown has begun, that is a
    /// failure of the process, and the draining begins.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let lifecycle = self.clone();
        self.0
            .tasks
            .background(name, self.0.halted.clone(), task, move |panicked| {
                if panicked {
                    lifecycle.fail(Failure::Panicked(name));
                } else if !lifecycle.is_draining() {
                    lifecycle.fail(Failure::Ended(name));
                }
            });
    }

    /// Owns a task that belongs to a request: it may end at any time, and draining waits for it within the grace time.
    /// A panic ends only the task. It keeps the current tracing span.
    pub fn spawn_request_scoped<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.tasks.request(name, self.0.halted.clone(), task);
    }

    /// Owns a task that may end at any time and that nobody waits for, such as one side of a client's connection: it is
    /// dropped where it stands when the second stage begins. A panic ends only the task.
    pub fn spawn_until_stopping<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tasks::loose(name, self.0.stopping.clone(), task);
    }

    /// Begins the shutdown.
    pub fn drain(&self) {
        if !self.is_draining() {
            tracing::info!("draining");
            self.0.draining.cancel();
        }
    }

    /// Whether the shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Waits for the first stage: take no new work.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Waits for the second stage: background tasks end.
    pub async fn stopping(&self) {
        self.0.stopping.cancelled().await;
    }

    /// Whether the second stage has begun.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }

    /// Begins the shutdown because something outside of an owned task failed. The first failure is the one reported.
    pub fn fail(&self, failure: Failure) {
        tracing::error!(error = %failure, "a part of the process failed");
        self.0.failure.set(failure);
        self.drain();
    }

    /// Runs `serve` to its end and the shutdown through both stages. `serve` is expected to end some time after
    /// [`Lifecycle::draining`]; it is dropped when the grace time is over.
    ///
    /// # Errors
    /// The first thing that failed: the server, an owned task, or a shutdown that had to be cut short by a second signal.
    /// Requests that outlive the grace time are no failure; they are logged.
    pub async fn finish<E>(&self, serve: impl Future<Output = Result<(), E>>) -> Result<(), Failure>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let inner = &*self.0;
        let grace = self.clone();
        // one deadline for the server and for the tasks of its requests
        let grace_over = async move {
            grace.draining().await;
            sleep_until(Instant::now() + grace.0.grace).await;
            tracing::warn!("the grace time is over: requests in flight are dropped");
        };
        let grace_over = grace_over.shared();
        tokio::select! {
            served = serve => match served {
                Ok(()) if self.is_draining() => {}
                Ok(()) => self.fail(Failure::Ended("server")),
                Err(error) => self.fail(Failure::Server(error.into())),
            },
            () = grace_over.clone() => {}
            () = inner.halted.cancelled() => {}
        }
        self.drain();
        tokio::select! {
            () = inner.tasks.requests_done() => {}
            () = grace_over => {}
            () = inner.halted.cancelled() => {}
        }
        tracing::info!("stopping");
        inner.stopping.cancel();
        if timeout(JOIN_TIMEOUT, inner.tasks.background_done())
            .await
            .is_err()
        {
            self.fail(Failure::Stuck(inner.tasks.alive()));
        }
        inner.halted.cancel();
        inner.failure.take().map_or(Ok(()), Err)
    }
}

async fn wait_for_signals(lifecycle: Lifecycle, mut term: Signal, mut interrupt: Signal) {
    let mut next = async || {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    next().await;
    lifecycle.drain();
    next().await;
    lifecycle.fail(Failure::Interrupted);
    lifecycle.0.halted.cancel();
}

#[cfg(test)]
mod tests;
