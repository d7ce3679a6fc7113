use http::{Method as Verb, StatusCode};
use proptest::prelude::*;
use prost::Message as _;
use proto::{account::v1 as account, chat::v1 as chat, transfer::v1 as transfer};

use super::*;
use crate::rest::routes::{Found, Routes};

const ID: &str = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

fn sent(verb: &Verb, uri: &str, body: &str) -> Result<Bytes, Problem> {
    let routes = Routes::from_contracts().unwrap();
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let Found::Route(route, params) = routes.find(verb, path) else {
        panic!("{uri} is no route")
    };
    let variables: Vec<&str> = params.iter().map(|(_, value)| value).collect();
    let headers = HeaderMap::new();
    let sent = Sent {
        variables: &variables,
        query,
        headers: &headers,
        body: body.as_bytes(),
        caller: "user:1",
    };
    let framed = request(route, &sent)?;
    assert_eq!(framed[0], 0);
    assert_eq!(
        framed.len() - FRAME_HEADER_BYTES,
        u32::from_be_bytes(framed[1..5].try_into().unwrap()) as usize
    );
    Ok(framed.slice(FRAME_HEADER_BYTES..))
}

fn refused(verb: &Verb, uri: &str, body: &str) -> String {
    let problem = sent(verb, uri, body).unwrap_err();
    assert_eq!(problem.status, StatusCode::BAD_REQUEST);
    problem.sentence.into_owned()
}

fn answered(verb: &Verb, path: &str, message: &impl prost::Message) -> String {
    let routes = Routes::from_contracts().unwrap();
    let Found::Route(route, _) = routes.find(verb, path) else {
        panic!("a route")
    };
    let Answer { content_type, body } = answer(route, message.encode_to_vec().into()).unwrap();
    assert_eq!(content_type, "application/json");
    String::from_utf8(body.into()).unwrap()
}

