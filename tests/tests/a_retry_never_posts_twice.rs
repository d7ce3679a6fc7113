//! A transfer moves money once, however often it is sent: in turn, all at once, through several gateways and replicas, and
//! after `kill -9` of the instance that was posting it.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tests::{Service, TestWorld, User, promise, world::Options};
use uuid::Uuid;

#[test]
fn a_repeat_returns_the_first_result() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 0).await?);
        let id = Uuid::new_v4();
        let first = alice.transfer(bob.id, 100, id).await?.expect(200)?;
        for _ in 0..3 {
            ensure!(alice.transfer(bob.id, 100, id).await?.expect(200)? == first);
        }
        // the same id with other content is a mistake, and moves nothing
        for (to, amount) in [
            (bob.id, 101),
            (bob.id, 1),
            (world.user("Carol", 0).await?.id, 100),
        ] {
            let answer = alice.transfer(to, amount, id).await?;
            ensure!(
                answer.status == 409 && answer.json["reason"] == "TRANSFER_ID_REUSED",
                "{}",
                answer.text
            );
        }
        world.balances(&[(&alice, 900), (&bob, 100)]).await
    })
}

#[test]
fn a_key_that_is_not_a_uuid_works_as_well_and_belongs_to_its_caller() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 1_000).await?);
        let pay = async |from: &User, to: &User| {
            let rest = from.rest.with("idempotency-key", "order 42")?;
            rest.post(
                "/api/transfer",
                &json!({"from": from.id, "to": to.id, "amount": 10}),
            )
            .await?
            .expect(200)
        };
        let first = pay(&alice, &bob).await?;
        ensure!(pay(&alice, &bob).await? == first);
        world.balances(&[(&alice, 990), (&bob, 1_010)]).await?;
        // another caller's key of the same name is another key
        ensure!(pay(&bob, &alice).await?["transfer_id"] != first["transfer_id"]);
        world.balances(&[(&alice, 1_000), (&bob, 1_000)]).await
    })
}

#[test]
fn repeats_at_the_same_time_move_money_once() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            replicas: 2,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 0).await?);
        let gateways = world.gateways();
        for round in 0..5 {
            let id = Uuid::new_v4();
            let doors: Vec<_> = (0..24).map(|n| alice.at(&gateways[n % gateways.len()])).collect();
            let answers = try_join_all(
                doors
                    .iter()
                    .map(async |door| door.transfer(bob.id, 10, id).await?.expect(200)),
            )
            .await?;
            ensure!(
                answers.iter().all(|answer| *answer == answers[0]),
                "different answers: {answers:?}"
            );
            world
                .balances(&[(&alice, 990 - 10 * round), (&bob, 10 + 10 * round)])
                .await?;
        }
        Ok(())
    })
}

#[test]
fn a_killed_instance_posts_nothing_twice() -> Result<()> {
    const CLIENTS: usize = 8;
    const EACH: usize = 25;
    promise(async {
        let world = TestWorld::start(Options {
            replicas: 2,
            ..Options::default()
        })
        .await?;
        let total = i64::try_from(CLIENTS * EACH)?;
        let (alice, bob) = (world.user("Alice", total).await?, world.user("Bob", 0).await?);
        let pay = try_join_all((0..CLIENTS).map(async |_| {
            for _ in 0..EACH {
                until_answered(&alice, bob.id).await?;
            }
            anyhow::Ok(())
        }));
        let kill = async {
            for round in 0..4 {
                // not before some were posted, so that each kill hits work in progress
                world
                    .eventually_posted(i64::try_from(round * CLIENTS * EACH / 5)?)
                    .await?;
                let victim = world.instance(Service::Transfer, round % 2)?;
                victim.kill().await?;
                victim.restart().await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(pay, kill)?;
        world.balances(&[(&alice, 0), (&bob, total)]).await?;
        // the deposit is the one other transfer
        let ledger = world.database(Service::Transfer).await?;
        let transfers: i64 = sqlx::query_scalar("SELECT count(*) FROM journal")
            .fetch_one(&ledger)
            .await?;
        ensure!(transfers == total + 1, "{transfers} transfers for {total} ids");
        Ok(())
    })
}

/// Sends one transfer of 1, with the same id, until it is known to be posted; then once more.
async fn until_answered(alice: &User, bob: i64) -> Result<()> {
    let id = Uuid::new_v4();
    let first = tests::eventually("a transfer is answered", Duration::from_mins(1), async || {
        alice.transfer(bob, 1, id).await?.expect(200)
    })
    .await?;
    let again = tests::eventually("a repeat is answered", Duration::from_mins(1), async || {
        alice.transfer(bob, 1, id).await?.expect(200)
    })
    .await?;
    ensure!(first == again, "{first} became {again}");
    Ok(())
}
