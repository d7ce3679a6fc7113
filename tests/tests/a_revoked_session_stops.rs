//! A session that was ended stops within a second at every gateway, also while Redis is away, and after it came back with
//! what it remembered.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{TestWorld, User, eventually, promise, proxy::Mode, user, world::Options};

const SECOND: Duration = Duration::from_secs(1);

/// An error unless the session is refused at the gateway.
async fn refused(user: &User, gateway: &str) -> Result<()> {
    user.at(gateway)
        .rest
        .get("/api/session")
        .await?
        .refused(401, "Unauthorized")
}

#[test]
fn it_stops_at_every_gateway() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            replicas: 2,
            ..Options::default()
        })
        .await?;
        let alice = world.user("Alice", 0).await?;
        let other = user::sign_in(&world.rest()?, &alice.email, user::PASSWORD).await?;
        // each gateway has seen the session, so each may remember it
        for gateway in world.gateways() {
            let session = alice.at(&gateway).rest.get("/api/session").await?.expect(200)?;
            ensure!(session["user_id"] == alice.id, "{session}");
        }
        alice.rest.post("/api/logout", &json!({})).await?.expect(200)?;
        for gateway in world.gateways() {
            eventually("the session stops", SECOND, async || {
                refused(&alice, &gateway).await
            })
            .await?;
        }
        // only this one: the user's other session goes on
        world
            .rest()?
            .signed_in(&other)?
            .get("/api/session")
            .await?
            .expect(200)?;
        Ok(())
    })
}

#[test]
fn a_cookie_ends_with_its_session() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let alice = world.user("Alice", 0).await?;
        let body = json!({"email": alice.email, "password": user::PASSWORD});
        let answer = world.rest()?.post("/api/login", &body).await?;
        let cookie = answer.header("set-cookie").to_owned();
        let pair = cookie.split(';').next().unwrap_or_default().to_owned();
        ensure!(pair.starts_with("session=") && pair.len() > 40, "{cookie}");
        for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="] {
            ensure!(cookie.contains(attribute), "{cookie} without {attribute}");
        }
        let body = answer.expect(200)?;
        ensure!(
            body["status"] == "logged_in" && body["user_id"] == alice.id,
            "{body}"
        );
        ensure!(
            body["session_token"].is_null(),
            "the token is in the cookie, not in the answer: {body}"
        );

        let browser = world.rest()?.with("cookie", &pair)?;
        browser.get("/api/session").await?.expect(200)?;
        let answer = browser.post("/api/logout", &json!({})).await?;
        ensure!(
            answer.header("set-cookie").contains("Max-Age=0"),
            "{:?}",
            answer.headers
        );
        answer.expect(200)?;
        eventually("the session stops", SECOND, async || {
            browser.get("/api/session").await?.refused(401, "Unauthorized")
        })
        .await
    })
}

#[test]
fn it_stays_stopped_when_redis_was_away() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            behind_proxies: true,
            ..Options::default()
        })
        .await?;
        let alice = world.user("Alice", 0).await?;
        // Redis remembers the session, and is away when it ends
        alice.rest.get("/api/session").await?.expect(200)?;
        world.proxies()?.redis.set(Mode::Cut);
        let answer = alice.rest.post("/api/logout", &json!({})).await?;
        if answer.status == 200 {
            eventually("the session stops", SECOND, async || {
                refused(&alice, world.gateway()).await
            })
            .await?;
            world.proxies()?.redis.set(Mode::Pass);
            // looks for longer than a client of Redis needs to come back: what Redis remembers must not count for long
            let mut came_back: Option<Instant> = None;
            let begun = Instant::now();
            while begun.elapsed() < 5 * SECOND {
                if alice.rest.get("/api/session").await?.status == 200 {
                    let since = came_back.get_or_insert_with(Instant::now).elapsed();
                    ensure!(
                        since < SECOND,
                        "an ended session came back with Redis, for {since:?} and longer"
                    );
                }
            }
            return refused(&alice, world.gateway()).await;
        }
        // an honest refusal: the session goes on, and ends when it is asked for again
        ensure!(answer.is_unknown(), "{}", answer.text);
        world.proxies()?.redis.set(Mode::Pass);
        eventually("the session can be ended", Duration::from_secs(10), async || {
            alice.rest.post("/api/logout", &json!({})).await?.expect(200)
        })
        .await?;
        eventually("the session stops", SECOND, async || {
            refused(&alice, world.gateway()).await
        })
        .await
    })
}
