//! Native gRPC: proxied, with trailers and streams, and closed to what is not for outsiders.

use std::time::{Duration, Instant};

use proto::{
    account::v1::{GetUserRequest, account_service_client::AccountServiceClient},
    auth::v1::{
        LoginRequest, ResolveSessionRequest, auth_service_client::AuthServiceClient,
        session_service_client::SessionServiceClient,
    },
    chat::v1::{
        ListDirectMessagesRequest, RoomPosition, SubscribeRequest, chat_service_client::ChatServiceClient,
        subscribe_response::Event,
    },
    transfer::v1::{CreateTransferRequest, DepositRequest, transfer_service_client::TransferServiceClient},
};
use rpc::Caller;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    bank::{ALICE, ENDLESS, REPLAYED, SECRET},
    world::{World, signed_in},
};

#[tokio::test]
async fn calls_and_rich_errors_pass_through() {
    let world = World::new().await;
    let mut accounts = AccountServiceClient::new(world.grpc().await);
    let user = accounts
        .get_user(signed_in(GetUserRequest { id: 1 }, ALICE))
        .await
        .unwrap();
    assert_eq!(user.into_inner().user.unwrap().balance, Some(1_000));
    let missing = accounts
        .get_user(signed_in(GetUserRequest { id: 7 }, ALICE))
        .await
        .unwrap_err();
    assert_eq!(
        (missing.code(), missing.message()),
        (Code::NotFound, "User not found")
    );
    assert_eq!(rpc::error::reason(&missing).as_deref(), Some("USER_NOT_FOUND"));
    assert!(missing.metadata().get("x-request-id").is_some());
    for id in [500, 502] {
        let broken = accounts
            .get_user(signed_in(GetUserRequest { id }, ALICE))
            .await
            .unwrap_err();
        assert_eq!(broken.message(), "Internal error");
        assert!(!String::from_utf8_lossy(broken.details()).contains(SECRET));
    }
}

#[tokio::test]
async fn large_answers_arrive_whole() {
    let world = World::new().await;
    let mut chat = ChatServiceClient::new(world.grpc().await).max_decoding_message_size(16 * 1024 * 1024);
    let request = ListDirectMessagesRequest {
        user_id: 1,
        other_id: 2,
        ..Default::default()
    };
    let answer = chat
        .list_direct_messages(signed_in(request, ALICE))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.messages.len(), 1_000);
    assert!(
        answer
            .messages
            .iter()
            .all(|message| message.content.len() == 4_096)
    );
}

