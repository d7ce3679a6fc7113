//! What is sent to parts of an export. What can be wrong with a part in itself is said here, the rest by the use case.

use chrono::{DateTime, Utc};
use proto::transfer::v1::{
    AccountChange, AccountRole, AccountStatus, CreateScheduleRequest, ExportedAccount, ExportedOccurrence,
    ExportedSchedule, ImportLedgerRequest, JournalRow, LedgerTrailer, ScheduleState, TransferKind,
    ledger_part::Part as ProtoPart,
};
use rpc::fields::Problems;
use tonic::{Code, Status as RpcStatus};
use uuid::Uuid;

use super::super::{CURRENCY, fields, schedules};
use crate::{
    app::{
        error::Error,
        parts::{AccountPart, ChangePart, Counts, OccurrencePart, Part, RowPart, SchedulePart},
        reads::AccountRecord,
        schedules::{Schedule, refusal_from_name},
    },
    domain::{
        account::{Account, Role, Status},
        command::Authority,
        journal::{Kind, Row},
        money::Currency,
        schedule::State,
    },
};

/// A part that a client has sent.
pub fn part(request: Result<ImportLedgerRequest, RpcStatus>) -> Result<Part, Error> {
    let request = request.map_err(unread)?;
    let part = request.part.and_then(|part| part.part);
    let part = part.ok_or_else(|| Error::BadExport("it is empty".to_owned()))?;
    let part = match part {
        ProtoPart::Header(header) => {
            let mut problems = Problems::default();
            let at = moment(&mut problems, "exported_at", header.exported_at);
            problems
                .finish_with(at)
                .map(|at| Part::Header(header.version, at))
        }
        ProtoPart::Account(sent) => account(sent).map(Part::Account),
        ProtoPart::Change(sent) => change(sent).map(Part::Change),
        ProtoPart::Row(sent) => row(sent).map(Part::Row),
        ProtoPart::Schedule(sent) => schedule(sent).map(Part::Schedule),
        ProtoPart::Occurrence(sent) => occurrence(sent).map(Part::Occurrence),
        ProtoPart::Trailer(sent) => Ok(Part::Trailer(trailer(sent))),
    };
    part.map_err(|status| Error::BadExport(status.message().to_owned()))
}

/// The stream broke off, or what came is no part.
fn unread(status: RpcStatus) -> Error {
    match status.code() {
        Code::Cancelled | Code::Unavailable | Code::DeadlineExceeded | Code::Unknown => {
            Error::Unavailable(status.into())
        }
        _ => Error::BadExport("it cannot be read".to_owned()),
    }
}

/// A time that must be there.
fn moment(
    problems: &mut Problems,
    field: &str,
    time: Option<prost_types::Timestamp>,
) -> Option<DateTime<Utc>> {
    if time.is_none() {
        problems.add(field, "must be given");
    }
    fields::moment(problems, field, time)
}

/// An id that may be absent.
fn optional(problems: &mut Problems, field: &str, id: &str) -> Option<Uuid> {
    (!id.is_empty()).then(|| problems.uuid(field, id))
}

fn account(sent: ExportedAccount) -> Result<AccountPart, RpcStatus> {
    let mut problems = Problems::default();
    let request = optional(&mut problems, "request_id", &sent.request_id);
    let account = sent.account.unwrap_or_default();
    let balance = account.balance.unwrap_or_default();
    let id = problems.id("account_id", account.account_id);
    let role = match AccountRole::try_from(account.role) {
        Ok(AccountRole::Main) => Some(Role::Main),
        Ok(AccountRole::Additional) => Some(Role::Additional),
        Ok(AccountRole::Treasury) => Some(Role::Treasury),
        Ok(AccountRole::Fees) => Some(Role::Fees),
        Ok(AccountRole::Unspecified) | Err(_) => None,
    };
    let role = problems.need("role", "must be known", role);
    let status = status(&mut problems, account.status);
    let currency = Currency::from_code(&account.currency).filter(|_| account.currency == balance.currency);
    let currency = problems.need("currency", CURRENCY, currency);
    let last_at = moment(&mut problems, "balance.at", balance.at);
    let created_at = moment(&mut problems, "created_at", account.created_at);
    if account.label.chars().any(char::is_control) {
        problems.add("label", "must be without control characters");
    }
    let part = || {
        Some(AccountPart {
            record: AccountRecord {
                account: Account {
                    id,
                    owner: (account.user_id != 0).then_some(account.user_id),
                    role: role?,
                    status: status?,
                    currency: currency?,
                    posted: balance.posted,
                    held: balance.held,
                    incoming: sent.incoming,
                    floor: account.minimum,
                    ceiling: account.maximum,
                    revision: 0,
                    position: balance.position,
                    last_at: last_at?,
                },
                label: account.label,
                created_at: created_at?,
            },
            request,
        })
    };
    problems.finish_with(part())
}

fn status(problems: &mut Problems, status: i32) -> Option<Status> {
    let known = match AccountStatus::try_from(status) {
        Ok(AccountStatus::Open) => Some(Status::Open),
        Ok(AccountStatus::Frozen) => Some(Status::Frozen),
        Ok(AccountStatus::Closed) => Some(Status::Closed),
        Ok(AccountStatus::Unspecified) | Err(_) => None,
    };
    problems.need("status", "must be known", known)
}

