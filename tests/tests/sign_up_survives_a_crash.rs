//! Signing up takes three services. Whichever of them is killed on the way, the same request sent again ends with one user
//! who can do everything; and one whose app gave up is finished without it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{Rest, Service, TestWorld, User, eventually, promise, user, world::Options};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_mins(1);
/// The sweeper leaves a sign-up to its caller for 40 s.
const SWEPT: Duration = Duration::from_secs(100);

fn request(name: &str) -> (String, Value) {
    let email = format!("{}-{}@example.com", name.to_lowercase(), Uuid::new_v4().simple());
    let body = json!({
        "name": name, "email": email, "password": user::PASSWORD, "request_id": Uuid::new_v4().to_string(),
    });
    (email, body)
}

/// Sends the request until the user is there, then once more: the id stays the same.
async fn until_created(rest: &Rest, body: &Value) -> Result<i64> {
    let create = async || {
        let answer = rest.post("/api/users", body).await?;
        ensure!(
            answer.status == 201 || answer.is_unknown(),
            "a retry was refused: {}",
            answer.text
        );
        answer.expect(201)
    };
    let first = eventually("the user is created", PATIENCE, &create).await?;
    let again = eventually("a repeat is answered", PATIENCE, &create).await?;
    ensure!(first == again, "{first} became {again}");
    first["id"].as_i64().context("no id")
}

/// Waits until the request has left its first trace.
async fn eventually_begun(world: &TestWorld, email: &str) -> Result<()> {
    let accounts = world.database(Service::Account).await?;
    eventually("the sign-up is under way", PATIENCE, async || {
        let begun = "SELECT EXISTS (SELECT FROM users WHERE lower(email) = lower($1))";
        ensure!(
            sqlx::query_scalar::<_, bool>(begun)
                .bind(email)
                .fetch_one(&accounts)
                .await?
        );
        Ok(())
    })
    .await
}

/// One row, one credential, one account, and all of it works.
async fn is_whole(world: &TestWorld, id: i64, name: &str, email: &str) -> Result<()> {
    let accounts = world.database(Service::Account).await?;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE lower(email) = lower($1)")
        .bind(email)
        .fetch_one(&accounts)
        .await?;
    ensure!(rows == 1, "{rows} rows for {email}");
    let user = User::sign_in(&world.rest()?, id, name, email).await?;
    ensure!(user.balance().await? == 0);
    world.deposit(id, 5).await?;
    ensure!(user.balance().await? == 5);
    Ok(())
}

#[test]
fn a_retry_finishes_what_a_crash_left() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let rest = world.rest()?;
        for service in [Service::Account, Service::Auth, Service::Transfer] {
            let requests: Vec<_> = (0..4)
                .map(|n| request(&format!("{}{n}", service.name())))
                .collect();
            let create = try_join_all(
                requests
                    .iter()
                    .map(async |(_, body)| until_created(&rest, body).await),
            );
            let crash = async {
                // as soon as the first of them is under way
                eventually_begun(&world, &requests[0].0).await?;
                let victim = world.instance(service, 0)?;
                victim.kill().await?;
                victim.restart().await?;
                anyhow::Ok(())
            };
            let (ids, ()) = tokio::try_join!(create, crash)?;
            for ((email, body), id) in requests.iter().zip(ids) {
                is_whole(&world, id, body["name"].as_str().unwrap_or_default(), email).await?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_user_whose_app_gave_up_is_finished_by_the_sweeper() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let rest = world.rest()?;
        let (email, body) = request("Charlie");
        world.instance(Service::Transfer, 0)?.kill().await?;
        let answer = rest.post("/api/users", &body).await?;
        ensure!(
            answer.is_unknown(),
            "without a ledger: {} {}",
            answer.status,
            answer.text
        );
        world.instance(Service::Transfer, 0)?.restart().await?;
        // nobody asks again; it waits for the caller at first, see services/account/README.md
        let token = user::sign_in(&rest, &email, user::PASSWORD)
            .await
            .context("the credential was made first")?;
        let session = rest.signed_in(&token)?.get("/api/session").await?.expect(200)?;
        let id = session["user_id"].as_i64().context("no id")?;
        let charlie = User {
            id,
            name: "Charlie".into(),
            email,
            rest: rest.signed_in(&token)?,
            token,
        };
        eventually("the sweeper finishes the user", SWEPT, async || {
            charlie.balance().await
        })
        .await?;
        is_whole(&world, id, "Charlie", &charlie.email).await
    })
}

#[test]
fn a_password_that_came_too_early_is_taken_from_the_retry() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let rest = world.rest()?;
        let (email, body) = request("Charlie");
        world.instance(Service::Auth, 0)?.kill().await?;
        let answer = rest.post("/api/users", &body).await?;
        ensure!(
            answer.is_unknown(),
            "without auth: {} {}",
            answer.status,
            answer.text
        );
        world.instance(Service::Auth, 0)?.restart().await?;
        // the same email in another request is not a retry
        let mut other = body.clone();
        other["request_id"] = json!(Uuid::new_v4().to_string());
        let answer = rest.post("/api/users", &other).await?;
        ensure!(
            answer.status == 409 && answer.json["reason"] == "EMAIL_TAKEN",
            "{}",
            answer.text
        );
        let id = until_created(&rest, &body).await?;
        is_whole(&world, id, "Charlie", &email).await
    })
}

#[test]
fn an_email_belongs_to_one_user() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            replicas: 2,
            ..Options::default()
        })
        .await?;
        let rest = world.rest()?;
        let (email, body) = request("Dora");
        // at the same time, as different requests: one of them wins
        let answers = try_join_all((0..6).map(async |_| {
            let mut body = body.clone();
            body["request_id"] = json!(Uuid::new_v4().to_string());
            rest.post("/api/users", &body).await
        }))
        .await?;
        let created: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
        ensure!(
            created.len() == 1,
            "{:?}",
            answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
        );
        for refused in answers.iter().filter(|answer| answer.status != 201) {
            ensure!(
                refused.status == 409 && refused.json["reason"] == "EMAIL_TAKEN",
                "{}",
                refused.text
            );
        }
        is_whole(
            &world,
            created[0].json["id"].as_i64().context("no id")?,
            "Dora",
            &email,
        )
        .await?;
        // case does not make it another email
        let mut shouted = body.clone();
        shouted["email"] = json!(email.to_uppercase());
        shouted["request_id"] = json!(Uuid::new_v4().to_string());
        let answer = rest.post("/api/users", &shouted).await?;
        ensure!(
            answer.status == 409 && answer.json["reason"] == "EMAIL_TAKEN",
            "{}",
            answer.text
        );
        Ok(())
    })
}
