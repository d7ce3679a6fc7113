//! Starts again what ends by itself.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{process::Process, progress::Progress};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A process that ran for so long is well again: its next end counts as the first.
const WELL_AFTER: Duration = Duration::from_mins(1);

/// Watches a process for ever: says how it ended, waits twice as long as last time, and starts it again.
pub async fn keep(process: Process, progress: Progress) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        if process.exited().await.is_none() {
            return; // it was never started, so there is nothing to keep
        }
        if started.elapsed() > WELL_AFTER {
            pause = FIRST_PAUSE;
        }
        let (name, how, seconds) = (process.name(), process.last_words(), pause.as_secs_f32());
        progress.say(&format!(
            "✗ {name} ended by itself ({how}); starting it again in {seconds:.1} s"
        ));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let since = Instant::now();
        match process.start().await {
            Ok(()) => progress.done(&format!("{name} runs again"), since),
            Err(error) => {
                // without its cause, which quotes the log
                progress.say(&format!(
                    "✗ {error}; see its log {}",
                    process.log_path().display()
                ));
                // one that runs without answering is no use: ended here, it is started again in the next round
                if process.pid().is_some() {
                    let _ = process.kill().await;
                }
            }
        }
    }
}
