//! The ledger by REST, as `kontor/transfer/v1/transfer.proto` says: pending transfers and their ends, reversals, batches and
//! chains, splits, what the parties say, dry runs, retries. Bad input and other people's money are tried on the way.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{Service, TestWorld, User, promise, rest::Answer, world::Options};
use uuid::Uuid;

/// Some users and a ledger.
struct Bank {
    world: TestWorld,
    alice: User,
    bob: User,
    carol: User,
}

impl Bank {
    async fn open() -> Result<Self> {
        let world = TestWorld::start(Options::default()).await?;
        Ok(Self {
            alice: world.user("Alice", 1_000).await?,
            bob: world.user("Bob", 0).await?,
            carol: world.user("Carol", 0).await?,
            world,
        })
    }

    /// A transfer from Alice to Bob, with more fields than these.
    fn payment(&self, amount: i64, more: &Value) -> Value {
        let mut body = json!({"from": self.alice.id, "to": self.bob.id, "amount": amount});
        for (field, value) in more.as_object().into_iter().flatten() {
            body[field] = value.clone();
        }
        body
    }

    async fn pay(&self, amount: i64, more: &Value) -> Result<Value> {
        let body = self.payment(amount, more);
        self.alice.rest.post("/api/transfer", &body).await?.expect(200)
    }

    async fn balances(&self, alice: i64, bob: i64, carol: i64) -> Result<()> {
        self.world
            .balances(&[(&self.alice, alice), (&self.bob, bob), (&self.carol, carol)])
            .await
    }
}

fn id_of(answer: &Value) -> Result<&str> {
    answer["transfer_id"]
        .as_str()
        .with_context(|| format!("no id: {answer}"))
}

async fn read(user: &User, id: &str) -> Result<Value> {
    user.rest.get(&format!("/api/transfers/{id}")).await?.expect(200)
}

async fn act(user: &User, id: &str, action: &str, body: Value) -> Result<Answer> {
    user.rest
        .post(&format!("/api/transfers/{id}/{action}"), &body)
        .await
}

fn refused(answer: &Answer, status: u16, reason: &str) -> Result<()> {
    let found = (answer.status, answer.json["reason"].as_str().unwrap_or_default());
    ensure!(
        found == (status, reason),
        "{found:?} instead of {status} {reason}: {}",
        answer.text
    );
    Ok(())
}

fn has(value: &Value, expected: &Value) -> Result<()> {
    for (field, expected) in expected.as_object().into_iter().flatten() {
        ensure!(value[field] == *expected, "{field} is not {expected}: {value}");
    }
    Ok(())
}

#[test]
fn a_pending_transfer_is_held_and_posted_in_part() -> Result<()> {
    promise(async {
        let bank = Box::pin(Bank::open()).await?;
        let made = bank.pay(600, &json!({"pending": true})).await?;
        has(&made, &json!({"status": "pending"}))?;
        let id = id_of(&made)?;
        has(
            &read(&bank.bob, id).await?,
            &json!({
                "kind": "TRANSFER_KIND_PENDING", "state": "TRANSFER_STATE_PENDING", "amount": 600,
            }),
        )?;
        bank.balances(1_000, 0, 0).await?;
        // held: Alice has it no more, and Bob not yet
        let more = bank.alice.transfer(bank.carol.id, 401, Uuid::new_v4()).await?;
        refused(&more, 400, "INSUFFICIENT_BALANCE")?;
        let early = bank.bob.transfer(bank.carol.id, 1, Uuid::new_v4()).await?;
        refused(&early, 400, "INSUFFICIENT_BALANCE")?;

        refused(
            &act(&bank.alice, id, "void", json!({})).await?,
            403,
            "NOT_YOUR_ACCOUNT",
        )?;
        refused(
            &act(&bank.carol, id, "post", json!({})).await?,
            404,
            "TRANSFER_NOT_FOUND",
        )?;
        refused(
            &act(&bank.bob, id, "post", json!({"amount": 601})).await?,
            400,
            "EXCEEDS_PENDING",
        )?;
        refused(
            &act(&bank.bob, id, "post", json!({"amount": -1})).await?,
            400,
            "INVALID_ARGUMENT",
        )?;
        let posted = act(&bank.bob, id, "post", json!({"amount": 250}))
            .await?
            .expect(200)?;
        has(&posted, &json!({"status": "success"}))?;
        has(
            &read(&bank.alice, id).await?,
            &json!({
                "state": "TRANSFER_STATE_POSTED", "posted_amount": 250, "resolved_by": posted["transfer_id"],
            }),
        )?;
        refused(
            &act(&bank.bob, id, "post", json!({})).await?,
            400,
            "ALREADY_POSTED",
        )?;
        refused(
            &act(&bank.bob, id, "void", json!({})).await?,
            400,
            "ALREADY_POSTED",
        )?;
        bank.balances(750, 250, 0).await
    })
}

