use chrono::TimeDelta;
use proto::transfer::v1::TransferKind;
use uuid::Uuid;

use super::*;
use crate::domain::{
    command::Note,
    journal::{Kind, Row},
};

fn usd() -> Currency {
    Currency::from_code("USD").unwrap()
}

fn noon() -> DateTime<Utc> {
    "2030-01-01T12:00:00.000001Z".parse().unwrap()
}

fn record() -> AccountRecord {
    AccountRecord {
        account: Account {
            id: 7,
            owner: Some(3),
            role: Role::Additional,
            status: AccountState::Frozen,
            currency: usd(),
            posted: 500,
            held: 200,
            incoming: 0,
            floor: -100,
            ceiling: 1_000,
            revision: 0,
            position: 4,
            last_at: noon(),
        },
        label: "holidays".to_owned(),
        created_at: noon() - TimeDelta::days(1),
    }
}

fn made(position: i64, reference: &str, description: &str) -> Entry {
    let note = Note {
        reference: Some(reference.to_owned()),
        description: Some(description.to_owned()),
        metadata: [("invoice".to_owned(), "12".to_owned())].into(),
    };
    let row = Row {
        id: Uuid::from_u128(9),
        leg: 0,
        kind: Kind::Post,
        debit: 7,
        credit: 8,
        moved: 150,
        held: -200,
        currency: usd(),
        debit_position: position,
        credit_position: 1,
        debit_posted: 350,
        debit_held: 0,
        credit_posted: 150,
        credit_held: 0,
        at: noon(),
        original: Some(Uuid::from_u128(5)),
        expires_at: None,
        note: Some(note.into()),
    };
    Entry::of(row, 7)
}

fn bad<T>(result: Result<T, Status>) -> Vec<String> {
    let status = result.err().unwrap();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    rpc::error::violations(&status)
        .into_iter()
        .map(|(field, _)| field)
        .collect()
}

#[test]
fn every_bad_field_is_named_at_once() {
    let open = CreateAccountRequest {
        currency: "dollar".into(),
        label: "x".repeat(65),
        request_id: "7".into(),
    };
    assert_eq!(bad(opening(open, 3)), ["currency", "label", "request_id"]);
    let main = CreateSystemAccountRequest {
        role: AccountRole::Main.into(),
        currency: String::new(),
    };
    assert_eq!(bad(system(&main)), ["role", "currency"]);
    let nanos = Some(prost_types::Timestamp {
        seconds: 0,
        nanos: -1,
    });
    let list = ListEntriesRequest {
        account_id: 0,
        page_size: 1_001,
        page_token: "x".into(),
        oldest_first: true,
        from_time: nanos,
        to_time: nanos,
        reference: "a\nb".into(),
    };
    assert_eq!(
        bad(entries(list)),
        [
            "account_id",
            "page_size",
            "from_time",
            "to_time",
            "reference",
            "page_token"
        ]
    );
    let watch = WatchAccountRequest {
        account_id: -1,
        after_position: -1,
    };
    assert_eq!(
        bad(watched(watch, Authority::User(3), 3)),
        ["account_id", "after_position"]
    );
    let both = ListAccountsRequest {
        user_id: 3,
        system: true,
    };
    assert_eq!(bad(whose(both, 3)), ["system"]);
}

#[test]
fn limits_are_exact_in_json_and_may_be_absent() {
    let request = |minimum, maximum| SetAccountLimitsRequest {
        account_id: 7,
        minimum,
        maximum,
    };
    let both = limits(request(Some(-MAX_MINOR - 1), Some(MAX_MINOR + 1)));
    assert_eq!(bad(both), ["minimum", "maximum"]);
    assert_eq!(
        limits(request(Some(-MAX_MINOR), None)).unwrap(),
        (
            7,
            Change::Limits {
                floor: Some(-MAX_MINOR),
                ceiling: None
            }
        )
    );
}

#[test]
fn a_time_has_its_end_behind_its_beginning() {
    let request = |from: DateTime<Utc>, to: DateTime<Utc>| GetStatementCsvRequest {
        account_id: 7,
        from_time: Some(timestamp(from)),
        to_time: Some(timestamp(to)),
    };
    let earlier = noon() - TimeDelta::microseconds(1);
    assert_eq!(bad(whole_statement(&request(noon(), earlier))), ["to_time"]);
    let (account, span) = whole_statement(&request(noon(), noon())).unwrap();
    assert_eq!((account, span.from, span.to), (7, Some(noon()), Some(noon())));
}

#[test]
fn an_account_is_told_with_its_balance() {
    let told = account(&record());
    assert_eq!((told.account_id, told.user_id), (7, 3));
    assert_eq!(
        (told.role(), told.status()),
        (AccountRole::Additional, AccountStatus::Frozen)
    );
    assert_eq!((told.minimum, told.maximum), (-100, 1_000));
    let now = told.balance.unwrap();
    assert_eq!((now.posted, now.held, now.available), (500, 200, 400));
    assert_eq!((now.position, now.at), (4, Some(timestamp(noon()))));
    let mut rich = record();
    (rich.account.posted, rich.account.floor) = (MAX_MINOR, -MAX_MINOR);
    assert_eq!(account(&rich).balance.unwrap().available, MAX_MINOR);
}

