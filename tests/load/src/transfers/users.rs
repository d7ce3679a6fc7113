//! Users with money and a session.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use local::{Service, World, demo};
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Client;

const PASSWORD: &str = "password123";
/// Enough for any run, in minor units.
const DEPOSIT: i64 = 1_000_000_000;
/// Password hashing keeps the cores busy already.
const AT_ONCE: usize = 4;

/// A signed-in user.
pub(super) struct User {
    pub id: i64,
    pub token: String,
}

/// Creates users through the gateway, pays each in, signs each in.
pub(super) async fn sign_up(world: &World, count: u32) -> Result<Vec<User>> {
    stream::iter(0..count)
        .map(|index| sign_up_one(world, index))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn sign_up_one(world: &World, index: u32) -> Result<User> {
    let mut client = Client::connect(&world.address(Service::Gateway, 0)?.to_string()).await?;
    let email = format!("user{index}@example.com");
    let user = json!({"name": format!("User {index}"), "email": email, "password": PASSWORD, "request_id": Uuid::new_v4()});
    let id = post(&mut client, "/api/users", &user).await?["id"]
        .as_i64()
        .context("no id in the answer")?;
    demo::deposit(world, id, DEPOSIT, Uuid::new_v4()).await?;
    let login = json!({"email": email, "password": PASSWORD, "bearer": true});
    let session = post(&mut client, "/api/login", &login).await?;
    let token = session["session_token"]
        .as_str()
        .context("no session_token in the answer")?
        .to_owned();
    Ok(User { id, token })
}

async fn post(client: &mut Client, path: &str, body: &Value) -> Result<Value> {
    let (status, answer) = client.post(path, None, body).await?;
    ensure!(status.is_success(), "POST {path}: {status} {answer}");
    Ok(answer)
}
