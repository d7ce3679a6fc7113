//! A signal drains, a second one stops. In a file of its own: signals reach the whole process.

use std::{future::pending, io, time::Duration};

use lifecycle::{Failure, Lifecycle};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[tokio::test]
async fn the_first_signal_drains_and_the_second_stops_at_once() {
    let lifecycle = Lifecycle::new(Duration::from_mins(10));
    lifecycle.on_signal();
    kill(Pid::this(), Signal::SIGTERM).unwrap();
    lifecycle.draining().await;
    assert!(!lifecycle.is_stopping());
    let again = lifecycle.clone();
    lifecycle.spawn("second signal", async move {
        kill(Pid::this(), Signal::SIGINT).unwrap();
        again.stopping().await;
    });
    let failure = lifecycle.finish(pending::<io::Result<()>>()).await.unwrap_err();
    assert!(matches!(failure, Failure::Interrupted), "{failure}");
}
