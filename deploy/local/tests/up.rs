//! What `local up` says when it cannot start, and what happens to a process that ends by itself.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::{
    process::{Command, Output},
    time::Duration,
};

use local::{DataFolder, Infra, InfraOptions, Progress, keep, ports};
use tokio::sync::mpsc;

fn up(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_local"))
        .arg("up")
        .args(arguments)
        .output()
        .unwrap()
}

/// The one sentence that a failed start says.
fn sentence(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_second_up_on_a_folder_names_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let first = DataFolder::open(folder.path()).unwrap();
    let said = sentence(&up(&["--data", folder.path().to_str().unwrap()]));
    assert!(said.contains("Another ./deploy/up"), "{said}");
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    drop(first);
}

#[test]
fn a_taken_port_is_one_sentence_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let port = ports::free().unwrap();
    let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let said = sentence(&up(&[
        "--data",
        folder.path().to_str().unwrap(),
        "--port",
        &port.to_string(),
    ]));
    assert!(
        said.contains(&format!("Port {port}")) && said.contains("--port"),
        "{said}"
    );
    assert!(!folder.path().join("postgres").exists());
}

#[test]
fn fresh_touches_no_folder_that_is_not_kontors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("precious"), "").unwrap();
    let said = sentence(&up(&["--fresh", "--data", folder.path().to_str().unwrap()]));
    assert!(said.contains("other things in it"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_started_again_and_said_so() {
    let infra = Infra::start(InfraOptions::default()).await.unwrap();
    let redis = infra.redis().unwrap().clone();
    let first = redis.pid().unwrap();
    let (lines, mut said) = mpsc::channel(16);
    let progress = Progress::new(move |line| lines.try_send(line.to_owned()).unwrap());
    let killed = async {
        redis.send(nix::sys::signal::Signal::SIGKILL).unwrap();
        let ended = said.recv().await.unwrap();
        assert!(
            ended.contains("Redis ended by itself") && ended.contains("signal: 9"),
            "{ended}"
        );
        let back = said.recv().await.unwrap();
        assert!(back.contains("Redis runs again"), "{back}");
    };
    let watched = async {
        tokio::select! {
            () = keep(redis.clone(), progress) => panic!("the keeper has ended"),
            () = killed => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(30), watched)
        .await
        .unwrap();
    assert_ne!(redis.pid().unwrap(), first);
}
