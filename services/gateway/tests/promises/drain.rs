//! The end: requests finish, streams are told, nothing new is taken.

use std::{sync::atomic::Ordering, time::Duration};

use proto::chat::v1::{SubscribeRequest, chat_service_client::ChatServiceClient};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    bank::{ALICE, GATED},
    world::{World, signed_in},
};

#[tokio::test]
async fn requests_finish_and_the_gateway_ends_well() {
    let world = World::new().await;
    let transfer = json!({"from": 1, "to": 2, "amount": GATED});
    let gated = world
        .post("/api/transfer")
        .bearer_auth(ALICE)
        .json(&transfer)
        .send();
    let drain = async {
        world
            .eventually("in flight", || async {
                world.bank.waiting.load(Ordering::SeqCst) == 1
            })
            .await;
        world.drain();
        world
            .eventually("closed", || async {
                TcpStream::connect(world.address).await.is_err()
            })
            .await;
        world.bank.gate.notify_one();
    };
    let (gated, ()) = tokio::join!(gated, drain);
    let gated = gated.unwrap();
    assert_eq!(
        (gated.status().as_u16(), &gated.headers()["connection"]),
        (200, &"close".parse().unwrap())
    );
    world.ended().await.unwrap();
}

#[tokio::test]
async fn streams_are_told_to_go_elsewhere() {
    let world = World::new().await;
    let mut chat = ChatServiceClient::new(world.grpc().await);
    let mut stream = chat
        .subscribe(signed_in(SubscribeRequest::default(), ALICE))
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap().unwrap();
    let mut health = HealthClient::new(world.grpc().await);
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    world.drain();
    let end = stream.message().await.unwrap_err();
    assert_eq!(
        (end.code(), rpc::error::reason(&end).as_deref()),
        (Code::Unavailable, Some("DRAINING"))
    );
    timeout(Duration::from_secs(5), world.ended())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let world = World::new().await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    world
        .eventually("idle", || async {
            world.get("/livez").send().await.unwrap().status() == 200
        })
        .await;
    world.drain();
    timeout(Duration::from_secs(5), world.ended())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
}
