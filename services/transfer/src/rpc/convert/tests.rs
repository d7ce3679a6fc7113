use tonic::Code;

use super::*;

fn request() -> CreateTransferRequest {
    CreateTransferRequest {
        from_user_id: 1,
        to_user_id: 2,
        amount: 100,
        currency: "USD".into(),
        transfer_id: "5d3ecbbb-42a7-4bd1-9cbb-9d5e0c1a9f00".into(),
        ..CreateTransferRequest::default()
    }
}

fn bad_fields(request: CreateTransferRequest) -> Vec<String> {
    let status = transfer(request, Authority::User(1)).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    rpc::error::violations(&status)
        .into_iter()
        .map(|(field, _)| field)
        .collect()
}

fn order(request: CreateTransferRequest) -> Order {
    match transfer(request, Authority::User(1)).unwrap() {
        Action::Transfer(order) => order,
        Action::Direct(command) => panic!("{command:?}"),
    }
}

#[test]
fn every_bad_field_is_named_at_once() {
    let bad = CreateTransferRequest {
        from_user_id: 0,
        to_user_id: -1,
        amount: 0,
        currency: "usd\0".into(),
        transfer_id: "x".repeat(1_000_000),
        reference: "\0".into(),
        description: "x".repeat(1_000_000),
        metadata: [(String::new(), String::new())].into(),
        expires_at: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        }),
        ..CreateTransferRequest::default()
    };
    assert_eq!(
        bad_fields(bad),
        [
            "from",
            "to",
            "amount",
            "currency",
            "transfer_id",
            "expires_at",
            "expires_at",
            "reference",
            "description",
            "metadata"
        ]
    );
}

#[test]
fn amounts_are_exact_in_json() {
    for amount in [i64::MIN, -1, 0, 1 << 53, i64::MAX] {
        assert_eq!(
            bad_fields(CreateTransferRequest { amount, ..request() }),
            ["amount"],
            "{amount}"
        );
    }
}

#[test]
fn nobody_pays_oneself() {
    let selfish = CreateTransferRequest {
        to_user_id: 1,
        ..request()
    };
    assert_eq!(bad_fields(selfish), ["to"]);
}

#[test]
fn a_side_is_a_user_or_an_account() {
    let both = CreateTransferRequest {
        from_account_id: 7,
        ..request()
    };
    assert_eq!(bad_fields(both), ["from"]);
    let account = CreateTransferRequest {
        from_user_id: 0,
        from_account_id: 7,
        ..request()
    };
    assert_eq!(order(account).from, Party::Account(7));
}

#[test]
fn splits_sum_up_and_pay_nobody_twice() {
    let split = |to_user_id, amount| proto::transfer::v1::Split {
        to_user_id,
        amount,
        to_account_id: 0,
    };
    let split_request = |amount, splits| CreateTransferRequest {
        to_user_id: 0,
        amount,
        splits,
        ..request()
    };
    assert_eq!(
        order(split_request(0, vec![split(2, 5), split(3, 6)])).to.len(),
        2
    );
    assert_eq!(
        bad_fields(split_request(12, vec![split(2, 5), split(3, 6)])),
        ["amount"]
    );
    assert_eq!(
        bad_fields(split_request(0, vec![split(2, 5), split(2, 0)])),
        ["splits[1].to", "splits[1].amount"]
    );
    assert_eq!(bad_fields(split_request(0, vec![split(2, 1); 101])), ["splits"]);
}

#[test]
fn an_absent_currency_is_the_accounts() {
    let unnamed = CreateTransferRequest {
        currency: String::new(),
        ..request()
    };
    assert!(order(unnamed).currency.is_none());
    assert_eq!(order(request()).currency, Currency::from_code("USD"));
}

#[test]
fn only_a_pending_transfer_expires() {
    let soon = timestamp(now() + TimeDelta::hours(1));
    let pending = |pending, expires_at| CreateTransferRequest {
        pending,
        expires_at,
        ..request()
    };
    assert_eq!(bad_fields(pending(false, Some(soon))), ["expires_at"]);
    let late = timestamp(now() + TimeDelta::days(367));
    assert_eq!(bad_fields(pending(true, Some(late))), ["expires_at"]);
    assert!(order(pending(true, Some(soon))).hold.unwrap().named);
    assert!(!order(pending(true, None)).hold.unwrap().named);
}
