//! The REST door answers as design and contracts say: the right status, sentence and reason for every kind of bad input, with
//! nothing changed by it; and each caller reads only what is theirs.

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Rest, Service, TestWorld, User, promise, rest::Answer, user, world::Options};
use uuid::Uuid;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// A refusal of the fixed form: status, reason, a sentence, a request id.
fn refused(what: &str, answer: &Answer, status: u16, reason: &str) -> Result<()> {
    let found = (answer.status, answer.json["reason"].as_str().unwrap_or_default());
    ensure!(
        found == (status, reason),
        "{what}: {found:?} instead of {status} {reason}: {}",
        answer.text
    );
    let sentence = answer.json["error"].as_str().unwrap_or_default();
    ensure!(sentence.len() > 3, "{what}: no sentence: {}", answer.text);
    ensure!(!answer.header("x-request-id").is_empty(), "{what}: no request id");
    ensure!(
        answer
            .header("content-type")
            .starts_with("application/problem+json"),
        "{what}: {:?}",
        answer.headers
    );
    Ok(())
}

/// What bad input must not change.
async fn state(world: &TestWorld) -> Result<Vec<i64>> {
    let mut counts = Vec::new();
    for (service, query) in [
        (Service::Transfer, "SELECT count(*) FROM journal"),
        (
            Service::Transfer,
            "SELECT coalesce(sum(abs(posted)), 0)::bigint FROM accounts",
        ),
        (Service::Account, "SELECT count(*) FROM users"),
        (Service::Chat, "SELECT count(*) FROM messages"),
        (Service::Chat, "SELECT count(*) FROM rooms"),
    ] {
        counts.push(
            sqlx::query_scalar(query)
                .fetch_one(&world.database(service).await?)
                .await?,
        );
    }
    Ok(counts)
}

#[test]
fn a_bad_transfer_changes_nothing() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 1_000).await?, world.user("Bob", 0).await?);
        let before = state(&world).await?;
        let with = |field: &str, value: Value| {
            let mut body = json!({"from": alice.id, "to": bob.id, "amount": 1});
            body[field] = value;
            body
        };
        let largest = 9_007_199_254_740_991_i64;
        let bad = [
            ("negative", with("amount", json!(-1))),
            ("zero", with("amount", json!(0))),
            ("fraction", with("amount", json!(0.5))),
            ("above 2^53", with("amount", json!(largest + 1))),
            ("above 2^64", with("amount", json!(1e30))),
            ("text", with("amount", json!("much"))),
            ("null", with("amount", Value::Null)),
            ("a list", with("amount", json!([1]))),
            ("to oneself", with("to", json!(alice.id))),
            ("to nobody", with("to", json!(0))),
            ("no such currency", with("currency", json!("euro"))),
            ("not a UUID", with("transfer_id", json!("42"))),
            ("NUL", with("transfer_id", json!("\u{0}"))),
            ("a megabyte", with("currency", json!("x".repeat(500_000)))),
            ("an unknown field", with("fee", json!(1))),
        ];
        for (what, body) in bad {
            let answer = alice.rest.post("/api/transfer", &body).await?;
            refused(what, &answer, 400, "INVALID_ARGUMENT")?;
        }
        let answer = alice.transfer(999_999, 1, Uuid::new_v4()).await?;
        refused("an unknown user", &answer, 404, "USER_NOT_FOUND")?;
        answer.refused(404, "User not found")?;
        let answer = alice.transfer(bob.id, 1_001, Uuid::new_v4()).await?;
        refused("more than there is", &answer, 400, "INSUFFICIENT_BALANCE")?;
        answer.refused(400, "Insufficient balance")?;
        let answer = alice.transfer(bob.id, largest, Uuid::new_v4()).await?;
        answer.refused(400, "Insufficient balance")?;
        let stolen = json!({"from": bob.id, "to": alice.id, "amount": 1});
        let answer = alice.rest.post("/api/transfer", &stolen).await?;
        refused("another's money", &answer, 403, "NOT_YOUR_ACCOUNT")?;
        answer.refused(403, "Can only transfer from your account")?;
        let answer = world.rest()?.post("/api/transfer", &stolen).await?;
        answer.refused(401, "Unauthorized")?;
        let answer = alice
            .rest
            .post("/api/deposits", &json!({"to": alice.id, "amount": 1_000_000}))
            .await?;
        refused("a customer's deposit", &answer, 403, "PERMISSION_DENIED")?;
        ensure!(state(&world).await? == before, "bad input has changed something");
        alice.transfer(bob.id, 1_000, Uuid::new_v4()).await?.expect(200)?;
        Ok(())
    })
}

