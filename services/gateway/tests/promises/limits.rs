//! Too much is refused at once, and says when to come back.

use std::sync::{Arc, atomic::Ordering};

use futures_util::{FutureExt as _, future::join_all};
use http::HeaderValue;
use proto::account::v1::{GetUserRequest, account_service_client::AccountServiceClient};
use proto::auth::v1::{GetSessionRequest, auth_service_client::AuthServiceClient};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    bank::{ALICE, GATED, OPERATOR},
    world::{World, signed_in},
};

#[tokio::test]
async fn a_caller_over_the_rate_waits_while_others_go_on() {
    let world = World::with(&[("KONTOR_RATE_LIMIT_PER_SECOND", "2")]).await;
    let session = |token: &str| world.get("/api/session").bearer_auth(token).send();
    let first = session(ALICE).await.unwrap();
    assert_eq!(
        (&first.headers()["ratelimit-limit"], first.status().as_u16()),
        (&"4".parse().unwrap(), 200)
    );
    let mut refused = None;
    for _ in 0..10 {
        let response = session(ALICE).await.unwrap();
        if response.status() == 429 {
            refused = Some(response);
        }
    }
    let refused = refused.unwrap();
    assert_eq!(
        (
            &refused.headers()["retry-after"],
            &refused.headers()["ratelimit-remaining"]
        ),
        (&"1".parse().unwrap(), &"0".parse().unwrap())
    );
    assert_eq!(refused.json::<Value>().await.unwrap()["reason"], "RATE_LIMITED");
    assert_eq!(session(OPERATOR).await.unwrap().status(), 200);
    let mut auth = AuthServiceClient::new(world.grpc().await);
    let mut last = None;
    for _ in 0..10 {
        last = auth
            .get_session(signed_in(GetSessionRequest {}, ALICE))
            .await
            .err()
            .or(last);
    }
    let last = last.unwrap();
    assert_eq!(last.code(), Code::ResourceExhausted);
    assert!(last.get_details_retry_info().unwrap().retry_delay.is_some());
    assert_eq!(last.metadata().get("ratelimit-limit").unwrap(), "4");
}

