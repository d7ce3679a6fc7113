//! Accounts and their histories: requests to what is asked, and what was read to answers.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use proto::transfer::v1::{
    Account as ProtoAccount, AccountRole, AccountStatus, Balance as ProtoBalance, CreateAccountRequest,
    CreateSystemAccountRequest, Entry as ProtoEntry, GetBalanceRequest, GetStatementCsvRequest,
    GetStatementRequest, GetStatementResponse, ListAccountsRequest, ListEntriesRequest, ListEntriesResponse,
    SetAccountLimitsRequest, WatchAccountRequest,
};
use rpc::fields::Problems;
use tonic::Status;

use super::{CURRENCY, fields, timestamp, tokens::List, views};
use crate::{
    app::{
        accounts::{Opening, Whose},
        reads::{
            AccountRecord,
            history::{Balance, Cursor, Entry, Page, Query, Rest, Span, Statement},
        },
        watch::Asked,
    },
    domain::{
        account::{Account, Change, Role, Status as AccountState},
        command::Authority,
        money::{Currency, MAX_MINOR},
    },
};

const MAX_LABEL: usize = 64;
const LIMIT: &str = "must be between -9007199254740991 and 9007199254740991 minor units";

pub fn opening(request: CreateAccountRequest, owner: i64) -> Result<Opening, Status> {
    let mut problems = Problems::default();
    let currency = problems.need("currency", CURRENCY, Currency::from_code(&request.currency));
    if !fields::is_text(&request.label, MAX_LABEL) {
        problems.add(
            "label",
            "must be at most 64 characters without control characters",
        );
    }
    let request_id = problems.uuid("request_id", &request.request_id);
    Ok(Opening {
        request_id,
        owner,
        currency: problems.finish_with(currency)?,
        label: request.label,
    })
}

pub fn system(request: &CreateSystemAccountRequest) -> Result<(Role, Currency), Status> {
    let mut problems = Problems::default();
    let role = match request.role() {
        AccountRole::Treasury => Some(Role::Treasury),
        AccountRole::Fees => Some(Role::Fees),
        AccountRole::Unspecified | AccountRole::Main | AccountRole::Additional => None,
    };
    let role = problems.need("role", "must be ACCOUNT_ROLE_TREASURY or ACCOUNT_ROLE_FEES", role);
    let currency = problems.need("currency", CURRENCY, Currency::from_code(&request.currency));
    problems.finish_with(role.zip(currency))
}

pub fn account_id(id: i64) -> Result<i64, Status> {
    let mut problems = Problems::default();
    let id = problems.id("account_id", id);
    problems.finish()?;
    Ok(id)
}

pub fn whose(request: ListAccountsRequest, caller: i64) -> Result<Whose, Status> {
    let mut problems = Problems::default();
    let whose = match (request.system, request.user_id) {
        (true, 0) => Whose::Bank,
        (true, _) => {
            problems.add("system", "must be false when a user is named");
            Whose::Bank
        }
        (false, 0) => Whose::User(caller),
        (false, user) => Whose::User(problems.id("user_id", user)),
    };
    problems.finish()?;
    Ok(whose)
}

pub fn limits(request: SetAccountLimitsRequest) -> Result<(i64, Change), Status> {
    let mut problems = Problems::default();
    let account = problems.id("account_id", request.account_id);
    let limits = [("minimum", request.minimum), ("maximum", request.maximum)];
    for (field, limit) in limits {
        if limit.is_some_and(|limit| !(-MAX_MINOR..=MAX_MINOR).contains(&limit)) {
            problems.add(field, LIMIT);
        }
    }
    problems.finish()?;
    let change = Change::Limits {
        floor: request.minimum,
        ceiling: request.maximum,
    };
    Ok((account, change))
}

/// The account, and the moment if it is one of the past.
pub fn balance_at(request: GetBalanceRequest) -> Result<(i64, Option<DateTime<Utc>>), Status> {
    let mut problems = Problems::default();
    let account = problems.id("account_id", request.account_id);
    let at = fields::moment(&mut problems, "at", request.at);
    problems.finish()?;
    Ok((account, at))
}

/// What is asked of a list of entries, and where its page begins.
pub struct Entries {
    pub account: i64,
    pub query: Query,
    pub cursor: Option<Cursor>,
    list: List,
}

pub fn entries(request: ListEntriesRequest) -> Result<Entries, Status> {
    let mut problems = Problems::default();
    let account = problems.id("account_id", request.account_id);
    let limit = problems.page_size(request.page_size);
    let span = span(&mut problems, request.from_time, request.to_time);
    let reference = (!request.reference.is_empty()).then_some(request.reference);
    if reference
        .as_deref()
        .is_some_and(|text| !fields::is_reference(text))
    {
        problems.add("reference", fields::REFERENCE);
    }
    let list = list("entries", account, span)
        .with(Some(request.oldest_first))
        .with(reference.as_deref());
    let cursor = problems.token(&request.page_token, |token| {
        let [position, back] = list.read(token)?;
        let back = match back {
            0 => false,
            1 => true,
            _ => return None,
        };
        (position > 0).then_some(Cursor { position, back })
    });
    problems.finish()?;
    Ok(Entries {
        account,
        query: Query {
            span,
            oldest_first: request.oldest_first,
            reference,
            limit,
        },
        cursor,
        list,
    })
}