fn change(sent: AccountChange) -> Result<ChangePart, RpcStatus> {
    let mut problems = Problems::default();
    let (id, account) = (
        problems.id("change_id", sent.change_id),
        problems.id("account_id", sent.account_id),
    );
    let at = moment(&mut problems, "changed_at", sent.changed_at);
    let status = status(&mut problems, sent.status);
    let part = || {
        Some(ChangePart {
            id,
            account,
            by: (sent.changed_by != 0).then_some(sent.changed_by),
            at: at?,
            change: sent.change,
            status: status?,
            floor: sent.minimum,
            ceiling: sent.maximum,
        })
    };
    problems.finish_with(part())
}

fn row(sent: JournalRow) -> Result<RowPart, RpcStatus> {
    let mut problems = Problems::default();
    let id = problems.uuid("transfer_id", &sent.transfer_id);
    let original = optional(&mut problems, "original_id", &sent.original_id);
    let leg = i16::try_from(sent.leg).ok().filter(|leg| *leg >= 0);
    let leg = problems.need("leg", "must be between 0 and 32767", leg);
    let kind = kind(&mut problems, sent.kind);
    let currency = problems.need("currency", CURRENCY, Currency::from_code(&sent.currency));
    let at = moment(&mut problems, "created_at", sent.created_at);
    let expires_at = fields::moment(&mut problems, "expires_at", sent.expires_at);
    let note = fields::note(&mut problems, sent.reference, sent.description, sent.metadata);
    let part = || {
        Some(RowPart {
            lane: sent.lane,
            sequence: sent.sequence,
            row: Row {
                id,
                leg: leg?,
                kind: kind?,
                debit: sent.debit_account_id,
                credit: sent.credit_account_id,
                moved: sent.moved,
                held: sent.held,
                currency: currency?,
                debit_position: sent.debit_position,
                credit_position: sent.credit_position,
                debit_posted: sent.debit_posted,
                debit_held: sent.debit_held,
                credit_posted: sent.credit_posted,
                credit_held: sent.credit_held,
                at: at?,
                original,
                expires_at,
                note,
            },
        })
    };
    problems.finish_with(part())
}

fn kind(problems: &mut Problems, kind: i32) -> Option<Kind> {
    let known = match TransferKind::try_from(kind) {
        Ok(TransferKind::Transfer) => Some(Kind::Transfer),
        Ok(TransferKind::Pending) => Some(Kind::Pending),
        Ok(TransferKind::Post) => Some(Kind::Post),
        Ok(TransferKind::Void) => Some(Kind::Void),
        Ok(TransferKind::Expire) => Some(Kind::Expire),
        Ok(TransferKind::Reversal) => Some(Kind::Reversal),
        Ok(TransferKind::Unspecified) | Err(_) => None,
    };
    problems.need("kind", "must be known", known)
}

fn schedule(sent: ExportedSchedule) -> Result<SchedulePart, RpcStatus> {
    let mut problems = Problems::default();
    let owner = problems.id("user_id", sent.user_id);
    let ordinal = problems.id("ordinal", sent.ordinal);
    let planned = sent.schedule.unwrap_or_default();
    let created_at = moment(&mut problems, "created_at", planned.created_at);
    let state = match ScheduleState::try_from(planned.state) {
        Ok(ScheduleState::Active) => Some(State::Active),
        Ok(ScheduleState::Finished) => Some(State::Finished),
        Ok(ScheduleState::Cancelled) => Some(State::Cancelled),
        Ok(ScheduleState::Unspecified) | Err(_) => None,
    };
    let state = problems.need("state", "must be known", state);
    let next = planned.occurred.checked_add(1);
    let next = problems.need("occurred", "must be a number of occurrences", next);
    let (created_at, state, next) = problems.finish_with(
        created_at
            .zip(state)
            .zip(next)
            .map(|((at, state), next)| (at, state, next)),
    )?;
    let request = CreateScheduleRequest {
        transfer: planned.transfer,
        first_at: planned.first_at,
        recurrence: planned.recurrence,
        schedule_id: planned.schedule_id,
        dry_run: false,
    };
    let by = if sent.by_bank {
        Authority::Bank
    } else {
        Authority::User(owner)
    };
    Ok(SchedulePart {
        schedule: Schedule {
            plan: schedules::plan(request, owner, by)?,
            ordinal,
            created_at,
            state,
            next,
            begun: sent.tries > 0,
        },
        tries: sent.tries,
    })
}

fn occurrence(sent: ExportedOccurrence) -> Result<OccurrencePart, RpcStatus> {
    let mut problems = Problems::default();
    let schedule = problems.uuid("schedule_id", &sent.schedule_id);
    let transfer = problems.uuid("transfer_id", &sent.transfer_id);
    let due_at = moment(&mut problems, "due_at", sent.due_at);
    let recorded_at = moment(&mut problems, "recorded_at", sent.recorded_at);
    let some = |text: String| (!text.is_empty()).then_some(text);
    let (refused, refused_field) = (some(sent.refused), some(sent.refused_field));
    if refused
        .as_deref()
        .is_some_and(|name| refusal_from_name(name, refused_field.as_deref()).is_none())
    {
        problems.add("refused", "must be known");
    }
    let part = due_at
        .zip(recorded_at)
        .map(|(due_at, recorded_at)| OccurrencePart {
            schedule,
            number: sent.number,
            due_at,
            transfer,
            recorded_at,
            refused,
            refused_field,
        });
    problems.finish_with(part)
}

fn trailer(sent: LedgerTrailer) -> Counts {
    Counts {
        accounts: sent.accounts,
        changes: sent.changes,
        rows: sent.rows,
        schedules: sent.schedules,
        occurrences: sent.occurrences,
    }
}
