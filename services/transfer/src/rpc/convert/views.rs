//! What was read, as answers.

use proto::transfer::v1::{
    GetTransferRequest, GetUserBalanceRequest, GetUserBalanceResponse, Split, Transfer as ProtoTransfer,
    TransferKind, TransferState,
};
use rpc::fields::Problems;
use tonic::Status;
use uuid::Uuid;

use super::timestamp;
use crate::{
    app::reads::transfer::{Side, State, Transfer},
    domain::{account::Account, journal::Kind},
};

pub fn transfer_id(request: &GetTransferRequest) -> Result<Uuid, Status> {
    let mut problems = Problems::default();
    let id = problems.uuid("transfer_id", &request.transfer_id);
    problems.finish()?;
    Ok(id)
}

pub fn user_id(request: GetUserBalanceRequest) -> Result<i64, Status> {
    let mut problems = Problems::default();
    let id = problems.id("user_id", request.user_id);
    problems.finish()?;
    Ok(id)
}

pub fn user_balance(account: &Account) -> GetUserBalanceResponse {
    GetUserBalanceResponse {
        posted: account.posted,
        available: account.available(),
        currency: account.currency.code().to_owned(),
    }
}

pub fn transfer(transfer: &Transfer) -> ProtoTransfer {
    let only = match transfer.to.as_slice() {
        [(side, _)] => *side,
        _ => Side::default(),
    };
    let splits = match transfer.to.as_slice() {
        [_] => Vec::new(),
        several => several.iter().map(split).collect(),
    };
    let note = transfer.note.as_deref().cloned().unwrap_or_default();
    let id = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    ProtoTransfer {
        transfer_id: transfer.id.to_string(),
        from_user_id: transfer.from.user,
        to_user_id: only.user,
        amount: transfer.amount,
        currency: transfer.currency.code().to_owned(),
        created_at: Some(timestamp(transfer.at)),
        from_account_id: transfer.from.account,
        to_account_id: only.account,
        kind: kind(transfer.kind).into(),
        state: state(transfer.state).into(),
        original_id: id(transfer.original),
        resolved_by: id(transfer.resolved_by),
        reversed_by: id(transfer.reversed_by),
        posted_amount: transfer.posted,
        expires_at: transfer.expires_at.map(timestamp),
        splits,
        reference: note.reference.unwrap_or_default(),
        description: note.description.unwrap_or_default(),
        metadata: note.metadata.into_iter().collect(),
    }
}

fn split((side, amount): &(Side, i64)) -> Split {
    Split {
        to_user_id: side.user,
        to_account_id: side.account,
        amount: *amount,
    }
}

pub fn kind(kind: Kind) -> TransferKind {
    match kind {
        Kind::Transfer => TransferKind::Transfer,
        Kind::Pending => TransferKind::Pending,
        Kind::Post => TransferKind::Post,
        Kind::Void => TransferKind::Void,
        Kind::Expire => TransferKind::Expire,
        Kind::Reversal => TransferKind::Reversal,
    }
}

fn state(state: State) -> TransferState {
    match state {
        State::Pending => TransferState::Pending,
        State::Posted => TransferState::Posted,
        State::Voided => TransferState::Voided,
        State::Expired => TransferState::Expired,
        State::Reversed => TransferState::Reversed,
    }
}
