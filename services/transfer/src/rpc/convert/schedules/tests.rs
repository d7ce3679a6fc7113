use chrono::{DateTime, Utc};

use super::*;

fn request() -> CreateScheduleRequest {
    CreateScheduleRequest {
        transfer: Some(CreateTransferRequest {
            from_user_id: 1,
            to_user_id: 2,
            amount: 100,
            reference: "rent".into(),
            ..CreateTransferRequest::default()
        }),
        first_at: Some(timestamp(moment("2030-01-31T08:00:00Z"))),
        recurrence: Some(ProtoRecurrence {
            unit: RecurrenceUnit::Month.into(),
            every: 1,
            count: 12,
            until: None,
        }),
        schedule_id: Uuid::from_u128(7).to_string(),
        dry_run: false,
    }
}

fn moment(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn bad_fields(request: CreateScheduleRequest) -> Vec<String> {
    let status = plan(request, 1, Authority::User(1)).unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    rpc::error::violations(&status)
        .into_iter()
        .map(|(field, _)| field)
        .collect()
}

#[test]
fn a_plan_is_written_as_it_was_read() {
    let split = |to_user_id, to_account_id| Split {
        to_user_id,
        to_account_id,
        amount: 50,
    };
    let mut to_several = request();
    let transfer = to_several.transfer.as_mut().unwrap();
    (transfer.to_user_id, transfer.pending) = (0, true);
    transfer.splits = vec![split(2, 0), split(0, 9)];
    for request in [request(), to_several] {
        let plan = plan(request.clone(), 1, Authority::User(1)).unwrap();
        let written = schedule(Schedule::new(plan, moment("2029-01-01T00:00:00Z")), &[]);
        assert_eq!(written.transfer, request.transfer);
        assert_eq!(written.recurrence, request.recurrence);
        assert_eq!(
            (written.first_at, written.next_at),
            (request.first_at, request.first_at)
        );
        assert_eq!(written.state(), ScheduleState::Active);
    }
}

#[test]
fn every_bad_field_is_named_at_once() {
    let bad = CreateScheduleRequest {
        transfer: Some(CreateTransferRequest {
            transfer_id: Uuid::from_u128(1).to_string(),
            expires_at: Some(timestamp(moment("2030-01-01T00:00:00Z"))),
            pending: true,
            dry_run: true,
            amount: -1,
            from_user_id: 1,
            to_user_id: 1,
            ..CreateTransferRequest::default()
        }),
        first_at: None,
        recurrence: Some(ProtoRecurrence {
            unit: RecurrenceUnit::Second.into(),
            every: 59,
            count: -1,
            until: None,
        }),
        schedule_id: "x".into(),
        dry_run: false,
    };
    assert_eq!(
        bad_fields(bad),
        [
            "schedule_id",
            "first_at",
            "recurrence.every",
            "recurrence.count",
            "transfer.transfer_id",
            "transfer.dry_run",
            "transfer.expires_at",
            "transfer.amount"
        ]
    );
    let without = CreateScheduleRequest {
        transfer: None,
        ..request()
    };
    assert_eq!(bad_fields(without), ["transfer"]);
}

#[test]
fn a_recurrence_has_a_step_and_ends_behind_its_beginning() {
    let with = |recurrence| CreateScheduleRequest {
        recurrence: Some(recurrence),
        ..request()
    };
    let unnamed = ProtoRecurrence {
        every: 1,
        ..ProtoRecurrence::default()
    };
    assert_eq!(bad_fields(with(unnamed)), ["recurrence.unit"]);
    let daily = ProtoRecurrence {
        unit: RecurrenceUnit::Day.into(),
        every: 0,
        count: 1_000_001,
        until: Some(timestamp(moment("2029-12-31T00:00:00Z"))),
    };
    assert_eq!(bad_fields(with(daily)), ["recurrence.every", "recurrence.count"]);
    let over = ProtoRecurrence {
        every: 1,
        count: 0,
        ..daily
    };
    assert_eq!(bad_fields(with(over)), ["recurrence.until"]);
}

#[test]
fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
    let below = |page_token: &str| {
        let request = ListSchedulesRequest {
            page_token: page_token.to_owned(),
            ..ListSchedulesRequest::default()
        };
        page(&request).map(|(below, _)| below).ok()
    };
    assert_eq!(below(&token(0x1234)), Some(Some(0x1234)));
    assert_eq!(below(""), Some(None));
    for other in [token(0), token(-5), "1234".to_owned(), "s1-1234".to_owned()] {
        assert_eq!(below(&other), None, "{other}");
    }
}
