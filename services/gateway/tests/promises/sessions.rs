//! Sessions: cookies, bearer tokens, who may do what.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use reqwest::header::{COOKIE, SET_COOKIE};
use rpc::Caller;
use serde_json::{Value, json};

use crate::{
    bank::{ALICE, OPERATOR},
    world::World,
};

#[tokio::test]
async fn a_login_sets_the_cookie_and_tells_nothing_else() {
    let world = World::new().await;
    let login = json!({"email": "alice@example.com", "password": "password123"});
    let response = world.post("/api/login").json(&login).send().await.unwrap();
    let cookie = format!("session={ALICE}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400; Secure");
    assert_eq!(response.headers()[SET_COOKIE], cookie.as_str());
    assert!(
        response
            .headers()
            .keys()
            .all(|name| !name.as_str().starts_with("kontor-"))
    );
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer, json!({"status": "logged_in", "user_id": 1}));
}

#[tokio::test]
async fn a_cookie_is_a_session_and_its_writes_must_be_json() {
    let world = World::new().await;
    let cookie = format!("a=b; session={ALICE}");
    let session = world
        .get("/api/session")
        .header(COOKIE, &cookie)
        .send()
        .await
        .unwrap();
    assert_eq!(session.json::<Value>().await.unwrap()["user_id"], 1);
    let forged = world
        .post("/api/logout")
        .header(COOKIE, &cookie)
        .send()
        .await
        .unwrap();
    assert_eq!(forged.status(), 415);
    let logout = world
        .post("/api/logout")
        .header(COOKIE, &cookie)
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    assert_eq!(
        logout.headers()[SET_COOKIE],
        "session=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0; Secure"
    );
    // a bearer token is nothing that a browser sends by itself
    assert_eq!(
        world
            .post("/api/logout")
            .bearer_auth(ALICE)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let Caller::User { session, .. } = world.bank.caller(&world.bank.last("Logout")) else {
        panic!("a user")
    };
    assert_eq!(session.unwrap().len(), 64);
}

#[tokio::test]
async fn operators_may_what_users_may_not() {
    let world = World::new().await;
    let deposit = |token: &str| {
        world
            .post("/api/deposits")
            .bearer_auth(token)
            .json(&json!({"to": 1, "amount": 5}))
            .send()
    };
    assert_eq!(deposit(ALICE).await.unwrap().status(), 403);
    assert_eq!(deposit(OPERATOR).await.unwrap().status(), 201);
    let anonymous = world
        .post("/api/deposits")
        .json(&json!({"to": 1, "amount": 5}))
        .send()
        .await
        .unwrap();
    assert_eq!(anonymous.status(), 401);
    assert_eq!(anonymous.headers()["www-authenticate"], "Bearer realm=\"kontor\"");
}

#[tokio::test]
async fn a_bad_session_is_nobody_where_anyone_may_call() {
    let world = World::new().await;
    let user = json!({"name": "C", "email": "c@d.e"});
    let bad = "x".repeat(43);
    for cookie in ["session=junk".to_owned(), format!("session={bad}")] {
        let created = world
            .post("/api/users")
            .header(COOKIE, cookie)
            .json(&user)
            .send()
            .await
            .unwrap();
        assert_eq!(created.status(), 201);
        assert_eq!(
            world.bank.caller(&world.bank.last("CreateUser")),
            Caller::Anonymous
        );
    }
    let refused = world.get("/api/users/1").bearer_auth(bad).send().await.unwrap();
    assert_eq!(
        refused.json::<Value>().await.unwrap()["reason"],
        "SESSION_INVALID"
    );
}

#[tokio::test]
async fn questions_at_the_same_time_are_asked_once() {
    let world = World::new().await;
    let gets = (0..20).map(|_| world.get("/api/session").bearer_auth(ALICE).send());
    let statuses: Vec<u16> = join_all(gets)
        .await
        .into_iter()
        .map(|it| it.unwrap().status().as_u16())
        .collect();
    assert_eq!(statuses, [200; 20]);
    let asked = world.bank.resolved.load(Ordering::SeqCst);
    assert!(asked < 20, "asked {asked} times");
}

#[tokio::test]
async fn when_nobody_knows_nobody_is_logged_out() {
    let world = World::unready(&[("KONTOR_AUTH_ADDRESSES", "127.0.0.1:1")]).await;
    let unknown = world.get("/api/users/1").bearer_auth(ALICE).send().await.unwrap();
    assert_eq!(unknown.status(), 503);
    assert_eq!(unknown.json::<Value>().await.unwrap()["reason"], "UNAVAILABLE");
}
