//! Whatever breaks inside, the caller reads the same constant sentence and a request id: the database cut, silent or half
//! closed, a table gone, services killed. By REST and by gRPC. Afterwards everything answers again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proto::{
    account::v1::{GetUserRequest, account_service_client::AccountServiceClient},
    auth::v1::{LoginRequest, auth_service_client::AuthServiceClient},
    chat::v1::{SendDirectMessageRequest, chat_service_client::ChatServiceClient},
    transfer::v1::{CreateTransferRequest, transfer_service_client::TransferServiceClient},
};
use rpc::Caller;
use serde_json::{Value, json};
use tests::{
    Service, TestWorld, User, eventually,
    grpc::{Credentials, Door},
    promise,
    proxy::Mode,
    rest::Answer,
    user,
    world::Options,
};
use tonic::{Code, Status};
use uuid::Uuid;

/// What a caller must never read, in small letters.
const INTERNAL: [&str; 20] = [
    "sqlx",
    "postgres",
    "relation",
    "select ",
    "insert ",
    "update ",
    "column",
    "constraint",
    "127.0.0.1",
    "localhost",
    "os error",
    "connection refused",
    "reset",
    "broken pipe",
    "panick",
    "src/",
    ".rs",
    "redis",
    "kafka",
    "tonic",
];
const RECOVERY: Duration = Duration::from_mins(1);

fn is_clean(text: &str) -> Result<()> {
    let text = text.to_lowercase();
    let leak = INTERNAL.iter().find(|word| text.contains(**word));
    ensure!(leak.is_none(), "{leak:?} in {text}");
    Ok(())
}

/// Every door that ends in a database.
async fn rest_answers(alice: &User, bob: &User) -> Result<Vec<(&'static str, Answer)>> {
    let login = json!({"email": alice.email, "password": user::PASSWORD});
    let sign_up = json!({"name": "Eve", "email": format!("eve-{}@example.com", Uuid::new_v4().simple())});
    Ok(vec![
        ("user", alice.rest.get(&format!("/api/users/{}", alice.id)).await?),
        ("transfer", alice.transfer(bob.id, 1, Uuid::new_v4()).await?),
        ("message", alice.write(bob.id, "hello", Uuid::new_v4()).await?),
        (
            "messages",
            alice
                .rest
                .get(&format!("/api/messages/{}/{}", alice.id, bob.id))
                .await?,
        ),
        ("login", alice.rest.post("/api/login", &login).await?),
        ("sign up", alice.rest.post("/api/users", &sign_up).await?),
    ])
}

