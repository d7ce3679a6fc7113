//! A user of kontor, as an app on a telephone would act for one.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rest::{Answer, Rest};

/// Good enough for the rules, the same for everyone.
pub const PASSWORD: &str = "password123";

/// A signed-in user.
#[derive(Clone, Debug)]
pub struct User {
    /// The user's number.
    pub id: i64,
    /// The name that others see.
    pub name: String,
    /// The email to sign in with.
    pub email: String,
    /// The session token.
    pub token: String,
    /// The REST door, signed in.
    pub rest: Rest,
}

impl User {
    /// Signs up under a name and signs in.
    pub async fn sign_up(rest: &Rest, name: &str) -> Result<Self> {
        let email = format!("{}-{}@example.com", name.to_lowercase(), Uuid::new_v4().simple());
        let body = json!({"name": name, "email": email, "password": PASSWORD});
        let created = rest
            .post("/api/users", &body)
            .await?
            .expect(201)
            .context("sign up")?;
        let id = created["id"]
            .as_i64()
            .with_context(|| format!("no id: {created}"))?;
        Self::sign_in(rest, id, name, &email).await
    }

    /// Signs in a user who exists.
    pub async fn sign_in(rest: &Rest, id: i64, name: &str, email: &str) -> Result<Self> {
        let token = sign_in(rest, email, PASSWORD).await?;
        let rest = rest.signed_in(&token)?;
        Ok(Self {
            id,
            name: name.to_owned(),
            email: email.to_owned(),
            token,
            rest,
        })
    }

    /// The same user at another gateway.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self {
            rest: self.rest.at(base),
            ..self.clone()
        }
    }

    /// One's own balance in minor units.
    pub async fn balance(&self) -> Result<i64> {
        let user = self
            .rest
            .get(&format!("/api/users/{}", self.id))
            .await?
            .expect(200)?;
        user["balance"]
            .as_i64()
            .with_context(|| format!("no balance: {user}"))
    }

    /// Asks for a transfer, once.
    pub async fn transfer(&self, to: i64, amount: i64, id: Uuid) -> Result<Answer> {
        let body = json!({"from": self.id, "to": to, "amount": amount, "transfer_id": id.to_string()});
        self.rest.post("/api/transfer", &body).await
    }

    /// Sends a direct message, once.
    pub async fn write(&self, to: i64, content: &str, id: Uuid) -> Result<Answer> {
        let body = json!({"sender_id": self.id, "content": content, "message_id": id.to_string()});
        self.rest.post(&format!("/api/messages/{to}"), &body).await
    }

    /// One request to each service, about another user. A failure is one that a client would see.
    pub async fn one_of_each(&self, other: &Self) -> Result<()> {
        let paid = self.transfer(other.id, 1, Uuid::new_v4()).await?;
        paid.expect(200).context("transfer")?;
        self.balance().await.context("account")?;
        let sent = self.write(other.id, "hello", Uuid::new_v4()).await?;
        sent.expect(201).context("chat")?;
        let session = self.rest.get("/api/session").await?;
        session.expect(200).context("auth").map(drop)
    }

    /// The newest direct messages with another user, oldest first.
    pub async fn messages(&self, other: i64) -> Result<Vec<Value>> {
        let page = self
            .rest
            .get(&format!("/api/messages/{}/{other}?page_size=1000", self.id))
            .await?
            .expect(200)?;
        Ok(page["messages"].as_array().cloned().unwrap_or_default())
    }
}

/// Signs in and returns the session token.
pub async fn sign_in(rest: &Rest, email: &str, password: &str) -> Result<String> {
    let body = json!({"email": email, "password": password, "bearer": true});
    let answer = rest
        .post("/api/login", &body)
        .await?
        .expect(200)
        .context("sign in")?;
    Ok(answer["session_token"]
        .as_str()
        .with_context(|| format!("no token: {answer}"))?
        .to_owned())
}
