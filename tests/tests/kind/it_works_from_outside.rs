//! From outside of the cluster: sign up, log in, move money, read, and chat through Kafka, by REST and by the real grpcurl. An
//! operator verifies the ledger the same way.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{User, cluster::Cluster, promise, user::PASSWORD, world::Subscription};
use tokio::process::Command;
use uuid::Uuid;

#[test]
fn by_rest() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        let operator = cluster.operator().await?;
        let alice = cluster.user(&operator, "Alice", 1000).await?;
        let bob = cluster.user(&operator, "Bob", 0).await?;
        let chat = proto::chat::v1::chat_service_client::ChatServiceClient::new(cluster.door(&bob)?);
        let mut live = Subscription::begin(chat, Vec::new()).await?;

        let id = Uuid::new_v4();
        for _ in 0..2 {
            let moved = alice.transfer(bob.id, 250, id).await?.expect(200)?;
            ensure!(moved["status"] == "success", "{moved}");
        }
        ensure!(alice.balance().await? == 750 && bob.balance().await? == 250);
        let other = alice
            .rest
            .get(&format!("/api/users/{}", bob.id))
            .await?
            .expect(200)?;
        ensure!(other["name"] == "Bob" && other["balance"].is_null(), "{other}");
        alice
            .transfer(bob.id, 10_000, Uuid::new_v4())
            .await?
            .refused(400, "Insufficient balance")?;

        let id = Uuid::new_v4();
        alice.write(bob.id, "a letter", id).await?.expect(201)?;
        let message = live.next(Duration::from_secs(30)).await?;
        ensure!(message.content == "a letter" && message.message_id == id.to_string());
        let history = bob.messages(alice.id).await?;
        ensure!(
            history.len() == 1 && history[0]["content"] == "a letter",
            "{history:?}"
        );
        Ok(())
    })
}

async fn grpcurl(cluster: &Cluster, user: Option<&User>, method: &str, request: &Value) -> Result<Value> {
    let text = grpcurl_text(cluster, user, method, request).await?;
    serde_json::from_str(&text).with_context(|| format!("{method}: {text}"))
}

async fn grpcurl_text(
    cluster: &Cluster,
    user: Option<&User>,
    method: &str,
    request: &Value,
) -> Result<String> {
    let address = cluster.gateway().trim_start_matches("http://");
    let mut command = Command::new("grpcurl");
    command.args(["-plaintext", "-max-time", "30", "-d", &request.to_string()]);
    if let Some(user) = user {
        command.args(["-H", &format!("authorization: Bearer {}", user.token)]);
    }
    let output = command
        .args([address, method])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("grpcurl does not run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{method}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn by_grpcurl() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        let operator = cluster.operator().await?;
        let bob = cluster.user(&operator, "Bob", 0).await?;
        let email = format!("alice-{}@example.com", Uuid::new_v4().simple());
        let person =
            json!({"name": "Alice", "email": email, "password": PASSWORD, "request_id": Uuid::new_v4()});
        let created = grpcurl(
            &cluster,
            None,
            "kontor.account.v1.AccountService/CreateUser",
            &person,
        )
        .await?;
        let id: i64 = created["id"].as_str().context("no id")?.parse()?;
        let login = json!({"email": email, "password": PASSWORD, "bearer": true});
        let session = grpcurl(&cluster, None, "kontor.auth.v1.AuthService/Login", &login).await?;
        let token = session["sessionToken"].as_str().context("no token")?.to_owned();
        let alice = User {
            id,
            name: "Alice".to_owned(),
            email,
            rest: cluster.rest()?.signed_in(&token)?,
            token,
        };
        let deposit = json!({"to_user_id": id, "amount": 500, "transfer_id": Uuid::new_v4()});
        let transfers = "kontor.transfer.v1.TransferService";
        grpcurl(
            &cluster,
            Some(&operator),
            &format!("{transfers}/Deposit"),
            &deposit,
        )
        .await?;
        let transfer = json!({"from": id, "to": bob.id, "amount": 200, "transfer_id": Uuid::new_v4()});
        let moved = grpcurl(
            &cluster,
            Some(&alice),
            &format!("{transfers}/CreateTransfer"),
            &transfer,
        )
        .await?;
        ensure!(moved["status"] == "success", "{moved}");
        let user = "kontor.account.v1.AccountService/GetUser";
        let read = grpcurl(&cluster, Some(&alice), user, &json!({"id": id})).await?;
        ensure!(read["user"]["balance"] == "300", "{read}");
        let letter = json!({"sender_id": id, "receiver_id": bob.id, "content": "by grpcurl", "message_id": Uuid::new_v4()});
        let chat = "kontor.chat.v1.ChatService";
        grpcurl(
            &cluster,
            Some(&alice),
            &format!("{chat}/SendDirectMessage"),
            &letter,
        )
        .await?;
        let both = json!({"user_id": bob.id, "other_id": id});
        let list = grpcurl(&cluster, Some(&bob), &format!("{chat}/ListDirectMessages"), &both).await?;
        ensure!(list["messages"][0]["content"] == "by grpcurl", "{list}");
        let verify = "kontor.transfer.v1.LedgerAdminService/VerifyLedger";
        let verified = grpcurl_text(&cluster, Some(&operator), verify, &json!({})).await?;
        ensure!(
            verified.contains("\"done\": true") && !verified.contains("badRow"),
            "{verified}"
        );
        Ok(())
    })
}