#[test]
fn each_bad_field_is_named() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let before = state(&world).await?;
        let body = json!({"name": "", "email": "nowhere", "password": "short", "request_id": "7"});
        let answer = world.rest()?.post("/api/users", &body).await?;
        refused("four bad fields", &answer, 400, "INVALID_ARGUMENT")?;
        let text = answer.text.clone();
        for field in ["name", "email", "request_id"] {
            ensure!(text.contains(field), "{field} is not named: {text}");
        }
        let good =
            |name: &str, email: &str| json!({"name": name, "email": email, "password": user::PASSWORD});
        let long = format!("{}@example.com", "x".repeat(300));
        for (what, body) in [
            ("a name with NUL", good("A\u{0}", "a@example.com")),
            ("a name with a line break", good("A\nB", "a@example.com")),
            ("a long name", good(&"A".repeat(101), "a@example.com")),
            ("a long email", good("A", &long)),
            ("no at sign", good("A", "example.com")),
            ("no email", json!({"name": "A"})),
            (
                "a number for a name",
                json!({"name": 1, "email": "a@example.com"}),
            ),
        ] {
            let answer = world.rest()?.post("/api/users", &body).await?;
            refused(what, &answer, 400, "INVALID_ARGUMENT")?;
        }
        ensure!(state(&world).await? == before, "bad input has changed something");
        Ok(())
    })
}

#[test]
fn a_malformed_request_is_refused_by_its_kind() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let alice = world.user("Alice", 10).await?;
        let before = state(&world).await?;
        let rest = &alice.rest;
        let post = async |body: &str| {
            rest.send(Method::POST, "/api/transfer", &JSON, body.to_owned())
                .await
        };
        // no body is an empty object
        refused("no body", &post("").await?, 400, "INVALID_ARGUMENT")?;
        for body in [
            "{",
            "{\"from\":1,}",
            "nonsense",
            "{\"from\":1}{\"from\":1}",
            "\u{feff}{}",
            "[[[[[[[[",
            "null",
            "[1, 2, 3]",
        ] {
            refused(body, &post(body).await?, 400, "INVALID_ARGUMENT")?;
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        refused("nested deeply", &post(&deep).await?, 400, "INVALID_ARGUMENT")?;
        let twice = format!("{{\"from\":{0},\"to\":99,\"amount\":1,\"amount\":5}}", alice.id);
        ensure!(post(&twice).await?.status >= 400, "a field twice");
        let bytes = rest
            .send(Method::POST, "/api/transfer", &JSON, vec![b'{', 0xff, 0xfe, b'}'])
            .await?;
        refused("not UTF-8", &bytes, 400, "INVALID_ARGUMENT")?;
        let large = rest
            .send(Method::POST, "/api/transfer", &JSON, "x".repeat(20_000_000))
            .await;
        // the connection may be closed while the body is still being sent
        if let Ok(large) = large {
            ensure!(large.status == 413, "20 MB: {} {}", large.status, large.text);
        }
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let form = rest
            .send(Method::POST, "/api/transfer", &form, "from=1&to=2&amount=1")
            .await?;
        ensure!(form.status == 415, "a form: {} {}", form.status, form.text);
        let text = rest
            .send(
                Method::POST,
                "/api/transfer",
                &[("content-type", "text/plain")],
                "{}",
            )
            .await?;
        ensure!(text.status == 415, "plain text: {} {}", text.status, text.text);
        ensure!(state(&world).await? == before, "bad input has changed something");
        Ok(())
    })
}

