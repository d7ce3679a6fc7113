//! Redis is a cache: cut, silent, half closed or slow, it logs nobody out and lets nobody in.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Service, TestWorld, eventually, promise, proxy::Mode, user, world::Options};
use uuid::Uuid;

#[test]
fn sessions_go_on_without_it() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            behind_proxies: true,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 100).await?, world.user("Bob", 0).await?);
        let forged = world.rest()?.signed_in(&"A".repeat(43))?;
        let modes = [
            Mode::Cut,
            Mode::Stall,
            Mode::HalfClose,
            Mode::Delay(Duration::from_secs(2)),
        ];
        for (paid, mode) in (1..).zip(modes) {
            world.proxies()?.redis.set(mode);
            // every single request, the first one after the break too
            for _ in 0..5 {
                ensure!(alice.balance().await? == 101 - paid, "{mode:?}");
            }
            alice.transfer(bob.id, 1, Uuid::new_v4()).await?.expect(200)?;
            forged.get("/api/session").await?.refused(401, "Unauthorized")?;
            // signing in needs no cache either
            let token = user::sign_in(&world.rest()?, &alice.email, user::PASSWORD).await?;
            world
                .rest()?
                .signed_in(&token)?
                .get("/api/session")
                .await?
                .expect(200)?;
            world.proxies()?.redis.set(Mode::Pass);
            alice.rest.get("/api/session").await?.expect(200)?;
        }
        forged.get("/api/session").await?.refused(401, "Unauthorized")
    })
}

#[test]
fn it_is_used_again_when_it_is_back() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            behind_proxies: true,
            ..Options::default()
        })
        .await?;
        let alice = world.user("Alice", 0).await?;
        alice.rest.get("/api/session").await?.expect(200)?;
        world.proxies()?.redis.set(Mode::Cut);
        alice.rest.get("/api/session").await?.expect(200)?;
        world.proxies()?.redis.set(Mode::Pass);
        // with auth away only Redis can know the session
        let auth = world.instance(Service::Auth, 0)?;
        eventually(
            "the session is known without auth",
            Duration::from_secs(30),
            async || {
                auth.restart().await?;
                alice.rest.get("/api/session").await?.expect(200)?;
                auth.kill().await?;
                alice.balance().await
            },
        )
        .await?;
        Ok(())
    })
}
