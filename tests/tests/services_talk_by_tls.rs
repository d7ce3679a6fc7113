//! With certificates, the services talk to each other by TLS only: everything works, nobody else is let in, and renewed
//! certificates are used without a restart.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use proto::transfer::v1::{DepositRequest, transfer_service_client::TransferServiceClient};
use rpc::Caller;
use tests::{
    Service, TestWorld, User, eventually,
    grpc::{door, signed},
    promise,
    world::Options,
};
use tonic::Code;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(15);

async fn world() -> Result<TestWorld> {
    TestWorld::start(Options {
        tls: true,
        ..Options::default()
    })
    .await
}

/// Signs two up and in, moves money, and writes a letter that goes through Kafka.
async fn everything(world: &TestWorld) -> Result<(User, User)> {
    let (alice, bob) = (world.user("Alice", 100).await?, world.user("Bob", 0).await?);
    alice.transfer(bob.id, 30, Uuid::new_v4()).await?.expect(200)?;
    world.balances(&[(&alice, 70), (&bob, 30)]).await?;
    let mut letters = world.subscribe(&bob, Vec::new()).await?;
    alice.write(bob.id, "hello", Uuid::new_v4()).await?.expect(201)?;
    let letter = letters.next(SOON).await?;
    ensure!(letter.content == "hello", "{letter:?}");
    ensure!(alice.messages(bob.id).await?.len() == 1);
    Ok((alice, bob))
}

#[test]
fn everything_works_and_nobody_else_is_let_in() -> Result<()> {
    promise(async {
        let world = world().await?;
        everything(&world).await?;
        // who can sign as an operator, but has no certificate
        let operator = Caller::User {
            user_id: 1,
            operator: true,
            session: None,
        };
        let address = world.local().address(Service::Transfer, 0)?;
        let credentials = signed(world.key(), &operator)?;
        let mut ledger = TransferServiceClient::new(door(&address.to_string(), credentials)?);
        let refused = ledger.deposit(DepositRequest::default()).await.unwrap_err();
        // tonic's words for it differ; it is not what the ledger itself would say
        ensure!(refused.code() != Code::InvalidArgument, "{refused:?}");
        let log = world.local().log_path(Service::Transfer, 0)?;
        eventually("the log says why", SOON, async || {
            let log = fs::read_to_string(&log)?;
            ensure!(
                log.contains("refused a connection: no TLS with the client"),
                "{log}"
            );
            Ok(())
        })
        .await
    })
}

#[test]
fn renewed_certificates_are_used_without_a_restart() -> Result<()> {
    promise(async {
        let world = world().await?;
        let (alice, bob) = everything(&world).await?;
        world.certificates()?.issue();
        for service in Service::ALL {
            let log = world.local().log_path(service, 0)?;
            eventually("the new certificate is read", SOON, async || {
                ensure!(
                    fs::read_to_string(&log)?.contains("certificates renewed"),
                    "not yet"
                );
                Ok(())
            })
            .await
            .with_context(|| service.name())?;
        }
        // all connections to the ledger are new ones then
        world.instance(Service::Transfer, 0)?.kill().await?;
        world.instance(Service::Transfer, 0)?.start().await?;
        eventually("money moves again", SOON, async || {
            alice.transfer(bob.id, 1, Uuid::new_v4()).await?.expect(200)?;
            Ok(())
        })
        .await?;
        everything(&world).await?;
        Ok(())
    })
}