#[test]
fn an_unknown_path_or_method_is_not_found() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let alice = world.user("Alice", 10).await?;
        for path in [
            "/",
            "/api",
            "/api/",
            "/api/nothing",
            "/api/users",
            "/api/users/",
            "/api/users/1/2",
            "/api/transfer/",
            "/../etc/passwd",
            "/api/users/%2e%2e/1",
            "//api/users/1",
        ] {
            let answer = alice.rest.get(path).await?;
            ensure!(
                [404, 405].contains(&answer.status),
                "GET {path}: {} {}",
                answer.status,
                answer.text
            );
        }
        for (method, path) in [
            (Method::DELETE, "/api/users/1"),
            (Method::PUT, "/api/transfer"),
            (Method::GET, "/api/transfer"),
        ] {
            let answer = alice.rest.send(method.clone(), path, &JSON, "{}").await?;
            ensure!(
                [404, 405].contains(&answer.status),
                "{method} {path}: {} {}",
                answer.status,
                answer.text
            );
            ensure!(!answer.json["error"].is_null(), "{}", answer.text);
        }
        for id in [
            "abc",
            "-1",
            "0",
            "1.5",
            "9007199254740992",
            "99999999999999999999",
            "%00",
            "1%20OR%201=1",
        ] {
            let answer = alice.rest.get(&format!("/api/users/{id}")).await?;
            ensure!(
                [400, 404].contains(&answer.status),
                "user {id}: {} {}",
                answer.status,
                answer.text
            );
        }
        alice
            .rest
            .get("/api/users/999999")
            .await?
            .refused(404, "User not found")
    })
}

#[test]
fn everyone_reads_what_is_theirs() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 100).await?, world.user("Bob", 7).await?);
        let eve = world.user("Eve", 0).await?;
        let own = alice
            .rest
            .get(&format!("/api/users/{}", alice.id))
            .await?
            .expect(200)?;
        ensure!(
            own["id"] == alice.id && own["name"] == "Alice" && own["email"] == alice.email.as_str(),
            "{own}"
        );
        ensure!(own["balance"] == 100, "ids and amounts are JSON numbers: {own}");
        let other = alice.rest.get(&format!("/api/users/{}", bob.id)).await?;
        ensure!(
            !other.text.contains("balance") && !other.text.contains('@'),
            "{}",
            other.text
        );
        ensure!(other.expect(200)? == json!({"id": bob.id, "name": "Bob"}));
        world
            .rest()?
            .get(&format!("/api/users/{}", alice.id))
            .await?
            .refused(401, "Unauthorized")?;

        alice
            .write(bob.id, "for Bob", Uuid::new_v4())
            .await?
            .expect(201)?;
        let history = format!("/api/messages/{}/{}", alice.id, bob.id);
        refused(
            "another's letters",
            &eve.rest.get(&history).await?,
            403,
            "NOT_YOUR_MESSAGES",
        )?;
        world.rest()?.get(&history).await?.refused(401, "Unauthorized")?;
        let forged = json!({"sender_id": bob.id, "content": "from Bob, says Eve"});
        let answer = eve
            .rest
            .post(&format!("/api/messages/{}", alice.id), &forged)
            .await?;
        refused("another's name", &answer, 403, "NOT_THE_SENDER")?;

        let id = Uuid::new_v4();
        alice.transfer(bob.id, 5, id).await?.expect(200)?;
        let seen = bob.rest.get(&format!("/api/transfers/{id}")).await?.expect(200)?;
        ensure!(
            seen["from"] == alice.id && seen["to"] == bob.id && seen["amount"] == 5,
            "{seen}"
        );
        let answer = eve.rest.get(&format!("/api/transfers/{id}")).await?;
        refused("another's transfer", &answer, 404, "TRANSFER_NOT_FOUND")
    })
}

