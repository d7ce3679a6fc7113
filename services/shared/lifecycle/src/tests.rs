use std::{future::pending, io};

use tokio::{sync::oneshot, time::sleep};

use super::*;

const GRACE: Duration = Duration::from_secs(10);

async fn serve(lifecycle: &Lifecycle) -> io::Result<()> {
    lifecycle.draining().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn background_tasks_outlive_requests() {
    let lifecycle = Lifecycle::new(GRACE);
    let (sender, receiver) = oneshot::channel::<()>();
    let task = lifecycle.clone();
    lifecycle.spawn("relay", async move {
        receiver.await.unwrap();
        assert!(
            !task.is_stopping(),
            "the request was served before the second stage"
        );
        task.stopping().await;
    });
    lifecycle.spawn_request_scoped("request", async move {
        sleep(Duration::from_secs(9)).await;
        sender.send(()).unwrap();
    });
    lifecycle.drain();
    lifecycle.finish(serve(&lifecycle)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_is_dropped_after_the_grace_time() {
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.drain();
    let start = Instant::now();
    lifecycle.finish(pending::<io::Result<()>>()).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(lifecycle.is_stopping());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_request_task_and_server_share_one_grace_time() {
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn_request_scoped("request", pending());
    lifecycle.drain();
    let start = Instant::now();
    lifecycle
        .finish(async {
            sleep(Duration::from_secs(9)).await;
            io::Result::Ok(())
        })
        .await
        .unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_task_that_ends_early_shuts_the_process_down() {
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn("relay", async {});
    let failure = lifecycle.finish(serve(&lifecycle)).await.unwrap_err();
    assert_eq!(failure.to_string(), "the task \"relay\" ended early");
}

#[tokio::test]
async fn a_task_that_panics_shuts_the_process_down() {
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn("relay", async { panic!("on purpose") });
    let failure = lifecycle.finish(serve(&lifecycle)).await.unwrap_err();
    assert!(matches!(failure, Failure::Panicked("relay")), "{failure}");
}

#[tokio::test]
async fn a_panic_of_a_request_ends_only_the_request() {
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn_request_scoped("request", async { panic!("on purpose") });
    lifecycle.0.tasks.requests_done().await;
    assert!(!lifecycle.is_draining());
    lifecycle.drain();
    lifecycle.finish(serve(&lifecycle)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stuck_task_is_named() {
    let lifecycle = Lifecycle::new(GRACE);
    lifecycle.spawn("stuck", pending());
    let task = lifecycle.clone();
    lifecycle.spawn("good", async move { task.stopping().await });
    lifecycle.drain();
    let failure = lifecycle.finish(serve(&lifecycle)).await.unwrap_err();
    assert_eq!(failure.to_string(), "tasks did not end in time: stuck");
}

#[tokio::test]
async fn the_servers_error_is_the_result() {
    let lifecycle = Lifecycle::new(GRACE);
    let failure = lifecycle
        .finish(async { Err::<(), _>(io::Error::other("port")) })
        .await
        .unwrap_err();
    assert_eq!(failure.to_string(), "the server failed: port");
    let lifecycle = Lifecycle::new(GRACE);
    let failure = lifecycle
        .finish(async { Ok::<(), io::Error>(()) })
        .await
        .unwrap_err();
    assert!(matches!(failure, Failure::Ended("server")));
}

#[tokio::test(start_paused = true)]
async fn a_task_nobody_waits_for_is_dropped_at_the_second_stage() {
    let lifecycle = Lifecycle::new(GRACE);
    let (sender, receiver) = oneshot::channel::<()>();
    lifecycle.spawn_until_stopping("connection", async move {
        let _held = sender;
        pending::<()>().await;
    });
    lifecycle.drain();
    let start = Instant::now();
    lifecycle.finish(serve(&lifecycle)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "nobody waited");
    receiver.await.unwrap_err();
}
