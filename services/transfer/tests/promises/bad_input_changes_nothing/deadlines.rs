//! A request whose time is over before it is begun is not begun.

use std::time::Duration;

use proto::transfer::v1::{CreateTransferRequest, CreateTransferResponse};
use tonic::{Code, Status};

use super::{
    super::server::user,
    Bank, CREATE,
    cases::{Refusal, good, invalid, refused},
};

fn late() -> Refusal {
    refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_was_over_when_it_came() {
    let bank = Bank::open().await;
    let before = bank.tables().await;
    for timeout in ["0n", "1n", "0H"] {
        let status = bank.create_within(timeout, good()).await.unwrap_err();
        assert_eq!(Refusal::of(&status), late(), "{timeout}");
    }
    let status = bank.create_within("-1S", good()).await.unwrap_err();
    assert_eq!(Refusal::of(&status), invalid(&["grpc-timeout"]));
    assert_eq!(bank.tables().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_was_over_in_the_queue() {
    let bank = Bank::open().await;
    let before = bank.tables().await["journal"].lines().count();
    // the first transfer waits for this lock, and all others for the first one
    let mut lock = postgres::begin(bank.world.pool()).await.unwrap();
    sqlx::query("SELECT 1 FROM accounts WHERE user_id = 1 FOR UPDATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let others = async {
        bank.until_somebody_waits().await;
        let answer = bank.create_within("300m", good()).await;
        lock.rollback().await.unwrap();
        answer
    };
    let (first, second) = tokio::join!(bank.create_within("30S", good()), others);
    assert_eq!(Refusal::of(&second.unwrap_err()), late());
    first.unwrap();
    // what is asked now comes behind it in the queue
    bank.create(|_| {}).await;
    assert_eq!(bank.tables().await["journal"].lines().count(), before + 2);
}

impl Bank {
    async fn create_within(
        &self,
        timeout: &'static str,
        request: CreateTransferRequest,
    ) -> Result<CreateTransferResponse, Status> {
        self.server.call_within(timeout, &user(1), CREATE, &request).await
    }

    async fn until_somebody_waits(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..2_000 {
            if self.world.sql(waiting).await > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("nobody waits for the lock");
    }
}
