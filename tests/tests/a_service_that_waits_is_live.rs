//! A service whose database is away is live but not ready: it is taken out of the balancing, and nobody kills it. The public
//! door stays open for those services that are there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rpc::{Caller, server::LIVE};
use tests::{Service, TestWorld, eventually, promise, proxy::Mode, world::Options};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const SOON: Duration = Duration::from_secs(15);

/// What `grpc.health.v1` says of an instance under a name.
async fn health(world: &TestWorld, service: Service, name: &str) -> Result<ServingStatus> {
    let door = world.inner_door(service, 0, &Caller::Anonymous)?;
    let request = HealthCheckRequest {
        service: name.to_owned(),
    };
    Ok(HealthClient::new(door)
        .check(request)
        .await?
        .into_inner()
        .status())
}

async fn is(world: &TestWorld, service: Service, name: &str, wanted: ServingStatus) -> Result<()> {
    let found = health(world, service, name).await?;
    ensure!(found == wanted, "{} {name:?}: {found:?}", service.name());
    Ok(())
}

#[test]
fn without_its_database() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            behind_proxies: true,
            ..Options::default()
        })
        .await?;
        let services = [Service::Auth, Service::Account, Service::Transfer, Service::Chat];
        for (mode, ready) in [
            (Mode::Cut, ServingStatus::NotServing),
            (Mode::Pass, ServingStatus::Serving),
            (Mode::Stall, ServingStatus::NotServing),
            (Mode::Pass, ServingStatus::Serving),
        ] {
            world.proxies()?.postgres.set(mode);
            for service in services {
                eventually("health follows", SOON, async || {
                    is(&world, service, "", ready).await
                })
                .await
                .with_context(|| format!("{mode:?}"))?;
                is(&world, service, LIVE, ServingStatus::Serving).await?;
            }
            // every upstream can be reached: what it answers is the caller's to read
            is(&world, Service::Gateway, "", ServingStatus::Serving).await?;
            is(&world, Service::Gateway, LIVE, ServingStatus::Serving).await?;
        }
        let unknown = health(&world, Service::Auth, "kontor.nobody").await.unwrap_err();
        let unknown = unknown.downcast::<tonic::Status>()?;
        ensure!(unknown.code() == Code::NotFound, "{unknown:?}");
        Ok(())
    })
}

#[test]
fn a_door_with_a_service_that_is_away() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let alice = world.user("Alice", 100).await?;
        world.instance(Service::Chat, 0)?.kill().await?;
        let chat = "kontor.chat.v1.ChatService";
        eventually("the door tells", SOON, async || {
            let ready = world.rest()?.get("/readyz").await?.expect(200)?;
            ensure!(ready["without"][0] == "chat", "{ready}");
            Ok(())
        })
        .await?;
        is(&world, Service::Gateway, chat, ServingStatus::NotServing).await?;
        is(&world, Service::Gateway, "", ServingStatus::Serving).await?;
        ensure!(alice.balance().await? == 100);
        world.instance(Service::Chat, 0)?.start().await?;
        eventually("the door tells", SOON, async || {
            is(&world, Service::Gateway, chat, ServingStatus::Serving).await
        })
        .await
    })
}
