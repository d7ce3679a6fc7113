//! Requests to orders, with every bad field named at once, and results to answers.

pub mod accounts;
pub mod admin;
pub mod csv;
mod fields;
pub mod schedules;
mod tokens;
pub mod views;

use chrono::TimeDelta;
use proto::transfer::v1::{
    CreateTransferRequest, DepositRequest, OpenAccountRequest, PostTransferRequest, ReverseTransferRequest,
    TransferAction, TransferResult, VoidTransferRequest, WithdrawRequest, transfer_action,
};
use rpc::fields::Problems;
use tonic::Status;

pub use self::fields::{now, timestamp};
use super::status;
use crate::{
    app::{
        ledger::ItemResult,
        order::{Action, Item, Order, Party},
        schedules::DEFAULT_HOLD,
    },
    domain::{
        books::Done,
        command::{Authority, Command, Hold},
        money::{Amount, Currency},
    },
};

pub const AMOUNT: &str = "must be between 1 and 9007199254740991 minor units";
pub const CURRENCY: &str = "must be an ISO 4217 code such as USD";
/// The most payees of one transfer.
const MAX_SPLITS: usize = 100;
const LONGEST_HOLD: TimeDelta = TimeDelta::days(366);

pub fn transfer(request: CreateTransferRequest, by: Authority) -> Result<Action, Status> {
    let mut problems = Problems::default();
    let from = fields::party(
        &mut problems,
        "from",
        request.from_user_id,
        request.from_account_id,
    );
    let to = payees(&mut problems, &request);
    if to.iter().any(|(party, _)| *party == from) {
        problems.add("to", "must not be the paying user");
    }
    let currency = fields::named_currency(&mut problems, &request.currency);
    let id = problems.uuid("transfer_id", &request.transfer_id);
    let hold = hold(&mut problems, &request);
    let note = fields::note(
        &mut problems,
        request.reference,
        request.description,
        request.metadata,
    );
    problems.finish()?;
    Ok(Action::Transfer(Order {
        id,
        by,
        from,
        to,
        currency,
        hold,
        note,
    }))
}

fn payees(problems: &mut Problems, request: &CreateTransferRequest) -> Vec<(Party, Amount)> {
    if request.splits.is_empty() {
        let to = fields::party(problems, "to", request.to_user_id, request.to_account_id);
        let amount = problems.need("amount", AMOUNT, Amount::new(request.amount));
        return amount.map(|amount| (to, amount)).into_iter().collect();
    }
    if request.to_user_id != 0 || request.to_account_id != 0 {
        problems.add("to", "must not be given beside splits");
    }
    if request.splits.len() > MAX_SPLITS {
        problems.add("splits", "must be at most 100");
        return Vec::new();
    }
    let mut payees = Vec::with_capacity(request.splits.len());
    for (at, split) in request.splits.iter().enumerate() {
        let party = fields::party(
            problems,
            &format!("splits[{at}].to"),
            split.to_user_id,
            split.to_account_id,
        );
        if payees.iter().any(|(earlier, _)| *earlier == party) {
            problems.add(format!("splits[{at}].to"), "must not be paid twice");
        }
        let amount = problems.need(&format!("splits[{at}].amount"), AMOUNT, Amount::new(split.amount));
        payees.extend(amount.map(|amount| (party, amount)));
    }
    let sum = request
        .splits
        .iter()
        .try_fold(0_i64, |sum, split| sum.checked_add(split.amount));
    if request.amount != 0 && sum != Some(request.amount) {
        problems.add("amount", "must be 0 or the sum of the splits");
    }
    payees
}

fn hold(problems: &mut Problems, request: &CreateTransferRequest) -> Option<Hold> {
    let named = fields::moment(problems, "expires_at", request.expires_at);
    if !request.pending {
        if request.expires_at.is_some() {
            problems.add("expires_at", "must be absent unless pending is true");
        }
        return None;
    }
    let now = now();
    // whether it is over is for the rules to say: a repeated request has its first result also when it is
    if named.is_some_and(|until| until > now + LONGEST_HOLD) {
        problems.add("expires_at", "must be in the future, at most 366 days away");
    }
    Some(Hold {
        until: named.unwrap_or(now + DEFAULT_HOLD),
        named: named.is_some(),
    })
}

pub fn deposit(request: DepositRequest) -> Result<Action, Status> {
    let mut problems = Problems::default();
    let to = fields::party(&mut problems, "to", request.to_user_id, request.to_account_id);
    let amount = problems.need("amount", AMOUNT, Amount::new(request.amount));
    let currency = fields::named_currency(&mut problems, &request.currency);
    let id = problems.uuid("transfer_id", &request.transfer_id);
    let note = fields::note(
        &mut problems,
        request.reference,
        request.description,
        std::collections::HashMap::new(),
    );
    let amount = problems.finish_with(amount)?;
    Ok(Action::Transfer(Order {
        id,
        by: Authority::Bank,
        from: Party::Treasury,
        to: vec![(to, amount)],
        currency,
        hold: None,
        note,
    }))
}

