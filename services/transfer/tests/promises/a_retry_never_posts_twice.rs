use futures_util::future::join_all;
use transfer::{
    app::{error::Error, order::Party},
    domain::command::{Command, Refusal},
};
use uuid::Uuid;

use super::world::{World, amount, order};

#[tokio::test]
async fn whichever_replica_hears_of_it() {
    let world = World::new().await;
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(2, 1_000).await;
    for _ in 0..20 {
        let again = order(1, 2, 10);
        let attempts = replicas
            .iter()
            .cycle()
            .take(12)
            .map(|replica| replica.pay(again.clone()));
        let done: Vec<_> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(done.iter().filter(|done| !done.replayed).count(), 1);
        assert!(done.iter().all(|one| one.at == done[0].at));
    }
    assert_eq!(
        world.sql("SELECT posted FROM accounts WHERE user_id = 1").await,
        800
    );
    world.assert_sound().await;
}

#[tokio::test]
async fn an_id_is_not_used_for_something_else() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(3, 1_000).await;
    let first = order(1, 2, 10);
    replica.pay(first.clone()).await.unwrap();
    let mut other_amount = first.clone();
    other_amount.to = vec![(Party::User(2), amount(11))];
    let mut other_payee = first.clone();
    other_payee.to = vec![(Party::User(3), amount(10))];
    for (other, field) in [(other_amount, "amount"), (other_payee, "to")] {
        let refused = replica.pay(other).await;
        assert!(
            matches!(refused, Err(Error::Refused(Refusal::IdReused(named))) if named == field),
            "{refused:?}"
        );
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn a_pending_transfer_ends_once_whoever_ends_it() {
    let world = World::new().await;
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(2, 1_000).await;
    for _ in 0..10 {
        let mut pending = order(1, 2, 10);
        pending.hold = Some(transfer::domain::command::Hold {
            until: chrono::DateTime::from_timestamp(4_000_000_000, 0).unwrap(),
            named: true,
        });
        let id = pending.id;
        let by = transfer::domain::command::Authority::Bank;
        replicas[0].pay(pending).await.unwrap();
        let ends = replicas.iter().cycle().take(9).enumerate().map(|(at, replica)| {
            let end = Uuid::now_v7();
            replica.direct(if at % 2 == 0 {
                Command::Post {
                    id: end,
                    by,
                    pending: id,
                    amount: None,
                }
            } else {
                Command::Void {
                    id: end,
                    by,
                    pending: id,
                }
            })
        });
        let ended = join_all(ends).await;
        assert_eq!(ended.iter().filter(|end| end.is_ok()).count(), 1, "{ended:?}");
    }
    assert_eq!(world.sql("SELECT sum(held)::bigint FROM accounts").await, 0);
    assert_eq!(world.sql("SELECT count(*) FROM holds").await, 0);
    world.assert_sound().await;
}

/// A refusal says that nothing was written. So a repeated request must not be refused because its first attempt has
/// spent the money.
#[tokio::test]
async fn a_retry_is_not_refused_for_what_its_first_attempt_spent() {
    let world = World::new().await;
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(2, 1_000).await;
    for _ in 0..300 {
        let back = order(2, 1, 1_000);
        let all = order(1, 2, 1_000);
        let attempts = replicas
            .iter()
            .cycle()
            .take(6)
            .map(|replica| replica.pay(all.clone()));
        let done: Vec<_> = join_all(attempts).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        replicas[0].pay(back).await.unwrap();
    }
    world.assert_sound().await;
}