/// The same by gRPC; a success is `OK`.
async fn grpc_answers(
    door: impl Fn(Service) -> Result<Door>,
    alice: &User,
    bob: &User,
) -> Result<Vec<(&'static str, Status)>> {
    let transfer = CreateTransferRequest {
        from_user_id: alice.id,
        to_user_id: bob.id,
        amount: 1,
        currency: String::new(),
        transfer_id: Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let message = SendDirectMessageRequest {
        receiver_id: bob.id,
        sender_id: alice.id,
        content: "hello".into(),
        message_id: Uuid::new_v4().to_string(),
    };
    let login = LoginRequest {
        email: alice.email.clone(),
        password: user::PASSWORD.into(),
        bearer: true,
    };
    let user = AccountServiceClient::new(door(Service::Account)?)
        .get_user(GetUserRequest { id: alice.id })
        .await;
    let transfer = TransferServiceClient::new(door(Service::Transfer)?)
        .create_transfer(transfer)
        .await;
    let message = ChatServiceClient::new(door(Service::Chat)?)
        .send_direct_message(message)
        .await;
    let login = AuthServiceClient::new(door(Service::Auth)?).login(login).await;
    Ok(vec![
        ("user", status(user)),
        ("transfer", status(transfer)),
        ("message", status(message)),
        ("login", status(login)),
    ])
}

fn status<T>(outcome: Result<tonic::Response<T>, Status>) -> Status {
    outcome.err().unwrap_or_else(|| Status::ok(""))
}

/// A failure that says only what it may: a 5xx of the fixed form, the same sentence for the same status everywhere.
fn is_constant(door: &str, answer: &Answer) -> Result<()> {
    ensure!(
        (500..=504).contains(&answer.status),
        "{door}: {} {}",
        answer.status,
        answer.text
    );
    is_clean(&answer.text).with_context(|| door.to_owned())?;
    for (name, value) in &answer.headers {
        is_clean(value.to_str().unwrap_or_default()).with_context(|| format!("{door}: header {name}"))?;
    }
    let wanted = match answer.status {
        500 => ("INTERNAL", "Internal error"),
        504 => (
            "DEADLINE_EXCEEDED",
            "The deadline passed before the answer was ready",
        ),
        502 => ("UPSTREAM_UNREACHABLE", "Temporarily unavailable; try again"),
        _ => ("UNAVAILABLE", "Temporarily unavailable; try again"),
    };
    let body = &answer.json;
    ensure!(
        (body["reason"].as_str(), body["error"].as_str()) == (Some(wanted.0), Some(wanted.1)),
        "{door}: {}",
        answer.text
    );
    let id = body["request_id"].as_str().unwrap_or_default();
    ensure!(
        !id.is_empty() && id == answer.header("x-request-id"),
        "{door}: request id {id:?}, {:?}",
        answer.headers
    );
    ensure!(
        answer
            .header("content-type")
            .starts_with("application/problem+json"),
        "{door}: {:?}",
        answer.headers
    );
    Ok(())
}

async fn nothing_leaks(world: &TestWorld, alice: &User, bob: &User, broken: &[&str]) -> Result<()> {
    for (door, answer) in rest_answers(alice, bob).await? {
        is_clean(&answer.text).with_context(|| door.to_owned())?;
        if broken.contains(&door) {
            is_constant(door, &answer)?;
        }
    }
    let public = |_| world.public_door(Credentials::Bearer(alice.token.clone()));
    let caller = Caller::User {
        user_id: alice.id,
        operator: false,
        session: None,
    };
    // the gateway would hide what a service says too much
    let inner = |service| world.inner_door(service, 0, &caller);
    let answers = [
        grpc_answers(public, alice, bob).await?,
        grpc_answers(inner, alice, bob).await?,
    ]
    .concat();
    for (door, status) in answers {
        // a service that was killed says nothing: the client's own words are not what is tested
        if std::error::Error::source(&status).is_some() {
            continue;
        }
        is_clean(&format!(
            "{} {}",
            status.message(),
            String::from_utf8_lossy(status.details())
        ))?;
        is_clean(&format!("{:?}", status.metadata())).with_context(|| door.to_owned())?;
        if broken.contains(&door) {
            let codes = [Code::Unavailable, Code::Internal, Code::DeadlineExceeded];
            ensure!(codes.contains(&status.code()), "{door}: {status:?}");
        }
    }
    Ok(())
}

async fn everything_answers(alice: &User, bob: &User) -> Result<()> {
    eventually("everything answers again", RECOVERY, async || {
        for (door, answer) in rest_answers(alice, bob).await? {
            ensure!(answer.status < 300, "{door}: {}", answer.text);
        }
        Ok(())
    })
    .await
}

const ALL: [&str; 6] = ["user", "transfer", "message", "messages", "login", "sign up"];

#[test]
fn a_database_that_is_away_stays_a_secret() -> Result<()> {
    promise(async {
        let settings = vec![(None, "KONTOR_DEADLINE_MS", "2000".to_owned())];
        let world = TestWorld::start(Options {
            behind_proxies: true,
            settings,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 0).await?);
        everything_answers(&alice, &bob).await?;
        for mode in [Mode::Cut, Mode::Stall, Mode::HalfClose] {
            world.proxies()?.postgres.set(mode);
            nothing_leaks(&world, &alice, &bob, &ALL)
                .await
                .with_context(|| format!("{mode:?}"))?;
            world.proxies()?.postgres.set(Mode::Pass);
            everything_answers(&alice, &bob)
                .await
                .with_context(|| format!("after {mode:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn a_table_that_is_gone_stays_a_secret() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 0).await?);
        let tables: [(Service, &str, &[&str]); 4] = [
            (Service::Transfer, "accounts", &["user", "transfer"]),
            (Service::Account, "users", &["user", "sign up"]),
            (Service::Chat, "messages", &["message", "messages"]),
            (Service::Auth, "credentials", &["login", "sign up"]),
        ];
        for (service, table, broken) in tables {
            let database = world.database(service).await?;
            let rename =
                |from: &str, to: &str| sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
            sqlx::query(rename(table, "gone"))
                .execute(&database)
                .await
                .with_context(|| table.to_owned())?;
            nothing_leaks(&world, &alice, &bob, broken)
                .await
                .with_context(|| format!("without {table}"))?;
            sqlx::query(rename("gone", table)).execute(&database).await?;
            everything_answers(&alice, &bob)
                .await
                .with_context(|| format!("after {table}"))?;
        }
        Ok(())
    })
}

#[test]
fn a_service_that_is_away_stays_a_secret() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 0).await?);
        let services: [(Service, &[&str]); 4] = [
            (Service::Transfer, &["user", "transfer", "sign up"]),
            (Service::Account, &["user", "sign up"]),
            (Service::Chat, &["message", "messages"]),
            (Service::Auth, &["login", "sign up"]),
        ];
        for (service, broken) in services {
            world.instance(service, 0)?.kill().await?;
            nothing_leaks(&world, &alice, &bob, broken)
                .await
                .with_context(|| format!("without {service:?}"))?;
            world.instance(service, 0)?.restart().await?;
            everything_answers(&alice, &bob)
                .await
                .with_context(|| format!("after {service:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn a_request_id_of_the_client_is_kept_when_it_is_harmless() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let id = Uuid::new_v4().to_string();
        let answer = world
            .rest()?
            .with("x-request-id", &id)?
            .get("/api/users/1")
            .await?;
        ensure!(
            answer.json["request_id"] == id && answer.header("x-request-id") == id,
            "{}",
            answer.text
        );
        let long = "x".repeat(5_000);
        let answer = world
            .rest()?
            .with("x-request-id", &long)?
            .get("/api/users/1")
            .await?;
        let shown: Value = answer.json["request_id"].clone();
        ensure!(
            shown.as_str().is_some_and(|id| id.len() <= 200),
            "an id of any length comes back"
        );
        Ok(())
    })
}