#[test]
fn messages_come_back_as_the_seed_shows_them() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        ensure!(alice.messages(bob.id).await?.is_empty());
        for (from, to, text) in [(&alice, &bob, "1 ☕"), (&bob, &alice, "2"), (&alice, &bob, "3")] {
            from.write(to.id, text, Uuid::new_v4()).await?.expect(201)?;
        }
        let messages = bob.messages(alice.id).await?;
        ensure!(messages == alice.messages(bob.id).await?);
        let seen: Vec<_> = messages
            .iter()
            .map(|m| (&m["sender_id"], &m["receiver_id"], &m["content"]))
            .collect();
        let (a, b) = (json!(alice.id), json!(bob.id));
        ensure!(
            seen == [
                (&a, &b, &json!("1 ☕")),
                (&b, &a, &json!("2")),
                (&a, &b, &json!("3"))
            ],
            "{messages:?}"
        );
        ensure!(
            messages
                .iter()
                .all(|m| m["timestamp"].as_str().is_some_and(|time| time.ends_with('Z'))),
            "{messages:?}"
        );

        let before = state(&world).await?;
        let write = async |to: i64, content: &str| {
            alice
                .rest
                .post(
                    &format!("/api/messages/{to}"),
                    &json!({"sender_id": alice.id, "content": content}),
                )
                .await
        };
        for (what, to, content) in [
            ("empty", bob.id, String::new()),
            ("too long", bob.id, "x".repeat(4_097)),
            ("NUL", bob.id, "a\u{0}b".to_owned()),
            ("to oneself", alice.id, "hello".to_owned()),
        ] {
            refused(what, &write(to, &content).await?, 400, "INVALID_ARGUMENT")?;
        }
        write(999_999, "hello").await?.refused(404, "User not found")?;
        ensure!(state(&world).await? == before, "bad input has changed something");
        // 4,096 characters are not 4,096 bytes
        write(bob.id, &"é".repeat(4_096)).await?.expect(201)?;
        Ok(())
    })
}

#[test]
fn history_is_read_page_by_page() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        for n in 1..=25 {
            alice
                .write(bob.id, &n.to_string(), Uuid::new_v4())
                .await?
                .expect(201)?;
        }
        let path = format!("/api/messages/{}/{}?page_size=10", alice.id, bob.id);
        let (mut read, mut token) = (Vec::new(), String::new());
        for size in [10, 10, 5] {
            let page = alice
                .rest
                .get(&format!("{path}&page_token={token}"))
                .await?
                .expect(200)?;
            let messages = page["messages"].as_array().context("no messages")?;
            ensure!(messages.len() == size, "{} messages", messages.len());
            let mut contents: Vec<_> = messages.iter().map(|m| m["content"].clone()).collect();
            contents.append(&mut read);
            read = contents;
            token = page["previous_page_token"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        ensure!(token.is_empty(), "a page after the last");
        ensure!(
            read == (1..=25).map(|n| json!(n.to_string())).collect::<Vec<_>>(),
            "{read:?}"
        );
        for query in [
            "page_size=1001",
            "page_size=-1",
            "page_size=x",
            "page_token=made-up",
            "nothing=1",
        ] {
            let answer = alice
                .rest
                .get(&format!("/api/messages/{}/{}?{query}", alice.id, bob.id))
                .await?;
            refused(query, &answer, 400, "INVALID_ARGUMENT")?;
        }
        Ok(())
    })
}

#[test]
fn signing_in_tells_nobody_who_is_there() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let alice: User = world.user("Alice", 0).await?;
        let rest: Rest = world.rest()?;
        let sign_in = async |email: &str, password: &str| {
            rest.post("/api/login", &json!({"email": email, "password": password}))
                .await
        };
        let wrong = sign_in(&alice.email, "not the password").await?;
        let unknown = sign_in("nobody@example.com", "not the password").await?;
        for answer in [&wrong, &unknown] {
            answer.refused(401, "Invalid credentials")?;
            ensure!(answer.json["reason"] == "INVALID_CREDENTIALS" && answer.header("set-cookie").is_empty());
        }
        // nobody signs in as a user who has no password
        let email = format!("mute-{}@example.com", Uuid::new_v4().simple());
        rest.post("/api/users", &json!({"name": "Mute", "email": email}))
            .await?
            .expect(201)?;
        sign_in(&email, "anything at all")
            .await?
            .refused(401, "Invalid credentials")?;
        refused(
            "no password",
            &sign_in(&email, "").await?,
            400,
            "INVALID_ARGUMENT",
        )?;
        refused(
            "a long password",
            &sign_in(&email, &"x".repeat(2_000)).await?,
            400,
            "INVALID_ARGUMENT",
        )?;
        // case does not matter in an email
        sign_in(&alice.email.to_uppercase(), user::PASSWORD)
            .await?
            .expect(200)?;
        for token in ["", "x", "..", &"A".repeat(43), &"A".repeat(5_000)] {
            rest.signed_in(token)?
                .get("/api/session")
                .await?
                .refused(401, "Unauthorized")?;
        }
        Ok(())
    })
}
