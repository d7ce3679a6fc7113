//! ImportLedger names the first part that is wrong, and has done nothing.

use proto::transfer::v1::{
    Account, AccountChange, ExportedOccurrence, ExportedSchedule, ImportLedgerResponse, JournalRow,
    ledger_part::Part,
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    an_exported_ledger_is_imported_whole::{content, export, import, table_of, with_everything},
    histories::{seed, written},
    world::World,
};

/// What is done to an export.
type Change = Box<dyn Fn(&mut Vec<Part>) + Send + Sync>;

/// What is done, and the number from 0 of the part that must be named; none when it is named by its lane or account.
struct Case {
    what: &'static str,
    change: Change,
    named: Option<usize>,
}

fn case(
    what: &'static str,
    named: Option<usize>,
    change: impl Fn(&mut Vec<Part>) + Send + Sync + 'static,
) -> Case {
    Case {
        what,
        change: Box::new(change),
        named,
    }
}

fn account(what: &'static str, at: usize, named: bool, change: fn(&mut Account)) -> Case {
    case(what, named.then_some(at), move |parts| {
        let Part::Account(part) = &mut parts[at] else {
            panic!()
        };
        change(part.account.as_mut().unwrap());
    })
}

fn change(what: &'static str, at: usize, change: fn(&mut AccountChange)) -> Case {
    case(what, Some(at), move |parts| {
        let Part::Change(part) = &mut parts[at] else {
            panic!()
        };
        change(part);
    })
}

fn row(what: &'static str, at: usize, named: bool, change: fn(&mut JournalRow)) -> Case {
    case(what, named.then_some(at), move |parts| {
        let Part::Row(part) = &mut parts[at] else { panic!() };
        change(part);
    })
}

fn schedule(what: &'static str, at: usize, change: fn(&mut ExportedSchedule)) -> Case {
    case(what, Some(at), move |parts| {
        let Part::Schedule(part) = &mut parts[at] else {
            panic!()
        };
        change(part);
    })
}

fn occurrence(what: &'static str, at: usize, change: fn(&mut ExportedOccurrence)) -> Case {
    case(what, Some(at), move |parts| {
        let Part::Occurrence(part) = &mut parts[at] else {
            panic!()
        };
        change(part);
    })
}

fn cases(exported: &[Part]) -> Vec<Case> {
    let nth = |table: &str, number: usize| {
        let of_table = exported
            .iter()
            .enumerate()
            .filter(|(_, part)| table_of(part) == table);
        of_table.map(|(at, _)| at).nth(number).unwrap()
    };
    let (third, moved, step) = (nth("accounts", 3), nth("journal", 20), nth("account_changes", 2));
    let (planned, run, last) = (nth("schedules", 1), nth("schedule_runs", 2), exported.len() - 1);
    vec![
        case("no header", Some(0), |parts| drop(parts.remove(0))),
        case("no trailer", Some(last), |parts| drop(parts.pop())),
        case("an account less", Some(last - 1), move |parts| {
            drop(parts.remove(third));
        }),
        case("a row less", None, move |parts| drop(parts.remove(moved))),
        case("a row twice", Some(moved + 1), move |parts| {
            parts.insert(moved, parts[moved].clone());
        }),
        case("rows swapped", None, move |parts| parts.swap(moved, moved + 1)),
        case("a row behind the end", Some(last + 1), move |parts| {
            parts.push(parts[moved].clone());
        }),
        case("a row too early", Some(third), move |parts| {
            parts.swap(third, moved);
        }),
        account("a number twice", third, true, |account| account.account_id -= 1),
        account("a role that is none", third, true, |account| account.role = 77),
        account("limits that cross", third, true, |account| account.maximum = -1),
        account("another balance", third, false, |account| {
            account.balance.as_mut().unwrap().posted += 1;
        }),
        change("a change of nothing", step, |change| change.account_id = 4_711),
        change("a change that is none", step, |change| {
            "melt".clone_into(&mut change.change);
        }),
        row("a lane that is none", moved, true, |row| row.lane = 65),
        row("another balance", moved, false, |row| row.debit_posted += 1),
        row("a wrong sign", moved, true, |row| (row.moved, row.held) = (-5, 0)),
        row("no time", moved, true, |row| row.created_at = None),
        row("a long description", moved, true, |row| {
            row.description = "x".repeat(300);
        }),
        schedule("no transfer", planned, |part| {
            part.schedule.as_mut().unwrap().transfer = None;
        }),
        schedule("no occurrence left", planned, |part| {
            part.schedule.as_mut().unwrap().occurred = 101;
        }),
        occurrence("of nothing", run, |part| {
            part.schedule_id = Uuid::now_v7().to_string();
        }),
        occurrence("refused for no reason", run, |part| {
            "mood".clone_into(&mut part.refused);
        }),
    ]
}

async fn is_empty(world: &World) -> bool {
    world
        .sql(
            "SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM journal) + (SELECT count(*) FROM batches)
                  + (SELECT count(*) FROM holds) + (SELECT count(*) FROM schedules) + (SELECT count(*) FROM published)
                  + (SELECT count(*) FROM account_changes)",
        )
        .await
        == 0
}

fn refusal(result: Result<ImportLedgerResponse, Status>) -> (Code, String, String) {
    let status = result.unwrap_err();
    let reason = rpc::error::reason(&status).unwrap();
    (status.code(), reason, status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_wrong() {
    let (old, replicas) = written(2, seed(), 60).await;
    with_everything(&old, &replicas[0]).await;
    let exported = export(&old, &replicas[0]).await;
    let new = World::new().await;
    let replica = new.replica();
    for case in cases(&exported) {
        let mut parts = exported.clone();
        (case.change)(&mut parts);
        let (code, reason, message) = refusal(import(&new, &replica, &parts).await);
        let what = case.what;
        assert_eq!(
            (code, reason.as_str()),
            (Code::InvalidArgument, "BAD_EXPORT"),
            "{what}"
        );
        let named = case.named.map(|at| format!("part {}:", at + 1));
        assert!(
            named.is_none_or(|part| message.contains(&part)),
            "{what}: {message}"
        );
        assert!(is_empty(&new).await, "{what}");
    }
    // after all that there is room for the real one
    import(&new, &replica, &exported).await.unwrap();
    assert_eq!(content(&exported), content(&export(&new, &replica).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_into_a_ledger_that_is_used() {
    let (old, replicas) = written(1, seed(), 20).await;
    let exported = export(&old, &replicas[0]).await;
    let (code, reason, _) = refusal(import(&old, &replicas[0], &exported).await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "LEDGER_NOT_EMPTY")
    );
    assert_eq!(content(&exported), content(&export(&old, &replicas[0]).await));
}