#[test]
fn the_seeds_transfer_becomes_the_contracts_message() {
    let body = format!(r#"{{"from":1,"to":2,"amount":100,"transfer_id":"{ID}"}}"#);
    let message = transfer::CreateTransferRequest::decode(sent(&Verb::POST, "/api/transfer", &body).unwrap());
    let message = message.unwrap();
    assert_eq!(
        (message.from_user_id, message.to_user_id, message.amount),
        (1, 2, 100)
    );
    assert_eq!(
        (message.currency.as_str(), message.transfer_id.as_str()),
        ("", ID)
    );
}

#[test]
fn path_and_query_fill_the_fields() {
    let message = sent(
        &Verb::GET,
        "/api/messages/1/2?page_size=50&page_token=a%2Bb+c",
        "",
    )
    .unwrap();
    let message = chat::ListDirectMessagesRequest::decode(message).unwrap();
    assert_eq!((message.user_id, message.other_id, message.page_size), (1, 2, 50));
    assert_eq!(message.page_token, "a+b c");
    let message = sent(&Verb::GET, &format!("/api/transfers/{}", "%41%2f%c3%a9"), "").unwrap();
    assert_eq!(
        transfer::GetTransferRequest::decode(message).unwrap().transfer_id,
        "A/é"
    );
}

#[test]
fn a_body_may_repeat_the_path_but_not_contradict_it() {
    let with = |receiver: i64| format!(r#"{{"receiver_id":{receiver},"sender_id":1,"content":"hi"}}"#);
    let message = sent(&Verb::POST, "/api/messages/2", &with(2)).unwrap();
    let message = chat::SendDirectMessageRequest::decode(message).unwrap();
    assert_eq!(
        (message.receiver_id, message.sender_id, message.content.as_str()),
        (2, 1, "hi")
    );
    assert!(!message.message_id.is_empty());
    assert_eq!(
        refused(&Verb::POST, "/api/messages/2", &with(3)),
        "receiver_id differs between the path and the body"
    );
}

#[test]
fn a_limit_of_zero_is_not_an_absent_one() {
    let limits = sent(&Verb::POST, "/api/accounts/7/limits", r#"{"minimum":0}"#).unwrap();
    let limits = transfer::SetAccountLimitsRequest::decode(limits).unwrap();
    assert_eq!(
        (limits.account_id, limits.minimum, limits.maximum),
        (7, Some(0), None)
    );
}

#[test]
fn null_and_an_empty_body_mean_absent() {
    let message = sent(
        &Verb::POST,
        "/api/users",
        r#"{"name":"A","email":"a@b.c","password":null}"#,
    )
    .unwrap();
    assert_eq!(
        account::CreateUserRequest::decode(message).unwrap().password,
        None
    );
    assert!(sent(&Verb::POST, "/api/logout", "").unwrap().is_empty());
    assert!(sent(&Verb::POST, "/api/logout", "{}").unwrap().is_empty());
}

#[test]
fn bad_bodies_get_a_sentence_that_names_the_field() {
    for (body, sentence) in [
        (
            r#"{"amount":"100"}"#,
            "amount must be a whole number, not a string",
        ),
        (
            r#"{"amount":1.5}"#,
            "amount must be a whole number, without a fraction or an exponent",
        ),
        (
            r#"{"amount":1e2}"#,
            "amount must be a whole number, without a fraction or an exponent",
        ),
        (r#"{"amount":9223372036854775808}"#, "amount is out of range"),
        (r#"{"amount":-9223372036854775809}"#, "amount is out of range"),
        (r#"{"amount":1e300}"#, "amount is out of range"),
        (
            r#"{"amount":true}"#,
            "amount must be a whole number, not a boolean",
        ),
        (r#"{"amount":1,"amount":2}"#, "amount is given twice"),
        (r#"{"amount":null,"amount":2}"#, "amount is given twice"),
        (r#"{"currency":5}"#, "currency must be a string, not a number"),
        (r#"{"fromUserId":1}"#, "fromUserId is not a field of this request"),
        (
            r#"{"from_user_id":1}"#,
            "from_user_id is not a field of this request",
        ),
        (
            r#"{"from":[1],"to":{}}"#,
            "from must be a whole number, not a list; to must be a whole number, not an object",
        ),
        ("[]", "The body must be a JSON object, not a list"),
        ("null", "The body must be a JSON object, not null"),
        ("{", "The body ends in the middle of its JSON"),
        ("{'a':1}", "The body is not valid JSON (line 1, column 2)"),
    ] {
        assert_eq!(refused(&Verb::POST, "/api/transfer", body), sentence, "{body}");
    }
    let rooms = |body: &str| refused(&Verb::POST, "/api/rooms", body);
    assert_eq!(
        rooms(r#"{"member_ids":5}"#),
        "member_ids must be a list, not a number"
    );
    assert_eq!(
        rooms(r#"{"member_ids":[1,null]}"#),
        "member_ids[1] must be a whole number, not null"
    );
}

#[test]
fn bad_paths_and_queries_get_a_sentence_too() {
    for id in ["x", "+1", "01", "-0", "1.0", "1e3", "0x1", "%20", "1%00", ""] {
        if !id.is_empty() {
            assert_eq!(
                refused(&Verb::GET, &format!("/api/users/{id}"), ""),
                "id must be a whole number",
                "{id}"
            );
        }
    }
    assert_eq!(
        refused(&Verb::GET, "/api/users/9223372036854775808", ""),
        "id is out of range"
    );
    assert_eq!(
        refused(&Verb::GET, "/api/users/%ff", ""),
        "id must be UTF-8, percent-encoded"
    );
    let list = |query: &str| refused(&Verb::GET, &format!("/api/messages/1/2?{query}"), "");
    assert_eq!(list("page_size=2147483648"), "page_size is out of range");
    assert_eq!(list("page_size=1&page_size=2"), "page_size is given twice");
    assert_eq!(list("user_id=3"), "user_id is given twice");
    assert_eq!(list("limit=3"), "limit is not a parameter of this request");
    assert_eq!(
        list("page_token=%zz"),
        "page_token must be UTF-8, percent-encoded"
    );
    assert_eq!(
        refused(&Verb::POST, "/api/logout?x=1", ""),
        "x is not a parameter of this request"
    );
}

#[test]
fn an_error_lists_at_most_twenty_fields() {
    let members: Vec<String> = (0..100).map(|number| format!("\"f{number}\":1")).collect();
    let problem = sent(
        &Verb::POST,
        "/api/transfer",
        &format!("{{{}}}", members.join(",")),
    )
    .unwrap_err();
    assert_eq!(problem.violations.len(), 20);
}

#[test]
fn answers_have_numbers_defaults_and_no_absent_fields() {
    let user = account::User {
        id: 7,
        name: String::new(),
        balance: Some(0),
        ..Default::default()
    };
    let answer = account::GetUserResponse { user: Some(user) };
    assert_eq!(
        answered(&Verb::GET, "/api/users/7", &answer),
        r#"{"id":7,"name":"","balance":0}"#
    );
    let sent = transfer::CreateTransferResponse {
        status: "success".into(),
        transfer_id: ID.into(),
        created_at: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 5_000_000,
        }),
    };
    assert_eq!(
        answered(&Verb::POST, "/api/transfer", &sent),
        format!(r#"{{"status":"success","transfer_id":"{ID}","created_at":"2023-11-14T22:13:20.005Z"}}"#)
    );
    let empty = chat::ListDirectMessagesResponse::default();
    assert_eq!(
        answered(&Verb::GET, "/api/messages/1/2", &empty),
        r#"{"messages":[]}"#
    );
}

#[test]
fn contracts_names_are_used_both_ways() {
    let transfer = transfer::Transfer {
        from_user_id: 1,
        to_user_id: 2,
        amount: i64::MAX,
        ..Default::default()
    };
    let json = answered(
        &Verb::GET,
        "/api/transfers/x",
        &transfer::GetTransferResponse {
            transfer: Some(transfer),
        },
    );
    assert!(
        json.contains(r#""from":1,"to":2,"amount":9223372036854775807"#),
        "{json}"
    );
    let session = proto::auth::v1::GetSessionResponse { user_id: 1, role: 2 };
    assert_eq!(
        answered(&Verb::GET, "/api/session", &session),
        r#"{"user_id":1,"role":"ROLE_OPERATOR"}"#
    );
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let name = prop_oneof![
        Just("from".to_owned()),
        Just("to".to_owned()),
        Just("amount".to_owned()),
        Just("member_ids".to_owned()),
        Just("name".to_owned()),
        Just("request_id".to_owned()),
        any::<String>(),
    ];
    leaf.prop_recursive(4, 32, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::hash_map(name.clone(), inner, 0..8)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

fn judged(outcome: &Result<Bytes, Problem>) -> bool {
    outcome
        .as_ref()
        .err()
        .is_none_or(|problem| problem.status == StatusCode::BAD_REQUEST)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_json_panics(body in json()) {
        let body = body.to_string();
        for path in ["/api/transfer", "/api/rooms", "/api/users", "/api/messages/1"] {
            prop_assert!(judged(&sent(&Verb::POST, path, &body)));
        }
    }

    #[test]
    fn no_bytes_panic(body in any::<String>(), query in any::<String>(), id in "[^/?]{1,20}") {
        prop_assert!(judged(&sent(&Verb::POST, "/api/rooms", &body)));
        let uri = format!("/api/users/{id}?{query}");
        prop_assert!(judged(&sent(&Verb::GET, &uri, "")));
    }

    #[test]
    fn whole_numbers_arrive_as_they_were_sent(from in any::<i64>(), amount in any::<i64>(), currency in any::<String>()) {
        let body = serde_json::json!({"from": from, "amount": amount, "currency": currency}).to_string();
        let message = transfer::CreateTransferRequest::decode(sent(&Verb::POST, "/api/transfer", &body).unwrap()).unwrap();
        prop_assert_eq!((message.from_user_id, message.amount, message.currency), (from, amount, currency));
        let uri = format!("/api/users/{from}");
        let message = sent(&Verb::GET, &uri, "").unwrap();
        prop_assert_eq!(account::GetUserRequest::decode(message).unwrap().id, from);
    }
}

#[test]
fn maps_moments_enums_and_nested_messages_are_read() {
    let body = r#"{"transfer":{"from":1,"amount":5,"splits":[{"to":2,"amount":2},{"to_account":3,"amount":3}],
        "metadata":{"order":"7","":"x"}},"first_at":"2026-01-02T03:04:05.5Z","recurrence":{"unit":"RECURRENCE_UNIT_MONTH"}}"#;
    let message = sent(&Verb::POST, "/api/schedules", body).unwrap();
    let schedule = transfer::CreateScheduleRequest::decode(message).unwrap();
    let asked = schedule.transfer.unwrap();
    assert_eq!((asked.splits.len(), asked.splits[1].to_account_id), (2, 3));
    assert_eq!(
        (asked.metadata["order"].as_str(), asked.metadata[""].as_str()),
        ("7", "x")
    );
    let moment = schedule.first_at.unwrap();
    assert_eq!((moment.seconds, moment.nanos), (1_767_323_045, 500_000_000));
    assert_eq!(
        schedule.recurrence.unwrap().unit(),
        transfer::RecurrenceUnit::Month
    );
    let of_transfer = |metadata: &str| {
        refused(
            &Verb::POST,
            "/api/transfer",
            &format!(r#"{{"metadata":{metadata}}}"#),
        )
    };
    assert_eq!(of_transfer("[]"), "metadata must be an object");
    assert_eq!(
        of_transfer(r#"{"a":1}"#),
        "metadata.a must be a string, not a number"
    );
    assert_eq!(of_transfer(r#"{"a":"1","a":"2"}"#), "metadata.a is given twice");
}

#[test]
fn one_path_with_several_verbs_and_names_finds_its_method() {
    let message = sent(
        &Verb::POST,
        &format!("/api/transfers/{ID}/post"),
        r#"{"amount":5}"#,
    )
    .unwrap();
    let post = transfer::PostTransferRequest::decode(message).unwrap();
    assert_eq!((post.pending_id.as_str(), post.amount), (ID, 5));
    assert!(!post.transfer_id.is_empty());
    let uri = "/api/accounts/7/entries?from_time=2026-01-02T03:04:05Z&to_time=2026-01-03T03%3A04%3A05.25%2B01:00\
               &oldest_first=true&reference=a+b";
    let message = sent(&Verb::GET, uri, "").unwrap();
    let list = transfer::ListEntriesRequest::decode(message).unwrap();
    assert_eq!(
        (list.account_id, list.oldest_first, list.reference.as_str()),
        (7, true, "a b")
    );
    assert_eq!(list.from_time.unwrap().seconds, 1_767_323_045);
    assert_eq!(list.to_time.unwrap().nanos, 250_000_000);
    assert_eq!(
        refused(&Verb::GET, "/api/accounts/7/entries?from_time=yesterday&at=x", ""),
        "from_time has not the form of its type; at is not a parameter of this request"
    );
}

#[test]
fn a_body_that_is_not_json_is_taken_from_the_message() {
    let routes = Routes::from_contracts().unwrap();
    let Found::Route(route, _) = routes.find(&Verb::GET, "/api/accounts/7/statement.csv") else {
        panic!("a route")
    };
    for (given, expected) in [
        ("text/csv", "text/csv"),
        ("", "application/octet-stream"),
        ("a\nb", "application/octet-stream"),
    ] {
        let message = HttpBody {
            content_type: given.into(),
            data: Bytes::from_static(b"a,b\r\n\xff"),
        };
        let Answer { content_type, body } = answer(route, message.encode_to_vec().into()).unwrap();
        assert_eq!(
            (content_type.to_str().unwrap(), &body[..]),
            (expected, &b"a,b\r\n\xff"[..])
        );
    }
}
