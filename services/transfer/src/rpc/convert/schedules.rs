//! Schedules: requests to plans, and back.

use proto::transfer::v1::{
    CreateScheduleRequest, CreateTransferRequest, ListSchedulesRequest, Occurrence,
    Recurrence as ProtoRecurrence, RecurrenceUnit, Schedule as ProtoSchedule, ScheduleState, Split,
};
use rpc::fields::Problems;
use tonic::Status;
use uuid::Uuid;

use super::{fields, status, timestamp, tokens::List};
use crate::{
    app::{
        error::Error,
        order::{Action, Party},
        schedules::{Plan, Run, Schedule, Template},
    },
    domain::{
        command::Authority,
        money::Currency,
        schedule::{MAX_COUNT, MAX_EVERY, MIN_SECONDS, Recurrence, State, Timing, Unit},
    },
};

pub fn plan(request: CreateScheduleRequest, owner: i64, by: Authority) -> Result<Plan, Status> {
    let mut problems = Problems::default();
    let id = problems.uuid("schedule_id", &request.schedule_id);
    let first = fields::moment(&mut problems, "first_at", request.first_at);
    if request.first_at.is_none() {
        problems.add("first_at", "must be given");
    }
    let recurrence = recurrence(&mut problems, request.recurrence);
    if let (Some(first), Some(until)) = (first, recurrence.and_then(|recurrence| recurrence.until))
        && until < first
    {
        problems.add("recurrence.until", "must not be before first_at");
    }
    let transfer = match request.transfer {
        Some(transfer) => template(&mut problems, transfer, by),
        None => Err(rpc::error::invalid([("transfer", "must be given")])),
    };
    // what is wrong with the transfer is told beside the rest
    let transfer = match (problems.finish(), transfer) {
        (Ok(()), transfer) => transfer?,
        (Err(status), Ok(_)) => return Err(status),
        (Err(status), Err(inner)) => {
            let mut all = rpc::error::violations(&status);
            all.extend(rpc::error::violations(&inner));
            return Err(rpc::error::invalid(
                all.iter().map(|(field, problem)| (field.as_str(), problem)),
            ));
        }
    };
    let first = first.ok_or_else(|| rpc::error::internal("a moment was refused without a problem"))?;
    Ok(Plan {
        id,
        owner,
        by,
        transfer,
        timing: Timing { first, recurrence },
    })
}

/// The planned transfer; its problems are named as fields of the schedule.
fn template(
    problems: &mut Problems,
    mut transfer: CreateTransferRequest,
    by: Authority,
) -> Result<Template, Status> {
    if !transfer.transfer_id.is_empty() {
        problems.add(
            "transfer.transfer_id",
            "must be empty: each occurrence has an id of its own",
        );
    }
    if transfer.dry_run {
        problems.add("transfer.dry_run", "must be false");
    }
    if transfer.expires_at.take().is_some() {
        problems.add(
            "transfer.expires_at",
            "must be absent: an occurrence is pending for 7 days",
        );
    }
    let pending = transfer.pending;
    // any id: each occurrence gets its own
    transfer.transfer_id = Uuid::max().to_string();
    let order = match super::transfer(transfer, by) {
        Ok(Action::Transfer(order)) => order,
        Ok(Action::Direct(_)) => return Err(rpc::error::internal("a transfer became another action")),
        Err(status) => {
            let inner = rpc::error::violations(&status);
            let named = inner
                .into_iter()
                .map(|(field, problem)| (format!("transfer.{field}"), problem))
                .collect::<Vec<_>>();
            return Err(rpc::error::invalid(
                named.iter().map(|(field, problem)| (field.as_str(), problem)),
            ));
        }
    };
    Ok(Template {
        from: order.from,
        to: order.to,
        currency: order.currency,
        pending,
        note: order.note,
    })
}

fn recurrence(problems: &mut Problems, request: Option<ProtoRecurrence>) -> Option<Recurrence> {
    let request = request?;
    let until = fields::moment(problems, "recurrence.until", request.until);
    let unit = match RecurrenceUnit::try_from(request.unit) {
        Ok(RecurrenceUnit::Second) => Unit::Second,
        Ok(RecurrenceUnit::Day) => Unit::Day,
        Ok(RecurrenceUnit::Week) => Unit::Week,
        Ok(RecurrenceUnit::Month) => Unit::Month,
        Ok(RecurrenceUnit::Unspecified) | Err(_) => {
            problems.add("recurrence.unit", "must be a second, day, week or month");
            return None;
        }
    };
    let every = u32::try_from(request.every)
        .ok()
        .filter(|every| (1..=MAX_EVERY).contains(every));
    let every = problems.need("recurrence.every", "must be between 1 and 100000", every);
    if unit == Unit::Second && every.is_some_and(|every| every < MIN_SECONDS) {
        problems.add("recurrence.every", "must be at least 60 seconds");
    }
    let count = u32::try_from(request.count)
        .ok()
        .filter(|count| *count <= MAX_COUNT);
    let count = problems.need(
        "recurrence.count",
        "must be between 1 and 1000000, or 0 for no end",
        count,
    );
    Some(Recurrence {
        unit,
        every: every?,
        count: count.filter(|count| *count > 0),
        until,
    })
}