pub fn withdrawal(request: WithdrawRequest) -> Result<Action, Status> {
    let mut problems = Problems::default();
    let from = fields::party(
        &mut problems,
        "from",
        request.from_user_id,
        request.from_account_id,
    );
    let amount = problems.need("amount", AMOUNT, Amount::new(request.amount));
    let currency = fields::named_currency(&mut problems, &request.currency);
    let id = problems.uuid("transfer_id", &request.transfer_id);
    let note = fields::note(
        &mut problems,
        request.reference,
        request.description,
        std::collections::HashMap::new(),
    );
    let amount = problems.finish_with(amount)?;
    Ok(Action::Transfer(Order {
        id,
        by: Authority::Bank,
        from,
        to: vec![(Party::Treasury, amount)],
        currency,
        hold: None,
        note,
    }))
}

pub fn post(request: &PostTransferRequest, by: Authority) -> Result<Action, Status> {
    let mut problems = Problems::default();
    let pending = problems.uuid("pending_id", &request.pending_id);
    let id = problems.uuid("transfer_id", &request.transfer_id);
    let amount = Amount::new(request.amount);
    if amount.is_none() && request.amount != 0 {
        problems.add(
            "amount",
            "must be between 1 and 9007199254740991 minor units, or 0 for all",
        );
    }
    problems.finish()?;
    Ok(Action::Direct(Command::Post {
        id,
        by,
        pending,
        amount,
    }))
}

pub fn void(request: &VoidTransferRequest, by: Authority) -> Result<Action, Status> {
    let mut problems = Problems::default();
    let pending = problems.uuid("pending_id", &request.pending_id);
    let id = problems.uuid("transfer_id", &request.transfer_id);
    problems.finish()?;
    Ok(Action::Direct(Command::Void { id, by, pending }))
}

pub fn reversal(request: ReverseTransferRequest, by: Authority) -> Result<Action, Status> {
    let mut problems = Problems::default();
    let original = problems.uuid("original_id", &request.original_id);
    let id = problems.uuid("transfer_id", &request.transfer_id);
    let note = fields::note(
        &mut problems,
        String::new(),
        request.description,
        std::collections::HashMap::new(),
    );
    problems.finish()?;
    Ok(Action::Direct(Command::Reverse {
        id,
        by,
        original,
        note,
    }))
}

/// The id that an action names, checked or not.
pub fn named_id(action: &TransferAction) -> &str {
    use transfer_action::Action as Proto;
    match &action.action {
        Some(Proto::Create(create)) => &create.transfer_id,
        Some(Proto::Post(post)) => &post.transfer_id,
        Some(Proto::Void(void)) => &void.transfer_id,
        Some(Proto::Reverse(reverse)) => &reverse.transfer_id,
        None => "",
    }
}

/// An action of a batch or stream.
pub fn item(action: TransferAction, by: Authority) -> Result<Item, Status> {
    use transfer_action::Action as Proto;
    let nothing = || rpc::error::invalid([("action", "must be create, post, void or reverse")]);
    let proto = action.action.ok_or_else(nothing)?;
    let dry_run = match &proto {
        Proto::Create(create) => create.dry_run,
        Proto::Post(post) => post.dry_run,
        Proto::Void(void) => void.dry_run,
        Proto::Reverse(reverse) => reverse.dry_run,
    };
    if dry_run {
        return Err(rpc::error::invalid([(
            "dry_run",
            "must be false in an action; a batch is a dry run as a whole",
        )]));
    }
    let inner = match proto {
        Proto::Create(create) => transfer(create, by),
        Proto::Post(request) => post(&request, by),
        Proto::Void(request) => void(&request, by),
        Proto::Reverse(request) => reversal(request, by),
    };
    Ok(Item {
        action: inner?,
        linked: action.linked,
    })
}

pub fn result(index: usize, transfer_id: String, outcome: ItemResult) -> TransferResult {
    match outcome {
        Ok(done) => TransferResult {
            index: i64::try_from(index).unwrap_or(i64::MAX),
            transfer_id,
            created_at: Some(timestamp(done.at)),
            replayed: done.replayed,
            error: None,
        },
        Err(error) => refused(index, transfer_id, &status::from_error(error.into())),
    }
}

pub fn refused(index: usize, transfer_id: String, status: &Status) -> TransferResult {
    TransferResult {
        index: i64::try_from(index).unwrap_or(i64::MAX),
        transfer_id,
        error: Some(status::item_error(status)),
        ..TransferResult::default()
    }
}

/// The word for what was done.
pub fn done_word(dry_run: bool, pending: bool) -> String {
    match (dry_run, pending) {
        (true, _) => "dry_run",
        (false, true) => "pending",
        (false, false) => "success",
    }
    .to_owned()
}

pub fn made_at(done: Done) -> prost_types::Timestamp {
    timestamp(done.at)
}

pub fn opening(request: &OpenAccountRequest) -> Result<(i64, Currency), Status> {
    let mut problems = Problems::default();
    let user = problems.id("user_id", request.user_id);
    let currency = problems.need("currency", CURRENCY, Currency::from_code(&request.currency));
    Ok((user, problems.finish_with(currency)?))
}

#[cfg(test)]
mod tests;
