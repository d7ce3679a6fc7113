//! A session that was ended stops within a second at every gateway, also while Redis is away, and after it came back with
//! what it remembered. Its open streams end with it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rpc::error::reason;
use serde_json::json;
use tests::{
    TestWorld, User, eventually, promise,
    proxy::Mode,
    user,
    world::{Options, Subscription},
};
use tonic::Code;
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(15);

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

/// An error unless the subscription ends because its session did.
async fn ends(subscription: Subscription, within: Duration) -> Result<()> {
    let end = subscription.end(within).await?;
    ensure!(
        end.code() == Code::Unauthenticated && reason(&end).as_deref() == Some("SESSION_INVALID"),
        "{end:?}"
    );
    Ok(())
}

#[test]
fn its_streams_end() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        let again = User::sign_in(&world.rest()?, bob.id, &bob.name, &bob.email).await?;
        let mut first = world.subscribe(&bob, Vec::new()).await?;
        let second = world.subscribe(&bob, Vec::new()).await?;
        let mut other = world.subscribe(&again, Vec::new()).await?;
        alice.write(bob.id, "before", Uuid::new_v4()).await?.expect(201)?;
        for subscription in [&mut first, &mut other] {
            ensure!(subscription.next(SOON).await?.content == "before");
        }
        bob.rest.post("/api/logout", &json!({})).await?.expect(200)?;
        let (first, second) = tokio::join!(ends(first, SECOND), ends(second, SECOND));
        first.and(second)?;
        // what is sent now has no way to them; the user's other session goes on
        alice.write(bob.id, "after", Uuid::new_v4()).await?.expect(201)?;
        ensure!(other.next(SOON).await?.content == "after");
        Ok(())
    })
}

#[test]
fn its_streams_end_while_redis_is_away() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            behind_proxies: true,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        let ended = world.subscribe(&bob, Vec::new()).await?;
        let mut other = world.subscribe(&alice, Vec::new()).await?;
        world.proxies()?.redis.set(Mode::Cut);
        bob.rest.post("/api/logout", &json!({})).await?.expect(200)?;
        // auth is asked less often than Redis
        ends(ended, 5 * SECOND).await?;
        // nobody else is logged out
        let carol = world.user("Carol", 0).await?;
        carol
            .write(alice.id, "hello", Uuid::new_v4())
            .await?
            .expect(201)?;
        ensure!(other.next(SOON).await?.content == "hello");
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
