use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// The tasks of a process, by how the shutdown treats them.
#[derive(Default)]
pub(crate) struct Tasks {
    background: TaskTracker,
    requests: TaskTracker,
    /// Names of the background tasks that run, to say which of them is stuck.
    alive: Arc<Mutex<Vec<&'static str>>>,
}

impl Tasks {
    /// `ended` is told whether the task panicked; it is not called for a task that was halted.
    pub fn background<F>(
        &self,
        name: &'static str,
        halted: CancellationToken,
        task: F,
        ended: impl FnOnce(bool) + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let alive = self.alive.clone();
        alive.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        start(self.background.track_future(async move {
            let result = run(halted, task).await;
            let mut names = alive.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = names.iter().position(|&other| other == name) {
                names.swap_remove(index);
            }
            drop(names);
            match result {
                End::Halted => {}
                End::Returned => ended(false),
                End::Panicked => ended(true),
            }
        }));
    }

    pub fn request<F>(&self, name: &'static str, halted: CancellationToken, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        start(
            self.requests
                .track_future(watched(name, halted, task).in_current_span()),
        );
    }

    pub async fn requests_done(&self) {
        self.requests.close();
        self.requests.wait().await;
    }

    pub async fn background_done(&self) {
        self.background.close();
        self.background.wait().await;
    }

    pub fn alive(&self) -> Vec<&'static str> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A task that nobody waits for.
pub(crate) fn loose<F>(name: &'static str, stopping: CancellationToken, task: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    start(watched(name, stopping, task));
}

enum End {
    Returned,
    Panicked,
    Halted,
}

async fn run(halted: CancellationToken, task: impl Future<Output = ()>) -> End {
    tokio::select! {
        // nothing of the task is seen again after a panic, so no broken invariant can be
        result = AssertUnwindSafe(task).catch_unwind() => if result.is_ok() { End::Returned } else { End::Panicked },
        () = halted.cancelled() => End::Halted,
    }
}

async fn watched(name: &'static str, halted: CancellationToken, task: impl Future<Output = ()>) {
    if let End::Panicked = run(halted, task).await {
        tracing::error!(task.name = name, "a task panicked");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this crate is the owner that the lint points to"
)]
fn start(task: impl Future<Output = ()> + Send + 'static) {
    // the handle is not needed: trackers wait for the tasks, tokens end them
    drop(tokio::spawn(task));
}