#[test]
fn an_entry_is_told_as_its_account_sees_it() {
    let told = entry(&made(4, "rent", "May"));
    assert_eq!((told.position, told.amount, told.held), (4, -150, -200));
    assert_eq!((told.posted_after, told.held_after), (350, 0));
    assert_eq!(
        (told.kind(), told.counterparty_account_id),
        (TransferKind::Post, 8)
    );
    assert_eq!(told.original_id, Uuid::from_u128(5).to_string());
    assert_eq!(
        (told.reference.as_str(), told.description.as_str()),
        ("rent", "May")
    );
    assert_eq!(told.metadata["invoice"], "12");
    let other = entry(&Entry::of(made(4, "rent", "May").row, 8));
    assert_eq!((other.position, other.amount, other.held), (1, 150, 0));
    assert_eq!(other.counterparty_account_id, 7);
}

#[test]
fn a_page_is_of_the_list_that_it_was_asked_of() {
    let first = ListEntriesRequest {
        account_id: 7,
        oldest_first: true,
        reference: "rent".into(),
        ..ListEntriesRequest::default()
    };
    let cursor = Cursor {
        position: 40,
        back: true,
    };
    let page = Page {
        entries: vec![made(41, "rent", "May")],
        next: None,
        previous: Some(cursor),
    };
    let answer = entries(first.clone()).unwrap().answer(&page);
    assert_eq!(answer.next_page_token, "");
    let second = ListEntriesRequest {
        page_token: answer.previous_page_token,
        ..first
    };
    assert_eq!(entries(second.clone()).unwrap().cursor, Some(cursor));
    let from_time = Some(timestamp(noon()));
    let others = [
        ListEntriesRequest {
            account_id: 8,
            ..second.clone()
        },
        ListEntriesRequest {
            oldest_first: false,
            ..second.clone()
        },
        ListEntriesRequest {
            reference: String::new(),
            ..second.clone()
        },
        ListEntriesRequest {
            from_time,
            ..second.clone()
        },
        ListEntriesRequest {
            to_time: from_time,
            ..second.clone()
        },
    ];
    for other in others {
        assert_eq!(bad(entries(other)), ["page_token"]);
    }
    let statement_of = GetStatementRequest {
        account_id: 7,
        page_token: second.page_token,
        ..GetStatementRequest::default()
    };
    assert_eq!(bad(statement(&statement_of)), ["page_token"]);
}

#[test]
fn a_statement_goes_on_where_it_ended() {
    let first = GetStatementRequest {
        account_id: 7,
        ..GetStatementRequest::default()
    };
    let page = Statement {
        opening: Balance::default(),
        entries: vec![made(4, "rent", "May")],
        closing: Balance::of(&record().account),
        rest: Some(Rest { after: 4, until: 9 }),
    };
    let answer = statement(&first).unwrap().answer(&record(), &page);
    assert_eq!(
        (answer.opening.unwrap().posted, answer.closing.unwrap().posted),
        (0, 500)
    );
    let second = GetStatementRequest {
        page_token: answer.next_page_token,
        ..first
    };
    assert_eq!(statement(&second).unwrap().rest, page.rest);
}

#[test]
fn a_csv_reader_gets_back_what_was_written() {
    let texts = [
        ("=1+1", "a \"quoted\" one, with a comma"),
        ("", "Grüße, 日本"),
        ("'@x", "-5\u{2028}"),
    ];
    let written: Vec<Entry> = (1..)
        .zip(texts)
        .map(|(at, (one, two))| made(at, one, two))
        .collect();
    let mut statement = super::super::csv::Statement::begin().unwrap();
    statement.add(&written[..1]).unwrap();
    statement.add(&written[1..]).unwrap();
    let body = statement.end().unwrap();
    assert_eq!(body.content_type, "text/csv; charset=utf-8");
    let text = String::from_utf8(body.data.to_vec()).unwrap();
    assert_eq!(text.matches("\r\n").count(), 4);
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    assert_eq!(
        reader.headers().unwrap(),
        vec![
            "position",
            "created_at",
            "transfer_id",
            "kind",
            "counterparty_account",
            "currency",
            "amount",
            "held",
            "posted_after",
            "held_after",
            "reference",
            "description"
        ]
    );
    let rows: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let id = Uuid::from_u128(9).to_string();
    for ((row, (reference, description)), position) in rows.iter().zip(texts).zip(1..) {
        assert_eq!(
            row,
            vec![
                &*position.to_string(),
                "2030-01-01T12:00:00.000001Z",
                &id,
                "post",
                "8",
                "USD",
                "-150",
                "-200",
                "350",
                "0",
                reference,
                description
            ]
        );
    }
    assert_eq!(rows.len(), 3);
}
