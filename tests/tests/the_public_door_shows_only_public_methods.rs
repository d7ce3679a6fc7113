//! What a stranger with grpcurl finds at the gateway: the public services and their descriptions, no way in without a
//! session, and no way at all to the methods that services keep for each other.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use proto::{
    method::{self, Access},
    transfer::v1::{DepositRequest, transfer_service_client::TransferServiceClient},
};
use rpc::Caller;
use tests::{
    TestWorld,
    grpc::{self, Credentials},
    promise,
    world::Options,
};
use tokio::process::Command;
use tonic::Code;
use uuid::Uuid;

struct Said {
    ok: bool,
    text: String,
}

async fn grpcurl(world: &TestWorld, before: &[&str], after: &[&str]) -> Result<Said> {
    let address = world.gateway().trim_start_matches("http://");
    let output = Command::new("grpcurl")
        .args(["-plaintext", "-max-time", "20"])
        .args(before)
        .arg(address)
        .args(after)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("grpcurl does not run")?;
    let text = [output.stdout, output.stderr].concat();
    Ok(Said {
        ok: output.status.success(),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

#[test]
fn a_stranger_sees_the_public_services() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let list = grpcurl(&world, &[], &["list"]).await?;
        ensure!(list.ok, "{}", list.text);
        for service in method::all().map(|method| method.descriptor.parent_service().full_name().to_owned()) {
            let public = method::all().any(|method| {
                method.descriptor.parent_service().full_name() == service && method.access != Access::Internal
            });
            let listed = list.text.lines().any(|line| line == service);
            ensure!(listed == public, "{service} (public: {public}) in\n{}", list.text);
        }
        ensure!(list.text.contains("grpc.health.v1.Health"), "{}", list.text);
        let described = grpcurl(&world, &[], &["describe", "kontor.transfer.v1.TransferService"]).await?;
        ensure!(
            described.ok && described.text.contains("rpc CreateTransfer"),
            "{}",
            described.text
        );
        let message = grpcurl(
            &world,
            &[],
            &["describe", "kontor.transfer.v1.CreateTransferRequest"],
        )
        .await?;
        ensure!(
            message.ok && message.text.contains("int64 amount = 3"),
            "{}",
            message.text
        );
        let health = grpcurl(&world, &[], &["grpc.health.v1.Health/Check"]).await?;
        ensure!(health.ok && health.text.contains("SERVING"), "{}", health.text);
        Ok(())
    })
}

#[test]
fn reflection_is_off_where_it_is_not_asked_for() -> Result<()> {
    promise(async {
        let settings = vec![(None, "KONTOR_REFLECTION", "false".to_owned())];
        let world = TestWorld::start(Options {
            settings,
            ..Options::default()
        })
        .await?;
        let list = grpcurl(&world, &[], &["list"]).await?;
        ensure!(
            !list.ok && !list.text.contains("TransferService"),
            "{}",
            list.text
        );
        Ok(())
    })
}

