//! Requests of any bytes: for the fuzzer in `fuzz/`, and for a test that runs with all others.
//!
//! Whatever comes in, its conversion does not panic, an error says what is wrong, and what passes can be carried out.

mod told;

use proto::transfer::v1::{
    CreateScheduleRequest, CreateTransferRequest, CreateTransfersRequest, DepositRequest, GetTransferRequest,
    GetUserBalanceRequest, ListSchedulesRequest, OpenAccountRequest, PostTransferRequest,
    ReverseTransferRequest, TransferAction, VoidTransferRequest, WithdrawRequest,
};
use tonic::{Code, Status};

use self::told::Teller;
use super::{batch, convert};
use crate::{
    app::{
        order::{Action, Order},
        schedules::Schedule,
    },
    domain::command::{Authority, Command, Note},
};

const BY: Authority = Authority::User(1);
/// What an answer may take of the 16 KiB that HTTP/2 peers accept as headers: the text and, in Base64, the details.
const MAX_ERROR_BYTES: usize = 12 * 1024;

/// Converts the request that bytes tell: those behind the first as they come over the wire, or a message that is put
/// together from them.
///
/// # Panics
/// A promise is broken.
pub fn request(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    let mut teller = Teller::new(rest, choice & 0x80 != 0);
    match choice % 13 {
        0 => check(
            teller.message(Teller::transfer),
            |request: CreateTransferRequest| convert::transfer(request, BY).map(check_action),
        ),
        1 => check(teller.message(Teller::deposit), |request: DepositRequest| {
            convert::deposit(request).map(check_action)
        }),
        2 => check(teller.message(Teller::withdrawal), |request: WithdrawRequest| {
            convert::withdrawal(request).map(check_action)
        }),
        3 => check(teller.message(Teller::post), |request: PostTransferRequest| {
            convert::post(&request, BY).map(check_action)
        }),
        4 => check(teller.message(Teller::void), |request: VoidTransferRequest| {
            convert::void(&request, BY).map(check_action)
        }),
        5 => check(
            teller.message(Teller::reversal),
            |request: ReverseTransferRequest| convert::reversal(request, BY).map(check_action),
        ),
        6 => check(teller.message(Teller::schedule), check_schedule),
        7 => check(teller.message(Teller::page), |request: ListSchedulesRequest| {
            convert::schedules::page(&request).map(|(below, limit)| {
                assert!((1..=1_000).contains(&limit));
                if let Some(below) = below {
                    assert!(convert::schedules::token(below).len() < 32);
                }
            })
        }),
        8 => check(teller.message(Teller::opening), |request: OpenAccountRequest| {
            convert::opening(&request).map(|(user, _)| assert!(user > 0))
        }),
        9 => check(
            teller.message(Teller::transfer_id),
            |request: GetTransferRequest| {
                convert::views::transfer_id(&request).map(|id| assert!(!id.is_nil()))
            },
        ),
        10 => check(
            teller.message(Teller::user_id),
            |request: GetUserBalanceRequest| convert::views::user_id(request).map(|user| assert!(user > 0)),
        ),
        _ => check(
            teller.message(Teller::batch),
            |request: CreateTransfersRequest| {
                check_batch(request.actions);
                Ok(())
            },
        ),
    }
}

/// Runs a conversion of a message, if there is one.
fn check<T>(message: Option<T>, convert: impl Fn(T) -> Result<(), Status>) {
    if let Some(message) = message
        && let Err(status) = convert(message)
    {
        check_error(&status);
    }
}

fn check_error(status: &Status) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(rpc::error::reason(status).as_deref(), Some("INVALID_ARGUMENT"));
    let violations = rpc::error::violations(status);
    assert!(!violations.is_empty(), "{status:?}");
    assert!(
        violations
            .iter()
            .all(|(field, problem)| !field.is_empty() && !problem.is_empty())
    );
    let bytes = status.message().len() + status.details().len() * 4 / 3;
    assert!(bytes <= MAX_ERROR_BYTES, "{bytes} bytes of error: {status:?}");
}

