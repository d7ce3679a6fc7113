//! Too much is refused at once, and says when to come back.

use std::sync::{Arc, atomic::Ordering};

use futures_util::{FutureExt as _, future::join_all};
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