#[test]
fn without_a_session_only_public_methods_answer() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let alice = world.user("Alice", 0).await?;
        let bearer = format!("authorization: Bearer {}", alice.token);
        for method in method::all() {
            // the programs of the contracts, so that grpcurl does not need to see the method to call it
            let path = method.path.trim_start_matches('/');
            let stranger = status(&world, path, Credentials::None).await?;
            // not the methods of users: a subscription would never end
            let customer = match method.access {
                Access::Operator | Access::Internal => {
                    status(&world, path, Credentials::Bearer(alice.token.clone())).await?
                }
                Access::Public | Access::User => Code::Ok,
            };
            match method.access {
                Access::Public => {
                    ensure!(
                        ![Code::Unauthenticated, Code::Unimplemented].contains(&stranger),
                        "{path}: {stranger:?}"
                    );
                }
                Access::User => ensure!(stranger == Code::Unauthenticated, "{path}: {stranger:?}"),
                Access::Operator => {
                    ensure!(stranger == Code::Unauthenticated, "{path}: {stranger:?}");
                    ensure!(customer == Code::PermissionDenied, "{path}: {customer:?}");
                }
                Access::Internal => {
                    let closed = [Code::Unimplemented, Code::PermissionDenied];
                    ensure!(
                        closed.contains(&stranger) && closed.contains(&customer),
                        "{path}: {stranger:?} {customer:?}"
                    );
                }
            }
        }
        // as the README shows it
        let call = ["-d", r#"{"id": 1}"#];
        let said = grpcurl(&world, &call, &["kontor.account.v1.AccountService/GetUser"]).await?;
        ensure!(!said.ok && said.text.contains("Unauthenticated"), "{}", said.text);
        let request = format!(r#"{{"id": {}}}"#, alice.id);
        let call = ["-H", bearer.as_str(), "-d", request.as_str()];
        let said = grpcurl(&world, &call, &["kontor.account.v1.AccountService/GetUser"]).await?;
        ensure!(
            said.ok && said.text.contains("\"name\": \"Alice\""),
            "{}",
            said.text
        );
        Ok(())
    })
}

/// The code of a call with an empty message.
async fn status(world: &TestWorld, path: &str, credentials: Credentials) -> Result<Code> {
    let mut client = tonic::client::Grpc::new(world.public_door(credentials)?);
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = format!("/{path}").parse()?;
    Ok(client
        .unary(tonic::Request::new(()), path, codec)
        .await
        .err()
        .map_or(Code::Ok, |status| status.code()))
}

#[test]
fn a_forged_caller_is_not_believed() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, eve) = (world.user("Alice", 100).await?, world.user("Eve", 0).await?);
        // signed with the real key, even: from outside it is dropped
        let operator = Caller::User {
            user_id: alice.id,
            operator: true,
            session: None,
        };
        let forged = world.public_door(grpc::signed(world.key(), &operator)?)?;
        let deposit = DepositRequest {
            to_user_id: eve.id,
            amount: 1,
            currency: String::new(),
            transfer_id: Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let refused = TransferServiceClient::new(forged)
            .deposit(deposit)
            .await
            .err()
            .context("money for nothing")?;
        ensure!(refused.code() == Code::Unauthenticated, "{refused:?}");
        let signed = world.key().sign("gateway", &operator)?;
        let rest = eve.rest.with("kontor-caller", signed.to_str()?)?;
        let own = rest.get(&format!("/api/users/{}", eve.id)).await?.expect(200)?;
        ensure!(own["balance"] == 0, "{own}");
        let other = rest.get(&format!("/api/users/{}", alice.id)).await?.expect(200)?;
        ensure!(other["balance"].is_null(), "{other}");
        // and an answer tells nothing of it either
        let answer = eve.rest.get("/api/session").await?;
        let internal = answer
            .headers
            .keys()
            .find(|name| name.as_str().starts_with("kontor-"));
        ensure!(internal.is_none(), "{internal:?}");
        Ok(())
    })
}

#[test]
fn a_service_believes_only_signed_callers() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let alice = world.user("Alice", 100).await?;
        let address = world.local().address(tests::Service::Transfer, 0)?.to_string();
        let transfer = proto::transfer::v1::CreateTransferRequest {
            from_user_id: alice.id,
            to_user_id: alice.id + 1,
            amount: 1,
            currency: String::new(),
            transfer_id: Uuid::new_v4().to_string(),
            ..Default::default()
        };
        for credentials in [
            Credentials::None,
            Credentials::Bearer(alice.token.clone()),
            Credentials::Signed("e30.e30.".parse()?),
        ] {
            let mut ledger = TransferServiceClient::new(grpc::door(&address, credentials)?);
            let refused = ledger
                .create_transfer(transfer.clone())
                .await
                .err()
                .context("no signature was needed")?;
            ensure!(refused.code() == Code::Unauthenticated, "{refused:?}");
        }
        world.balances(&[(&alice, 100)]).await
    })
}
