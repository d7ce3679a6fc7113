//! Parts of an export to what is sent.

use proto::transfer::v1::{
    Account as ProtoAccount, AccountChange, AccountRole, AccountStatus, Balance, ExportLedgerResponse,
    ExportedAccount, ExportedOccurrence, ExportedSchedule, JournalRow, LedgerHeader, LedgerPart,
    LedgerTrailer, ledger_part,
};
use uuid::Uuid;

use super::super::{schedules, timestamp, views};
use crate::{
    app::parts::{AccountPart, ChangePart, Counts, OccurrencePart, Part, RowPart, SchedulePart},
    domain::{
        account::{Role, Status},
        command::Authority,
    },
};

pub fn exported(part: Part) -> ExportLedgerResponse {
    let part = match part {
        Part::Header(version, at) => ledger_part::Part::Header(LedgerHeader {
            version,
            exported_at: Some(timestamp(at)),
        }),
        Part::Account(part) => ledger_part::Part::Account(account(part)),
        Part::Change(part) => ledger_part::Part::Change(change(part)),
        Part::Row(part) => ledger_part::Part::Row(row(part)),
        Part::Schedule(part) => ledger_part::Part::Schedule(schedule(part)),
        Part::Occurrence(part) => ledger_part::Part::Occurrence(occurrence(part)),
        Part::Trailer(counts) => ledger_part::Part::Trailer(trailer(counts)),
    };
    ExportLedgerResponse {
        part: Some(LedgerPart { part: Some(part) }),
    }
}

fn account(part: AccountPart) -> ExportedAccount {
    let account = &part.record.account;
    let balance = Balance {
        posted: account.posted,
        held: account.held,
        available: account.available(),
        currency: account.currency.code().to_owned(),
        position: account.position,
        at: Some(timestamp(account.last_at)),
    };
    ExportedAccount {
        account: Some(ProtoAccount {
            account_id: account.id,
            user_id: account.owner.unwrap_or_default(),
            role: role(account.role).into(),
            status: status(account.status).into(),
            currency: account.currency.code().to_owned(),
            label: part.record.label,
            minimum: account.floor,
            maximum: account.ceiling,
            balance: Some(balance),
            created_at: Some(timestamp(part.record.created_at)),
        }),
        incoming: account.incoming,
        request_id: optional(part.request),
    }
}

fn role(role: Role) -> AccountRole {
    match role {
        Role::Main => AccountRole::Main,
        Role::Additional => AccountRole::Additional,
        Role::Treasury => AccountRole::Treasury,
        Role::Fees => AccountRole::Fees,
    }
}

fn status(status: Status) -> AccountStatus {
    match status {
        Status::Open => AccountStatus::Open,
        Status::Frozen => AccountStatus::Frozen,
        Status::Closed => AccountStatus::Closed,
    }
}

fn change(part: ChangePart) -> AccountChange {
    AccountChange {
        change_id: part.id,
        account_id: part.account,
        changed_by: part.by.unwrap_or_default(),
        changed_at: Some(timestamp(part.at)),
        change: part.change,
        status: status(part.status).into(),
        minimum: part.floor,
        maximum: part.ceiling,
    }
}

fn row(part: RowPart) -> JournalRow {
    let row = part.row;
    let note = row.note.as_deref().cloned().unwrap_or_default();
    JournalRow {
        lane: part.lane,
        sequence: part.sequence,
        transfer_id: row.id.to_string(),
        leg: i32::from(row.leg),
        kind: views::kind(row.kind).into(),
        debit_account_id: row.debit,
        credit_account_id: row.credit,
        moved: row.moved,
        held: row.held,
        currency: row.currency.code().to_owned(),
        debit_position: row.debit_position,
        credit_position: row.credit_position,
        debit_posted: row.debit_posted,
        debit_held: row.debit_held,
        credit_posted: row.credit_posted,
        credit_held: row.credit_held,
        created_at: Some(timestamp(row.at)),
        original_id: optional(row.original),
        expires_at: row.expires_at.map(timestamp),
        reference: note.reference.unwrap_or_default(),
        description: note.description.unwrap_or_default(),
        metadata: note.metadata.into_iter().collect(),
    }
}

fn schedule(part: SchedulePart) -> ExportedSchedule {
    let (user_id, ordinal) = (part.schedule.plan.owner, part.schedule.ordinal);
    let by_bank = part.schedule.plan.by == Authority::Bank;
    ExportedSchedule {
        schedule: Some(schedules::schedule(part.schedule, &[])),
        user_id,
        by_bank,
        ordinal,
        tries: part.tries,
    }
}

fn occurrence(part: OccurrencePart) -> ExportedOccurrence {
    ExportedOccurrence {
        schedule_id: part.schedule.to_string(),
        number: part.number,
        due_at: Some(timestamp(part.due_at)),
        transfer_id: part.transfer.to_string(),
        recorded_at: Some(timestamp(part.recorded_at)),
        refused: part.refused.unwrap_or_default(),
        refused_field: part.refused_field.unwrap_or_default(),
    }
}

fn trailer(counts: Counts) -> LedgerTrailer {
    LedgerTrailer {
        accounts: counts.accounts,
        rows: counts.rows,
        schedules: counts.schedules,
        changes: counts.changes,
        occurrences: counts.occurrences,
    }
}

fn optional(id: Option<Uuid>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}