#[test]
fn a_pending_transfer_is_given_back() -> Result<()> {
    promise(async {
        let bank = Box::pin(Bank::open()).await?;
        let decades = bank.payment(
            750,
            &json!({"pending": true, "expires_at": "2099-01-01T00:00:00Z"}),
        );
        let answer = bank.alice.rest.post("/api/transfer", &decades).await?;
        refused(&answer, 400, "INVALID_ARGUMENT")?;
        let other = bank.pay(750, &json!({"pending": true})).await?;
        let id = id_of(&other)?;
        act(&bank.bob, id, "void", json!({})).await?.expect(200)?;
        has(
            &read(&bank.alice, id).await?,
            &json!({"state": "TRANSFER_STATE_VOIDED"}),
        )?;
        refused(
            &act(&bank.bob, id, "post", json!({})).await?,
            400,
            "ALREADY_VOIDED",
        )?;
        bank.alice
            .transfer(bank.carol.id, 750, Uuid::new_v4())
            .await?
            .expect(200)?;
        bank.balances(250, 0, 750).await
    })
}

#[test]
fn a_posted_transfer_is_taken_back_once() -> Result<()> {
    promise(async {
        let bank = Box::pin(Bank::open()).await?;
        let made = bank.pay(300, &json!({})).await?;
        let id = id_of(&made)?;
        refused(
            &act(&bank.alice, id, "reverse", json!({})).await?,
            403,
            "NOT_YOUR_ACCOUNT",
        )?;
        let why = json!({"description": "sent by mistake"});
        let reversed = act(&bank.bob, id, "reverse", why).await?.expect(200)?;
        bank.balances(1_000, 0, 0).await?;
        has(
            &read(&bank.alice, id).await?,
            &json!({
                "state": "TRANSFER_STATE_REVERSED", "reversed_by": reversed["transfer_id"],
            }),
        )?;
        let reversal = id_of(&reversed)?;
        has(
            &read(&bank.alice, reversal).await?,
            &json!({
                "kind": "TRANSFER_KIND_REVERSAL", "original_id": id, "description": "sent by mistake",
                "from": bank.bob.id, "to": bank.alice.id, "amount": 300,
            }),
        )?;
        refused(
            &act(&bank.bob, id, "reverse", json!({})).await?,
            400,
            "ALREADY_REVERSED",
        )?;
        refused(
            &act(&bank.alice, reversal, "reverse", json!({})).await?,
            400,
            "NOT_REVERSIBLE",
        )?;
        bank.balances(1_000, 0, 0).await
    })
}