#[tokio::test]
async fn what_is_not_for_outsiders_does_not_exist() {
    let world = World::new().await;
    let mut sessions = SessionServiceClient::new(world.grpc().await);
    let internal = sessions
        .resolve_session(ResolveSessionRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (internal.code(), internal.message()),
        (Code::Unimplemented, "There is no such method")
    );
    assert_eq!(world.bank.resolved.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn access_is_checked() {
    let world = World::new().await;
    let mut accounts = AccountServiceClient::new(world.grpc().await);
    let nobody = accounts.get_user(GetUserRequest { id: 1 }).await.unwrap_err();
    assert_eq!(
        (nobody.code(), nobody.message()),
        (Code::Unauthenticated, "Unauthorized")
    );
    let mut transfers = TransferServiceClient::new(world.grpc().await);
    let user = transfers
        .deposit(signed_in(DepositRequest::default(), ALICE))
        .await
        .unwrap_err();
    assert_eq!(user.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn forged_headers_never_reach_an_upstream() {
    let world = World::new().await;
    let mut accounts = AccountServiceClient::new(world.grpc().await);
    let mut request = signed_in(GetUserRequest { id: 1 }, ALICE);
    for (name, value) in [
        ("kontor-caller", "forged"),
        ("kontor-role", "operator"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "198.51.100.7"),
        ("x-own", "x"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    accounts.get_user(request).await.unwrap();
    let headers = world.bank.last("GetUser");
    assert!(matches!(
        world.bank.caller(&headers),
        Caller::User {
            user_id: 1,
            operator: false,
            ..
        }
    ));
    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "content-type",
            "grpc-timeout",
            "kontor-caller",
            "te",
            "x-request-id"
        ]
    );
}

#[tokio::test]
async fn a_login_sets_the_cookie_here_too() {
    let world = World::new().await;
    let mut auth = AuthServiceClient::new(world.grpc().await);
    let login = LoginRequest {
        email: "a@b.c".into(),
        password: "password123".into(),
        bearer: false,
    };
    let answer = auth.login(login).await.unwrap();
    assert!(
        answer
            .metadata()
            .get("set-cookie")
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("session=")
    );
    assert!(answer.metadata().get("kontor-set-session").is_none());
}

#[tokio::test]
async fn metadata_of_a_service_passes_through() {
    let world = World::new().await;
    let mut transfers = TransferServiceClient::new(world.grpc().await);
    let transfer = CreateTransferRequest {
        from_user_id: 1,
        amount: REPLAYED,
        ..Default::default()
    };
    let answer = transfers
        .create_transfer(signed_in(transfer, ALICE))
        .await
        .unwrap();
    assert_eq!(answer.metadata().get("idempotent-replayed").unwrap(), "true");
}

#[tokio::test]
async fn deadlines_are_given_capped_and_kept() {
    let world = World::with(&[("KONTOR_DEADLINE_MS", "2000")]).await;
    let mut transfers = TransferServiceClient::new(world.grpc().await);
    let transfer = CreateTransferRequest {
        from_user_id: 1,
        amount: ENDLESS,
        ..Default::default()
    };
    let mut request = signed_in(transfer.clone(), ALICE);
    request.set_timeout(Duration::from_millis(200));
    let start = Instant::now();
    let late = transfers.create_transfer(request).await.unwrap_err();
    assert!(
        matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{late}"
    );
    assert!(start.elapsed() < Duration::from_millis(1_500));
    let late = transfers
        .create_transfer(signed_in(transfer, ALICE))
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let given = world.bank.last("CreateTransfer")["grpc-timeout"]
        .to_str()
        .unwrap()
        .to_owned();
    let given: u64 = given.trim_end_matches('m').parse().unwrap();
    assert!((1..=2_000).contains(&given), "{given}");
}

#[tokio::test]
async fn a_stream_flows_and_outlives_the_default_deadline() {
    let world = World::with(&[("KONTOR_DEADLINE_MS", "300")]).await;
    let mut chat = ChatServiceClient::new(world.grpc().await);
    let positions = vec![RoomPosition {
        room_id: 5,
        after_seq: 0,
    }];
    let request = signed_in(SubscribeRequest { positions }, ALICE);
    let mut stream = chat.subscribe(request).await.unwrap().into_inner();
    let mut next = async || {
        stream
            .message()
            .await
            .map(|answer| answer.unwrap().event.unwrap())
    };
    assert!(matches!(next().await.unwrap(), Event::Subscribed(_)));
    assert!(matches!(next().await.unwrap(), Event::Message(message) if message.room_id == 5));
    let silence = tokio::time::timeout(Duration::from_millis(600), next()).await;
    assert!(silence.is_err(), "the stream ended: {silence:?}");
    assert!(world.bank.last("Subscribe").get("grpc-timeout").is_none());
}

#[tokio::test]
async fn a_stream_ends_at_the_deadline_that_its_caller_set() {
    let world = World::new().await;
    let mut chat = ChatServiceClient::new(world.grpc().await);
    let mut request = signed_in(SubscribeRequest::default(), ALICE);
    // by hand: tonic's client would end the call by itself
    request
        .metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let mut stream = chat.subscribe(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let end = stream.message().await.unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn health_and_the_public_contracts_are_shown() {
    let world = World::new().await;
    let mut health = HealthClient::new(world.grpc().await);
    for service in ["", "kontor.transfer.v1.TransferService"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        assert_eq!(
            health.check(request).await.unwrap().into_inner().status,
            1,
            "{service}"
        );
    }
    let mut reflection = ServerReflectionClient::new(world.grpc().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::iter([ask]))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("a list")
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "kontor.account.v1.AccountService",
            "kontor.auth.v1.AuthService",
            "kontor.chat.v1.ChatService",
            "kontor.transfer.v1.LedgerAccountService",
            "kontor.transfer.v1.LedgerAdminService",
            "kontor.transfer.v1.ScheduleService",
            "kontor.transfer.v1.TransferService",
        ]
    );
}

#[tokio::test]
async fn reflection_is_off_unless_it_is_asked_for() {
    let world = World::with(&[("KONTOR_REFLECTION", "false")]).await;
    let mut reflection = ServerReflectionClient::new(world.grpc().await);
    let ask = tokio_stream::iter([ServerReflectionRequest::default()]);
    let refused = reflection
        .server_reflection_info(Request::new(ask))
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}