fn check_action(action: Action) {
    match action {
        Action::Transfer(order) => check_order(&order),
        Action::Direct(command) => {
            assert!(!command.id().is_nil());
            assert!(command.original().is_some_and(|id| !id.is_nil()));
            if let Command::Reverse { note: Some(note), .. } = command {
                check_note(&note);
            }
        }
    }
}

fn check_order(order: &Order) {
    assert!(!order.id.is_nil());
    assert!((1..=100).contains(&order.to.len()), "{order:?}");
    for (at, (party, _)) in order.to.iter().enumerate() {
        assert_ne!(*party, order.from, "{order:?}");
        assert!(
            order.to.iter().take(at).all(|(earlier, _)| earlier != party),
            "{order:?}"
        );
    }
    if let Some(note) = &order.note {
        check_note(note);
    }
    if let Some(hold) = order.hold {
        let days = (hold.until - convert::now()).num_days();
        assert!(days <= 366, "{order:?}");
        assert_eq!(hold.until.timestamp_subsec_nanos() % 1_000, 0, "{order:?}");
    }
}

/// What PostgreSQL and the people who read it can take.
fn check_note(note: &Note) {
    let short = |text: &str, longest| {
        let is_short = text.chars().count() <= longest && !text.chars().any(char::is_control);
        assert!(is_short, "{text:?}");
    };
    short(note.reference.as_deref().unwrap_or_default(), 64);
    short(note.description.as_deref().unwrap_or_default(), 256);
    assert!(note.metadata.len() <= 16);
    for (key, value) in &note.metadata {
        assert!(!key.is_empty());
        short(key, 40);
        short(value, 256);
    }
}

/// A schedule is read as it was planned.
fn check_schedule(request: CreateScheduleRequest) -> Result<(), Status> {
    let plan = convert::schedules::plan(request, 1, BY)?;
    check_order(&plan.order(plan.id, convert::now()));
    let shown = convert::schedules::schedule(Schedule::new(plan.clone(), convert::now()), &[]);
    let again = CreateScheduleRequest {
        schedule_id: shown.schedule_id,
        transfer: shown.transfer,
        first_at: shown.first_at,
        recurrence: shown.recurrence,
        dry_run: false,
    };
    let again = convert::schedules::plan(again, 1, BY)?;
    assert_eq!(plan.differs(&again), None, "{plan:?} {again:?}");
    Ok(())
}

/// Each action has its place; what runs is whole chains.
fn check_batch(actions: Vec<TransferAction>) {
    let linked: Vec<bool> = actions.iter().map(|action| action.linked).collect();
    let prepared = batch::prepare(actions, BY);
    assert_eq!(prepared.places.len(), linked.len());
    let good = prepared.places.iter().filter(|place| place.bad.is_none());
    assert_eq!(prepared.items.len(), good.count());
    assert!(prepared.items.last().is_none_or(|item| !item.linked));
    for (place, next) in prepared
        .places
        .iter()
        .zip(prepared.places.iter().skip(1))
        .zip(&linked)
        .filter_map(|(pair, linked)| linked.then_some(pair))
    {
        assert_eq!(place.bad.is_some(), next.bad.is_some(), "half of a chain runs");
    }
    for status in prepared.places.iter().filter_map(|place| place.bad.as_ref()) {
        if rpc::error::reason(status).as_deref() != Some("LINKED_FAILED") {
            check_error(status);
        }
    }
    for item in prepared.items {
        check_action(item.action);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        prelude::any,
        test_runner::{Config, RngSeed, TestRunner},
    };

    use super::request;

    /// The same inputs each time: to search for others is the fuzzer's work.
    #[test]
    fn no_bytes_break_a_promise() {
        let mut runner = TestRunner::new(Config {
            cases: 20_000,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..Config::default()
        });
        let result = runner.run(&vec(any::<u8>(), 0..400), |bytes| {
            request(&bytes);
            Ok(())
        });
        assert!(result.is_ok(), "{result:?}");
    }
}
