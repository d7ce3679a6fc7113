//! REST: the seed's routes, its sentences, and clear errors.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{
    bank::{ALICE, ENDLESS, OPERATOR, REPLAYED, SECRET},
    world::World,
};

/// The status, and the error document after a look at what every one has.
async fn problem(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let document: Value = response.json().await.unwrap();
    assert_eq!(
        (&document["request_id"], &document["status"]),
        (&json!(id), &json!(status))
    );
    assert!(!document.to_string().contains("relation"), "{document}");
    (status, document)
}

#[tokio::test]
async fn the_seeds_calls_work_with_a_bearer_token() {
    let world = World::new().await;
    let user = world.get("/api/users/1").bearer_auth(ALICE).send().await.unwrap();
    assert_eq!(
        (user.status().as_u16(), &user.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    assert_eq!(
        user.text().await.unwrap(),
        r#"{"id":1,"name":"Alice","email":"alice@example.com","balance":1000}"#
    );
    let created = world
        .post("/api/users")
        .json(&json!({"name": "C", "email": "c@d.e"}))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (created.status().as_u16(), created.text().await.unwrap().as_str()),
        (201, r#"{"id":3}"#)
    );
    let transfer = json!({"from": 1, "to": 2, "amount": 100});
    let transfer = world
        .post("/api/transfer")
        .bearer_auth(ALICE)
        .json(&transfer)
        .send()
        .await
        .unwrap();
    assert_eq!(transfer.status(), 200);
    let answer: Value = transfer.json().await.unwrap();
    assert_eq!(answer["status"], "success");
    assert_eq!(answer["transfer_id"].as_str().unwrap().len(), 36);
    let message = json!({"sender_id": 1, "content": "hi"});
    let sent = world
        .post("/api/messages/2")
        .bearer_auth(ALICE)
        .json(&message)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 201);
    let history = world
        .get("/api/messages/1/2")
        .bearer_auth(ALICE)
        .send()
        .await
        .unwrap();
    let history: Value = history.json().await.unwrap();
    assert_eq!(history["messages"].as_array().unwrap().len(), 1_000);
}

#[tokio::test]
async fn errors_are_the_seeds_sentences() {
    let world = World::new().await;
    let transfer = |from: i64, amount: i64| {
        world
            .post("/api/transfer")
            .bearer_auth(ALICE)
            .json(&json!({"from": from, "to": 2, "amount": amount}))
            .send()
    };
    let login = world
        .post("/api/login")
        .json(&json!({"email": "a@b.c", "password": "wrong"}))
        .send();
    for (response, status, sentence, reason) in [
        (
            world.get("/api/users/1").send().await,
            401,
            "Unauthorized",
            "UNAUTHENTICATED",
        ),
        (
            world.get("/api/users/1").bearer_auth("x").send().await,
            401,
            "Unauthorized",
            "SESSION_INVALID",
        ),
        (login.await, 401, "Invalid credentials", "INVALID_CREDENTIALS"),
        (
            world.get("/api/users/7").bearer_auth(ALICE).send().await,
            404,
            "User not found",
            "USER_NOT_FOUND",
        ),
        (
            transfer(1, 5_000).await,
            400,
            "Insufficient balance",
            "INSUFFICIENT_BALANCE",
        ),
        (
            transfer(2, 5).await,
            403,
            "Can only transfer from your account",
            "NOT_YOUR_ACCOUNT",
        ),
    ] {
        let (got, document) = problem(response.unwrap()).await;
        assert_eq!(
            (got, document["error"].as_str(), document["reason"].as_str()),
            (status, Some(sentence), Some(reason))
        );
    }
}

#[tokio::test]
async fn upstream_errors_never_leak() {
    let world = World::new().await;
    let get = |path: &'static str| world.get(path).bearer_auth(ALICE).send();
    for path in ["/api/users/500", "/api/users/502"] {
        let (status, document) = problem(get(path).await.unwrap()).await;
        assert_eq!(
            (status, &document["error"], &document["reason"]),
            (500, &json!("Internal error"), &json!("INTERNAL"))
        );
        assert!(!document.to_string().contains(SECRET));
    }
    let room = json!({"name": "x"});
    let (status, document) = problem(
        world
            .post("/api/rooms")
            .bearer_auth(ALICE)
            .json(&room)
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (status, &document["error"]),
        (400, &json!("The request was refused"))
    );
    let broken = world
        .post("/api/rooms/1/messages")
        .bearer_auth(ALICE)
        .json(&json!({"content": "x"}))
        .send();
    let (status, document) = problem(broken.await.unwrap()).await;
    assert!((500..504).contains(&status), "{status} {document}");
    let full = get("/api/rooms/1/messages").await.unwrap();
    assert_eq!(full.headers()["retry-after"], "1");
    assert_eq!(problem(full).await.0, 503);
}

#[tokio::test]
async fn bad_requests_are_refused_before_any_upstream_sees_them() {
    let world = World::new().await;
    let post = |path: &str, kind: &str, body: &str| {
        let request = world
            .post(path)
            .bearer_auth(ALICE)
            .header("content-type", kind.to_owned());
        request.body(body.to_owned()).send()
    };
    let json = "application/json";
    let large = format!("{{\"currency\":\"{}\"}}", "x".repeat(1024 * 1024));
    for (response, status, reason) in [
        (post("/api/transfer", json, "{").await, 400, "INVALID_ARGUMENT"),
        (
            post("/api/transfer", json, "{\"amount\":1.5}").await,
            400,
            "INVALID_ARGUMENT",
        ),
        (
            post("/api/transfer", "text/plain", "{}").await,
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (post("/api/transfer", json, &large).await, 413, "BODY_TOO_LARGE"),
        (post("/api/nothing", json, "{}").await, 404, "ROUTE_NOT_FOUND"),
        (world.get("/").send().await, 404, "ROUTE_NOT_FOUND"),
        (
            world.get("/api/users/x").bearer_auth(ALICE).send().await,
            400,
            "INVALID_ARGUMENT",
        ),
        (world.get("/api/transfer").send().await, 405, "METHOD_NOT_ALLOWED"),
        (
            post("/api/transfer", "application/grpc", "").await,
            400,
            "HTTP2_REQUIRED",
        ),
    ] {
        let (got, document) = problem(response.unwrap()).await;
        assert_eq!(
            (got, document["reason"].as_str()),
            (status, Some(reason)),
            "{document}"
        );
    }
    let seen = world.bank.seen.lock().unwrap();
    assert!(
        seen.iter().all(|(path, _)| path.ends_with("ResolveSession")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn violations_are_listed_by_field() {
    let world = World::new().await;
    let response = world
        .post("/api/users")
        .json(&json!({"name": ""}))
        .send()
        .await
        .unwrap();
    let (status, document) = problem(response).await;
    assert_eq!(
        (status, &document["error"]),
        (400, &json!("name must not be empty; request_id must be a UUID"))
    );
    assert_eq!(
        document["violations"][0],
        json!({"field": "name", "description": "must not be empty"})
    );
}

#[tokio::test]
async fn head_options_and_allow_are_answered() {
    let world = World::new().await;
    let head = world
        .request(Method::HEAD, "/api/users/1")
        .bearer_auth(ALICE)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"66".parse().unwrap())
    );
    assert_eq!(head.text().await.unwrap(), "");
    let options = world
        .request(Method::OPTIONS, "/api/users/1")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (options.status().as_u16(), &options.headers()["allow"]),
        (204, &"GET, HEAD, OPTIONS".parse().unwrap())
    );
    let wrong = world.request(Method::DELETE, "/api/login").send().await.unwrap();
    assert_eq!(
        (wrong.status().as_u16(), &wrong.headers()["allow"]),
        (405, &"POST, OPTIONS".parse().unwrap())
    );
}

#[tokio::test]
async fn a_request_id_is_kept_or_made_and_reaches_the_upstream() {
    let world = World::new().await;
    let own = world
        .get("/api/users/1")
        .bearer_auth(ALICE)
        .header("x-request-id", "mine-7")
        .send()
        .await
        .unwrap();
    assert_eq!(own.headers()["x-request-id"], "mine-7");
    assert_eq!(world.bank.last("GetUser")["x-request-id"], "mine-7");
    let made = world
        .get("/api/users/1")
        .bearer_auth(ALICE)
        .header("x-request-id", "not sane")
        .send()
        .await
        .unwrap();
    assert_eq!(made.headers()["x-request-id"].len(), 36);
}

#[tokio::test]
async fn an_idempotency_key_becomes_the_callers_uuid() {
    let world = World::new().await;
    let deposit = async |token: &str, key: &str| {
        let body = json!({"to": 1, "amount": 5});
        let request = world
            .post("/api/deposits")
            .bearer_auth(token)
            .header("idempotency-key", key.to_owned());
        let answer: Value = request.json(&body).send().await.unwrap().json().await.unwrap();
        answer["transfer_id"].as_str().map(str::to_owned)
    };
    let first = deposit(OPERATOR, "order-1").await.unwrap();
    assert_eq!(deposit(OPERATOR, "order-1").await.unwrap(), first);
    assert_ne!(deposit(OPERATOR, "order-2").await.unwrap(), first);
    assert_eq!(deposit(OPERATOR, &first).await.unwrap(), first);
    assert_eq!(deposit(OPERATOR, "").await, None);
}

#[tokio::test]
async fn a_repeated_write_says_that_it_was_done_before() {
    let world = World::new().await;
    let replayed = async |amount: i64| {
        let transfer = json!({"from": 1, "to": 2, "amount": amount});
        let request = world.post("/api/transfer").bearer_auth(ALICE).json(&transfer);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.headers().get("idempotent-replayed").cloned()
    };
    assert_eq!(replayed(REPLAYED).await, Some("true".parse().unwrap()));
    assert_eq!(replayed(5).await, None);
}

#[tokio::test]
async fn an_answer_that_is_not_json_comes_as_it_is() {
    let world = World::new().await;
    let path = "/api/accounts/7/statement.csv?from_time=2026-01-01T00:00:00Z";
    let response = world.get(path).bearer_auth(ALICE).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/csv; charset=utf-8");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let body = "account,amount\r\n7,\"1\"\r\n";
    assert_eq!(response.text().await.unwrap(), body);
    let head = world.request(Method::HEAD, path).bearer_auth(ALICE).send();
    let length = body.len().to_string();
    assert_eq!(head.await.unwrap().headers()["content-length"], length.as_str());
}

#[tokio::test]
async fn a_late_upstream_is_a_gateway_timeout() {
    let world = World::with(&[("KONTOR_DEADLINE_MS", "300")]).await;
    let transfer = json!({"from": 1, "to": 2, "amount": ENDLESS});
    let response = world
        .post("/api/transfer")
        .bearer_auth(ALICE)
        .json(&transfer)
        .send()
        .await
        .unwrap();
    let (status, document) = problem(response).await;
    assert_eq!(
        (status, document["reason"].as_str()),
        (504, Some("DEADLINE_EXCEEDED"))
    );
}

#[tokio::test]
async fn a_missing_upstream_is_a_bad_gateway_and_not_ready() {
    let world = World::unready(&[("KONTOR_ACCOUNT_ADDRESSES", "127.0.0.1:1")]).await;
    let (status, document) =
        problem(world.get("/api/users/1").bearer_auth(ALICE).send().await.unwrap()).await;
    assert_eq!(
        (status, document["reason"].as_str()),
        (502, Some("UPSTREAM_UNREACHABLE"))
    );
    world
        .eventually("told", async || {
            let ready = world.get("/readyz").send().await.unwrap();
            ready.status() == 503
                && ready.text().await.unwrap() == r#"{"for":["account"],"status":"waiting"}"#
        })
        .await;
    assert_eq!(world.get("/livez").send().await.unwrap().status(), 200);
}
