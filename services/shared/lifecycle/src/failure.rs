use std::{
    error::Error,
    io,
    sync::{Mutex, PoisonError},
};

/// Why a process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A background task ended although nobody had asked it to.
    #[error("the task \"{0}\" ended early")]
    Ended(&'static str),
    /// A background task panicked.
    #[error("the task \"{0}\" panicked")]
    Panicked(&'static str),
    /// The server failed.
    #[error("the server failed: {0}")]
    Server(#[source] Box<dyn Error + Send + Sync>),
    /// Background tasks that did not end when they were asked to.
    #[error("tasks did not end in time: {}", .0.join(", "))]
    Stuck(Vec<&'static str>),
    /// A second signal cut the shutdown short.
    #[error("stopped at once by a second signal")]
    Interrupted,
    /// The process cannot receive signals.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] io::Error),
}

/// The failure that came first; later ones are its consequences more often than not.
#[derive(Default)]
pub(crate) struct First(Mutex<Option<Failure>>);

impl First {
    pub fn set(&self, failure: Failure) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
    }

    pub fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