impl Entries {
    pub fn answer(&self, page: &Page) -> ListEntriesResponse {
        let token = |cursor: Option<Cursor>| {
            cursor
                .map(|Cursor { position, back }| self.list.token([position, back.into()]))
                .unwrap_or_default()
        };
        ListEntriesResponse {
            entries: page.entries.iter().map(entry).collect(),
            next_page_token: token(page.next),
            previous_page_token: token(page.previous),
        }
    }
}

/// What is asked of a statement, and what of it is missing.
pub struct Asking {
    pub account: i64,
    pub span: Span,
    pub limit: i64,
    pub rest: Option<Rest>,
    list: List,
}

pub fn statement(request: &GetStatementRequest) -> Result<Asking, Status> {
    let mut problems = Problems::default();
    let account = problems.id("account_id", request.account_id);
    let limit = problems.page_size(request.page_size);
    let span = span(&mut problems, request.from_time, request.to_time);
    let list = list("statement", account, span);
    let rest = problems.token(&request.page_token, |token| {
        let [after, until] = list.read(token)?;
        (0 < after && after < until).then_some(Rest { after, until })
    });
    problems.finish()?;
    Ok(Asking {
        account,
        span,
        limit,
        rest,
        list,
    })
}

impl Asking {
    pub fn answer(&self, record: &AccountRecord, statement: &Statement) -> GetStatementResponse {
        let account = &record.account;
        let next = statement
            .rest
            .map(|rest| self.list.token([rest.after, rest.until]));
        GetStatementResponse {
            account_id: account.id,
            currency: account.currency.code().to_owned(),
            opening: Some(balance(account, &statement.opening)),
            entries: statement.entries.iter().map(entry).collect(),
            closing: Some(balance(account, &statement.closing)),
            next_page_token: next.unwrap_or_default(),
        }
    }
}

pub fn whole_statement(request: &GetStatementCsvRequest) -> Result<(i64, Span), Status> {
    let mut problems = Problems::default();
    let account = problems.id("account_id", request.account_id);
    let span = span(&mut problems, request.from_time, request.to_time);
    problems.finish()?;
    Ok((account, span))
}

pub fn watched(request: WatchAccountRequest, by: Authority, caller: i64) -> Result<Asked, Status> {
    let mut problems = Problems::default();
    let account = problems.id("account_id", request.account_id);
    if request.after_position < 0 {
        problems.add("after_position", "must not be negative");
    }
    problems.finish()?;
    Ok(Asked {
        account,
        after: request.after_position,
        by,
        caller,
    })
}

fn span(
    problems: &mut Problems,
    from: Option<prost_types::Timestamp>,
    to: Option<prost_types::Timestamp>,
) -> Span {
    let from = fields::moment(problems, "from_time", from);
    let to = fields::moment(problems, "to_time", to);
    if from.zip(to).is_some_and(|(from, to)| to < from) {
        problems.add("to_time", "must not be before from_time");
    }
    Span { from, to }
}

fn list(name: &str, account: i64, span: Span) -> List {
    let micros = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_micros());
    List::new(name)
        .with(Some(account))
        .with(micros(span.from))
        .with(micros(span.to))
}

pub fn account(record: &AccountRecord) -> ProtoAccount {
    let account = &record.account;
    ProtoAccount {
        account_id: account.id,
        user_id: account.owner.unwrap_or(0),
        role: role(account.role).into(),
        status: status(account.status).into(),
        currency: account.currency.code().to_owned(),
        label: record.label.clone(),
        minimum: account.floor,
        maximum: account.ceiling,
        balance: Some(balance(account, &Balance::of(account))),
        created_at: Some(timestamp(record.created_at)),
    }
}

/// A balance of an account, with its minimum of today.
pub fn balance(account: &Account, balance: &Balance) -> ProtoBalance {
    let then = Account {
        posted: balance.posted,
        held: balance.held,
        ..account.clone()
    };
    ProtoBalance {
        posted: balance.posted,
        held: balance.held,
        // a limit far from the balance: no transfer can be larger, and JSON keeps the figure exact
        available: then.available().clamp(-MAX_MINOR, MAX_MINOR),
        currency: account.currency.code().to_owned(),
        position: balance.position,
        at: balance.at.map(timestamp),
    }
}

pub fn entry(entry: &Entry) -> ProtoEntry {
    let row = &entry.row;
    let note = row.note.as_deref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    ProtoEntry {
        position: entry.position,
        transfer_id: row.id.to_string(),
        kind: views::kind(row.kind).into(),
        amount: entry.amount,
        held: entry.held,
        posted_after: entry.posted_after,
        held_after: entry.held_after,
        counterparty_account_id: entry.counterparty,
        created_at: Some(timestamp(row.at)),
        original_id: row.original.map(|id| id.to_string()).unwrap_or_default(),
        reference: text(note.and_then(|note| note.reference.as_ref())),
        description: text(note.and_then(|note| note.description.as_ref())),
        metadata: note.map_or_else(HashMap::new, |note| note.metadata.clone().into_iter().collect()),
        currency: row.currency.code().to_owned(),
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

fn status(status: AccountState) -> AccountStatus {
    match status {
        AccountState::Open => AccountStatus::Open,
        AccountState::Frozen => AccountStatus::Frozen,
        AccountState::Closed => AccountStatus::Closed,
    }
}

#[cfg(test)]
mod tests;
