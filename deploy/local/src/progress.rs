//! What takes long is said in one line each.

use std::{fmt, io::Write, sync::Arc, time::Instant};

/// Receives progress lines. The default is silent.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Receiver>>);

type Receiver = dyn Fn(&str) + Send + Sync;

impl Progress {
    /// Hands every line to `receiver`.
    pub fn new(receiver: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(receiver)))
    }

    /// Prints every line to standard output.
    pub fn print() -> Self {
        Self::new(|line| {
            let mut out = std::io::stdout().lock();
            // a closed pipe must not stop the servers
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        })
    }

    /// Says one line.
    pub fn say(&self, line: &str) {
        if let Some(receiver) = &self.0 {
            receiver(line);
        }
    }

    /// Says that something is done, and how long it took.
    pub fn done(&self, what: &str, since: Instant) {
        self.say(&format!("✓ {what} ({:.1} s)", since.elapsed().as_secs_f32()));
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() {
            "Progress"
        } else {
            "Progress(silent)"
        })
    }
}
