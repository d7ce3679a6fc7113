//! Demo data: two users with money, and a room. Every request carries a fixed id, so loading twice changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use proto::transfer::v1::{DepositRequest, transfer_service_client::TransferServiceClient};
use rpc::{Caller, caller};
use serde_json::{Value, json};
use tonic::transport::Endpoint;
use uuid::Uuid;

use crate::{
    rest,
    world::{Service, World},
};

/// The password of the demo users.
pub const PASSWORD: &str = "password123";

/// A retry is safe, as every request has a fixed id.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(10);

/// A user to create.
struct Person {
    name: &'static str,
    email: &'static str,
    /// In minor units.
    deposit: i64,
    request_id: Uuid,
    transfer_id: Uuid,
}

const PEOPLE: [Person; 2] = [
    Person {
        name: "Alice",
        email: "alice@example.com",
        deposit: 1000,
        request_id: Uuid::from_u128(0xa11c_e000_0000_4000_8000_0000_0000_0001),
        transfer_id: Uuid::from_u128(0xa11c_e000_0000_4000_8000_0000_0000_0002),
    },
    Person {
        name: "Bob",
        email: "bob@example.com",
        deposit: 500,
        request_id: Uuid::from_u128(0xb0b0_0000_0000_4000_8000_0000_0000_0001),
        transfer_id: Uuid::from_u128(0xb0b0_0000_0000_4000_8000_0000_0000_0002),
    },
];
const ROOM: Uuid = Uuid::from_u128(0xb0b0_a11c_e000_4000_8000_0000_0000_0003);

/// Creates Alice with 1000 and Bob with 500, and the room `lobby` of both.
pub async fn load(world: &World) -> Result<()> {
    let gateway = world.address(Service::Gateway, 0)?.to_string();
    let mut ids = Vec::new();
    for person in &PEOPLE {
        let id = create_user(&gateway, person).await?;
        deposit(world, id, person.deposit, person.transfer_id).await?;
        ids.push(id);
    }
    let login = json!({"email": PEOPLE[0].email, "password": PASSWORD, "bearer": true});
    let session = post(&gateway, "/api/login", None, &login).await?;
    let token = session["session_token"]
        .as_str()
        .context("POST /api/login: no session_token in the answer")?;
    let room = json!({"name": "lobby", "member_ids": &ids[1..], "request_id": ROOM});
    post(&gateway, "/api/rooms", Some(token), &room).await?;
    Ok(())
}

async fn create_user(gateway: &str, person: &Person) -> Result<i64> {
    let user = json!({
        "name": person.name,
        "email": person.email,
        "password": PASSWORD,
        "request_id": person.request_id,
    });
    let created = post(gateway, "/api/users", None, &user).await?;
    created["id"]
        .as_i64()
        .context("POST /api/users: no id in the answer")
}

/// Posts to the gateway, and again while it says that a service behind it is not there.
async fn post(gateway: &str, path: &str, token: Option<&str>, body: &Value) -> Result<Value> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match rest::post(gateway, path, token, body).await {
            Ok((status, answer)) if status.is_success() => return Ok(answer),
            Ok((status, answer)) => {
                let passing = matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                );
                last = format!("POST {path}: {status} {answer}");
                ensure!(passing, "{last}");
            }
            Err(error) => last = format!("{error:#}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("{last}")
}

/// Pays money from the bank's treasury to a user, in minor units. A retry with the same `transfer_id` pays nothing more.
///
/// Only an operator may ask for it. There is none at first, so we vouch for one with the services' own key.
pub async fn deposit(world: &World, user_id: i64, amount: i64, transfer_id: Uuid) -> Result<()> {
    let key = caller::Key::new(&world.caller_secret().to_owned().into())?;
    let operator = Caller::User {
        user_id,
        operator: true,
        session: None,
    };
    let address = world.address(Service::Transfer, 0)?;
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
    let mut client = TransferServiceClient::new(channel);
    let mut last = None;
    for _ in 0..TRIES {
        let mut request = tonic::Request::new(DepositRequest {
            to_user_id: user_id,
            amount,
            currency: String::new(),
            transfer_id: transfer_id.to_string(),
            ..Default::default()
        });
        request.set_timeout(DEADLINE);
        let signed = key.sign("local", &operator)?;
        let signed = signed
            .to_str()
            .context("a signed caller context is ASCII")?
            .parse()?;
        request.metadata_mut().insert(caller::HEADER, signed);
        match client.deposit(request).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == tonic::Code::Unavailable => last = Some(status),
            Err(status) => return Err(status).with_context(|| format!("deposit for user {user_id}")),
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("deposit for user {user_id}: {last:?}")
}
