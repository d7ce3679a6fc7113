//! A release can be rolled back one version, and forward again: a version runs on the schema of the next one, and brings
//! that of the one before up to date.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::{Service, TestWorld, promise, schema, world::Options};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(15);

/// What each service reads and writes most: sign-up, login, transfers, letters through Kafka.
async fn everything(world: &TestWorld) -> Result<()> {
    let (alice, bob) = (world.user("Alice", 100).await?, world.user("Bob", 0).await?);
    let transfer_id = Uuid::new_v4();
    alice.transfer(bob.id, 30, transfer_id).await?.expect(200)?;
    world.balances(&[(&alice, 70), (&bob, 30)]).await?;
    let transfer = format!("/api/transfers/{transfer_id}");
    for path in [transfer.as_str(), "/api/accounts", "/api/schedules"] {
        alice.rest.get(path).await?.expect(200)?;
    }
    let mut letters = world.subscribe(&bob, Vec::new()).await?;
    alice.write(bob.id, "hello", Uuid::new_v4()).await?.expect(201)?;
    ensure!(letters.next(SOON).await?.content == "hello");
    ensure!(bob.messages(alice.id).await?.len() == 1);
    Ok(())
}

fn with_databases() -> impl Iterator<Item = Service> {
    Service::ALL.into_iter().filter(|service| service.has_database())
}

#[test]
fn a_version_runs_on_the_schema_of_the_next_one() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        // statements that were prepared before the change are used after it
        everything(&world).await?;
        for service in with_databases() {
            schema::expand(&world.database(service).await?)
                .await
                .with_context(|| service.name())?;
        }
        everything(&world)
            .await
            .context("while the next version rolls out")?;
        for service in with_databases() {
            world.local().terminate(service, 0).await?;
            world.local().start_instance(service, 0).await?;
        }
        everything(&world).await.context("rolled back")
    })
}

#[test]
fn a_version_brings_the_schema_of_the_one_before_up_to_date() -> Result<()> {
    promise(async {
        // the instances of a service start at once: one of them migrates
        let world = TestWorld::start(Options {
            replicas: 2,
            older_schema: true,
            ..Options::default()
        })
        .await?;
        everything(&world).await
    })
}