#[test]
fn a_batch_has_a_result_for_each_action() -> Result<()> {
    promise(async {
        let bank = Box::pin(Bank::open()).await?;
        let create = |amount: i64, linked: bool| {
            let mut create = bank.payment(amount, &json!({}));
            create["transfer_id"] = json!(Uuid::new_v4().to_string());
            json!({"create": create, "linked": linked})
        };
        let pending = Uuid::new_v4().to_string();
        let hold = bank.payment(100, &json!({"pending": true, "transfer_id": pending}));
        let post = json!({"pending_id": pending, "amount": 60, "transfer_id": Uuid::new_v4().to_string()});
        let actions = json!([
            create(10, false),
            // together or not at all
            create(20, true),
            create(5_000, false),
            // what is bad in itself
            create(-1, false),
            // an action on one of this very batch
            {"create": hold, "linked": true},
            {"post": post, "linked": false},
        ]);
        let run = async |actions: &Value, dry_run: bool| {
            let body = json!({"actions": actions, "dry_run": dry_run});
            bank.alice
                .rest
                .post("/api/transfers/batch", &body)
                .await?
                .expect(200)
        };
        let reasons = |answer: &Value| -> Vec<String> {
            let results = answer["results"].as_array().into_iter().flatten();
            results
                .map(|result| result["error"]["reason"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        let expected = [
            "",
            "LINKED_FAILED",
            "INSUFFICIENT_BALANCE",
            "INVALID_ARGUMENT",
            "",
            "",
        ];
        let dry = run(&actions, true).await?;
        ensure!(reasons(&dry) == expected, "{dry}");
        bank.balances(1_000, 0, 0).await?;
        let real = run(&actions, false).await?;
        ensure!(reasons(&real) == expected, "{real}");
        let bad = &real["results"][3];
        has(bad, &json!({"index": 3}))?;
        ensure!(bad["error"]["violations"][0]["field"] == "amount", "{bad}");
        bank.balances(930, 70, 0).await?;
        let again = run(&actions, false).await?;
        for at in [0, 4, 5] {
            ensure!(again["results"][at]["replayed"] == true, "{again}");
            ensure!(
                again["results"][at]["created_at"] == real["results"][at]["created_at"],
                "{again}"
            );
        }
        bank.balances(930, 70, 0).await?;
        let answer = bank
            .alice
            .rest
            .post("/api/transfers/batch", &json!({"actions": []}))
            .await?;
        refused(&answer, 400, "INVALID_ARGUMENT")
    })
}

#[test]
fn the_largest_batch_passes_the_door() -> Result<()> {
    promise(async {
        let bank = Box::pin(Bank::open()).await?;
        bank.world.deposit(bank.alice.id, 8_192).await?;
        let create = |at: i32| {
            let more = json!({
                "transfer_id": Uuid::new_v4().to_string(),
                "reference": format!("invoice {at}"),
                "description": "d".repeat(256),
                "metadata": {"order": "o".repeat(200)},
            });
            json!({"create": bank.payment(1, &more)})
        };
        let batch = |size| json!({"actions": (0..size).map(create).collect::<Vec<_>>()});
        let answer = bank
            .alice
            .rest
            .post("/api/transfers/batch", &batch(8_192))
            .await?
            .expect(200)?;
        let results = answer["results"].as_array().context("no results")?;
        ensure!(results.len() == 8_192);
        let failed = results.iter().find(|result| !result["error"].is_null());
        ensure!(failed.is_none(), "{failed:?}");
        bank.balances(1_000, 8_192, 0).await?;
        refused(
            &bank
                .alice
                .rest
                .post("/api/transfers/batch", &batch(8_193))
                .await?,
            400,
            "INVALID_ARGUMENT",
        )?;
        // only this method takes so much
        let long = bank.payment(1, &json!({"description": "d".repeat(1 << 20)}));
        refused(
            &bank.alice.rest.post("/api/transfer", &long).await?,
            413,
            "BODY_TOO_LARGE",
        )
    })
}

#[test]
fn several_are_paid_and_each_sees_the_own_share() -> Result<()> {
    promise(async {
        let bank = Box::pin(Bank::open()).await?;
        let split = |payee: &User, amount: i64| json!({"to": payee.id, "amount": amount});
        let body = |splits: Value, amount: i64| {
            json!({
                "from": bank.alice.id,
                "amount": amount,
                "splits": splits,
                "reference": "invoice 7",
                "description": "dinner ☕",
                "metadata": {"table": "4", "günstig": "nein"},
            })
        };
        let shares = json!([split(&bank.bob, 30), split(&bank.carol, 12)]);
        let post = async |body: &Value| bank.alice.rest.post("/api/transfer", body).await;
        refused(&post(&body(shares.clone(), 43)).await?, 400, "INVALID_ARGUMENT")?;
        let twice = json!([split(&bank.bob, 30), split(&bank.bob, 12)]);
        refused(&post(&body(twice, 0)).await?, 400, "INVALID_ARGUMENT")?;
        bank.balances(1_000, 0, 0).await?;
        let made = post(&body(shares, 42)).await?.expect(200)?;
        bank.balances(958, 30, 12).await?;
        let id = id_of(&made)?;
        let said = json!({
            "kind": "TRANSFER_KIND_TRANSFER",
            "state": "TRANSFER_STATE_POSTED",
            "from": bank.alice.id,
            "currency": "USD",
            "reference": "invoice 7",
            "description": "dinner ☕",
            "metadata": {"table": "4", "günstig": "nein"},
        });
        let seen = read(&bank.alice, id).await?;
        has(&seen, &said)?;
        has(&seen, &json!({"amount": 42}))?;
        ensure!(
            seen["splits"].as_array().is_some_and(|splits| splits.len() == 2),
            "{seen}"
        );
        let seen = read(&bank.carol, id).await?;
        has(&seen, &said)?;
        has(&seen, &json!({"amount": 12, "to": bank.carol.id}))?;
        has(&seen, &json!({"splits": []}))?;
        let mut values = seen.as_object().context("no object")?.values();
        ensure!(
            values.all(|value| *value != 30),
            "Bob's share is shown to Carol: {seen}"
        );
        refused(
            &act(&bank.bob, id, "reverse", json!({})).await?,
            403,
            "NOT_YOUR_ACCOUNT",
        )
    })
}

#[test]
fn a_dry_run_says_what_would_happen() -> Result<()> {
    promise(async {
        let bank = Box::pin(Bank::open()).await?;
        let dry = bank.pay(1_000, &json!({"dry_run": true})).await?;
        has(&dry, &json!({"status": "dry_run"}))?;
        let answer = bank
            .alice
            .rest
            .get(&format!("/api/transfers/{}", id_of(&dry)?))
            .await?;
        refused(&answer, 404, "TRANSFER_NOT_FOUND")?;
        let poor = bank.payment(1_001, &json!({"dry_run": true}));
        refused(
            &bank.alice.rest.post("/api/transfer", &poor).await?,
            400,
            "INSUFFICIENT_BALANCE",
        )?;
        let pending = bank.pay(400, &json!({"pending": true})).await?;
        let posting = act(&bank.bob, id_of(&pending)?, "post", json!({"dry_run": true}))
            .await?
            .expect(200)?;
        has(&posting, &json!({"status": "dry_run"}))?;
        let voiding = act(&bank.bob, id_of(&pending)?, "void", json!({"dry_run": true}))
            .await?
            .expect(200)?;
        has(&voiding, &json!({"status": "dry_run"}))?;
        has(
            &read(&bank.bob, id_of(&pending)?).await?,
            &json!({"state": "TRANSFER_STATE_PENDING"}),
        )?;
        bank.balances(1_000, 0, 0).await?;
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM journal")
            .fetch_one(&bank.world.database(Service::Transfer).await?)
            .await?;
        ensure!(
            rows == 2,
            "{rows} rows: the deposit and the pending transfer are two"
        );
        Ok(())
    })
}

#[test]
fn a_retry_is_told_and_other_content_named() -> Result<()> {
    promise(async {
        let bank = Box::pin(Bank::open()).await?;
        let rest = bank.alice.rest.with("idempotency-key", "rent of May")?;
        let body = bank.payment(100, &json!({"reference": "May"}));
        let first = rest.post("/api/transfer", &body).await?;
        ensure!(
            first.header("idempotent-replayed").is_empty(),
            "{:?}",
            first.headers
        );
        let first = first.expect(200)?;
        let again = rest.post("/api/transfer", &body).await?;
        ensure!(
            again.header("idempotent-replayed") == "true",
            "{:?}",
            again.headers
        );
        ensure!(again.expect(200)? == first);
        for (field, body) in [
            ("amount", bank.payment(101, &json!({"reference": "May"}))),
            (
                "to",
                bank.payment(100, &json!({"reference": "May", "to": bank.carol.id})),
            ),
            ("reference", bank.payment(100, &json!({"reference": "June"}))),
            (
                "description",
                bank.payment(100, &json!({"reference": "May", "description": "flat"})),
            ),
            (
                "pending",
                bank.payment(100, &json!({"reference": "May", "pending": true})),
            ),
        ] {
            let answer = rest.post("/api/transfer", &body).await?;
            refused(&answer, 409, "TRANSFER_ID_REUSED")?;
            ensure!(
                answer.json["violations"][0]["field"] == field,
                "{field}: {}",
                answer.text
            );
        }
        bank.balances(900, 100, 0).await?;
        // what ends a pending transfer has a key of its own
        let pending = bank.pay(50, &json!({"pending": true})).await?;
        let path = format!("/api/transfers/{}/post", id_of(&pending)?);
        let rest = bank.bob.rest.with("idempotency-key", "collect")?;
        let first = rest.post(&path, &json!({})).await?.expect(200)?;
        let again = rest.post(&path, &json!({})).await?;
        ensure!(
            again.header("idempotent-replayed") == "true",
            "{:?}",
            again.headers
        );
        ensure!(again.expect(200)? == first);
        let other = rest.post(&path, &json!({"amount": 1})).await?;
        refused(&other, 409, "TRANSFER_ID_REUSED")?;
        bank.balances(850, 150, 0).await
    })
}