pub fn id(id: &str) -> Result<Uuid, Status> {
    let mut problems = Problems::default();
    let id = problems.uuid("schedule_id", id);
    problems.finish()?;
    Ok(id)
}

/// The ordinal below which a page begins, and its size.
pub fn page(request: &ListSchedulesRequest) -> Result<(Option<i64>, i64), Status> {
    let mut problems = Problems::default();
    let limit = problems.page_size(request.page_size);
    let below = problems.token(&request.page_token, |token| {
        let [below] = list().read(token)?;
        (below > 0).then_some(below)
    });
    problems.finish()?;
    Ok((below, limit))
}

pub fn token(below: i64) -> String {
    list().token([below])
}

fn list() -> List {
    List::new("schedules")
}

pub fn schedule(schedule: Schedule, latest: &[Run]) -> ProtoSchedule {
    let next_at = schedule.next_at().map(timestamp);
    let state = match schedule.state {
        State::Active => ScheduleState::Active,
        State::Finished => ScheduleState::Finished,
        State::Cancelled => ScheduleState::Cancelled,
    };
    let timing = schedule.plan.timing;
    ProtoSchedule {
        schedule_id: schedule.plan.id.to_string(),
        transfer: Some(planned(schedule.plan.transfer)),
        first_at: Some(timestamp(timing.first)),
        recurrence: timing.recurrence.map(repeats),
        state: state.into(),
        next_at,
        occurred: schedule.next - 1,
        latest: latest.iter().map(occurrence).collect(),
        created_at: Some(timestamp(schedule.created_at)),
    }
}

fn planned(template: Template) -> CreateTransferRequest {
    let (from_user_id, from_account_id) = numbers(template.from);
    let amount = template.to.iter().map(|(_, amount)| amount.minor()).sum();
    let mut transfer = CreateTransferRequest {
        from_user_id,
        from_account_id,
        amount,
        currency: template
            .currency
            .map(Currency::code)
            .unwrap_or_default()
            .to_owned(),
        pending: template.pending,
        ..CreateTransferRequest::default()
    };
    if let [(party, _)] = template.to.as_slice() {
        (transfer.to_user_id, transfer.to_account_id) = numbers(*party);
    } else {
        let split = |(party, amount): &(Party, crate::domain::money::Amount)| {
            let (to_user_id, to_account_id) = numbers(*party);
            Split {
                to_user_id,
                to_account_id,
                amount: amount.minor(),
            }
        };
        transfer.splits = template.to.iter().map(split).collect();
    }
    if let Some(note) = template.note {
        transfer.reference = note.reference.clone().unwrap_or_default();
        transfer.description = note.description.clone().unwrap_or_default();
        transfer.metadata = note.metadata.clone().into_iter().collect();
    }
    transfer
}

fn numbers(party: Party) -> (i64, i64) {
    match party {
        Party::User(user) => (user, 0),
        Party::Account(account) => (0, account),
        Party::Treasury => (0, 0),
    }
}

fn repeats(recurrence: Recurrence) -> ProtoRecurrence {
    let unit = match recurrence.unit {
        Unit::Second => RecurrenceUnit::Second,
        Unit::Day => RecurrenceUnit::Day,
        Unit::Week => RecurrenceUnit::Week,
        Unit::Month => RecurrenceUnit::Month,
    };
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    ProtoRecurrence {
        unit: unit.into(),
        every: number(recurrence.every),
        count: recurrence.count.map(number).unwrap_or_default(),
        until: recurrence.until.map(timestamp),
    }
}

fn occurrence(run: &Run) -> Occurrence {
    Occurrence {
        number: run.number,
        due_at: Some(timestamp(run.due_at)),
        transfer_id: run.transfer_id.to_string(),
        error: run
            .refused
            .map(|refused| status::item_error(&status::from_error(Error::from(refused)))),
    }
}

#[cfg(test)]
mod tests;