#[tokio::test]
async fn guessing_tokens_is_limited_by_address() {
    let world = World::with(&[("KONTOR_RATE_LIMIT_PER_SECOND", "2")]).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(
            world
                .get("/api/session")
                .bearer_auth("guess")
                .send()
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");
}

/// Asks, with a header for each turn, until the one bucket of all of them is empty.
async fn guess_too_often(world: &World, forwarded: impl Fn(u8) -> String) {
    let mut statuses = Vec::new();
    for turn in 0..10 {
        statuses.push(guess(world, &forwarded(turn)).await.0);
    }
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");
}

/// A request with an invalid session, which its address pays for: the status, and what is left.
async fn guess(world: &World, forwarded: &str) -> (u16, HeaderValue) {
    let guess = world.get("/api/session").bearer_auth("guess");
    let answer = guess.header("x-forwarded-for", forwarded).send().await.unwrap();
    (
        answer.status().as_u16(),
        answer.headers()["ratelimit-remaining"].clone(),
    )
}

/// The same by gRPC, ten times.
async fn guess_by_grpc(world: &World, forwarded: &str) -> Vec<Code> {
    let mut auth = AuthServiceClient::new(world.grpc().await);
    let mut codes = Vec::new();
    for _ in 0..10 {
        let mut request = signed_in(GetSessionRequest {}, "guess");
        let forwarded = forwarded.parse().unwrap();
        request.metadata_mut().insert("x-forwarded-for", forwarded);
        codes.push(auth.get_session(request).await.unwrap_err().code());
    }
    codes
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_limits_of_their_own() {
    let world = World::with(&[
        ("KONTOR_RATE_LIMIT_PER_SECOND", "2"),
        ("KONTOR_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1"),
    ])
    .await;
    // the client begins the list as it likes, and the proxies go on with what they see
    guess_too_often(&world, |turn| format!("192.0.2.{turn}, 198.51.100.7, 10.0.0.2")).await;
    let full = (401, HeaderValue::from_static("3"));
    assert_eq!(guess(&world, "198.51.100.8").await, full);
    assert_eq!(guess(&world, "2001:db8::1").await, full);
    let codes = guess_by_grpc(&world, "198.51.100.7").await;
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
    let codes = guess_by_grpc(&world, "198.51.100.9").await;
    assert_eq!(codes[..4], [Code::Unauthenticated; 4]);
    let mine = world.get("/api/session").bearer_auth(ALICE);
    let mine = mine.header("x-forwarded-for", "198.51.100.7");
    assert_eq!(mine.send().await.unwrap().status(), 200);
    assert!(!world.bank.last("GetSession").contains_key("x-forwarded-for"));
}

#[tokio::test]
async fn a_peer_that_is_no_trusted_proxy_cannot_claim_an_address() {
    for trusted in ["", "10.0.0.0/8,::1"] {
        let world = World::with(&[
            ("KONTOR_RATE_LIMIT_PER_SECOND", "2"),
            ("KONTOR_TRUSTED_PROXIES", trusted),
        ])
        .await;
        guess_too_often(&world, |turn| format!("198.51.100.{turn}")).await;
        let codes = guess_by_grpc(&world, "198.51.100.99").await;
        assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
    }
}

#[tokio::test]
async fn above_the_limit_requests_are_shed_at_once() {
    let world = Arc::new(World::with(&[("KONTOR_MAX_IN_FLIGHT", "1")]).await);
    let transfer = json!({"from": 1, "to": 2, "amount": GATED});
    let gated = world
        .post("/api/transfer")
        .bearer_auth(ALICE)
        .json(&transfer)
        .send();
    let shed = async {
        world
            .eventually("in flight", || async {
                world.bank.waiting.load(Ordering::SeqCst) == 1
            })
            .await;
        let shed = world.get("/api/session").bearer_auth(ALICE).send().await.unwrap();
        let mut auth = AuthServiceClient::new(world.grpc().await);
        let refused = auth
            .get_session(signed_in(GetSessionRequest {}, ALICE))
            .await
            .unwrap_err();
        let ready = world.get("/readyz").send().await.unwrap();
        world.bank.gate.notify_one();
        (shed, refused, ready)
    };
    let (gated, (shed, refused, ready)) = tokio::join!(gated, shed);
    assert_eq!(
        (shed.status().as_u16(), &shed.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    assert_eq!(shed.json::<Value>().await.unwrap()["reason"], "OVERLOADED");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        (ready.status().as_u16(), gated.unwrap().status().as_u16()),
        (200, 200)
    );
    world
        .eventually("free again", || {
            world
                .get("/api/session")
                .bearer_auth(ALICE)
                .send()
                .map(|it| it.unwrap().status() == 200)
        })
        .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_no_place() {
    let world = World::with(&[("KONTOR_MAX_IN_FLIGHT", "2")]).await;
    let closed = world.grpc_with_window(0).await;
    // each is answered, and none of the answers can be sent
    let stalled = (0..8).map(|_| {
        let mut accounts = AccountServiceClient::new(closed.clone());
        async move {
            accounts
                .get_user(signed_in(GetUserRequest { id: 1 }, ALICE))
                .await
        }
    });
    let others = async {
        world
            .eventually("calls arrive", || async { world.bank.calls("GetUser") >= 2 })
            .await;
        world
            .eventually("others are served", || async {
                let answer = world
                    .get("/api/session")
                    .bearer_auth(OPERATOR)
                    .send()
                    .await
                    .unwrap();
                answer.status() == 200
            })
            .await;
    };
    tokio::select! {
        _ = join_all(stalled) => panic!("the client has no window, so no answer can be whole"),
        () = others => {}
    }
}
