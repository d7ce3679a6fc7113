//! The users of the test and their accounts, and what of the ledger they know together.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use proto::transfer::v1::{
    CreateAccountRequest, OpenAccountRequest, ledger_account_service_client::LedgerAccountServiceClient,
    ledger_service_client::LedgerServiceClient,
};
use rand::{RngExt as _, rngs::StdRng};
use rpc::Caller;
use sqlx::PgPool;
use tonic::Code;
use uuid::Uuid;

use super::{
    STRICT,
    client::{Doors, Record},
    order::{Account, By, Order, What},
};

const USERS: i64 = 10;
/// Of them, from this one on, users with euros.
const FIRST_IN_EUROS: i64 = 8;
const START: i64 = 4_000;
const FIRST_CALL: Duration = Duration::from_secs(10);
/// What is kept of each list below.
const REMEMBERED: usize = 400;

/// A pending transfer that may be open.
#[derive(Clone, Debug)]
pub struct Pending {
    pub id: Uuid,
    pub payer: i64,
    pub payees: Vec<i64>,
    pub amount: i64,
}

/// A transfer that was made.
#[derive(Clone, Debug)]
pub struct Posted {
    pub id: Uuid,
    pub payees: Vec<i64>,
}

/// Users, accounts, and the latest transfers, on which anybody may act.
pub struct Parties {
    pub accounts: Vec<Account>,
    /// An account that is frozen and limited while the others work.
    pub restless: Account,
    /// Whether the ledger has the service of accounts.
    pub has_account_service: bool,
    /// The deposits that they have begun with.
    pub first: Vec<Record>,
    pending: Mutex<VecDeque<Pending>>,
    posted: Mutex<VecDeque<Posted>>,
}

impl Parties {
    /// Opens the accounts and gives them money.
    pub async fn gather(doors: &Doors<'_>, ledger: &PgPool, choices: &mut StdRng) -> Result<Self> {
        let mut accounts = Vec::new();
        let mut has_account_service = true;
        for user in 1..=USERS {
            let currency = if user < FIRST_IN_EUROS { "USD" } else { "EUR" };
            let id = open_main(doors, user, currency).await?;
            accounts.push(Account {
                id,
                user,
                main: true,
                currency,
            });
            let id = if let Some(id) = open_further(doors, user, currency).await? {
                id
            } else {
                has_account_service = false;
                insert_further(ledger, user, currency).await?
            };
            accounts.push(Account {
                id,
                user,
                main: false,
                currency,
            });
        }
        ensure!(has_account_service || !STRICT, "there is no LedgerAccountService");
        let mut first = Vec::new();
        for to in &accounts {
            let order = Order::new(
                By::Operator,
                What::Deposit {
                    to: *to,
                    amount: START,
                },
            );
            let (answer, unknown) = doors.until_known(&order, false, choices).await?;
            ensure!(answer.is_done(), "{answer:?}");
            first.push(Record {
                order,
                answer,
                unknown,
                chain: None,
            });
        }
        let restless = *accounts.get(1).context("no account")?;
        Ok(Self {
            accounts,
            restless,
            has_account_service,
            first,
            pending: Mutex::default(),
            posted: Mutex::default(),
        })
    }

    pub fn any(&self, choices: &mut StdRng) -> Account {
        self.accounts[choices.random_range(0..self.accounts.len())]
    }

    /// An account that could be paid by another one.
    pub fn payee_of(&self, from: Account, choices: &mut StdRng) -> Account {
        loop {
            let to = self.any(choices);
            if to.id != from.id && to.currency == from.currency {
                return to;
            }
        }
    }

    pub fn account_of(&self, by: By, choices: &mut StdRng) -> Account {
        loop {
            let account = self.any(choices);
            if by == By::Operator || by == By::User(account.user) {
                return account;
            }
        }
    }

    /// Remembers what others may act on.
    pub fn made(&self, order: &Order) {
        let What::Move { from, to, hold, .. } = &order.what else {
            return;
        };
        let payees: Vec<i64> = to.iter().map(|(account, _)| account.user).collect();
        if *hold == super::order::Hold::No {
            remember(&self.posted, Posted { id: order.id, payees });
        } else {
            let amount = to.iter().map(|(_, amount)| amount).sum();
            let (id, payer) = (order.id, from.user);
            remember(
                &self.pending,
                Pending {
                    id,
                    payer,
                    payees,
                    amount,
                },
            );
        }
    }

    /// A pending transfer; mostly another one each time.
    pub fn pending(&self, choices: &mut StdRng) -> Option<Pending> {
        recall(&self.pending, choices)
    }

    /// A posted transfer; mostly another one each time.
    pub fn posted(&self, choices: &mut StdRng) -> Option<Posted> {
        recall(&self.posted, choices)
    }

    /// A pending transfer was posted, so that it can be reversed.
    pub fn was_posted(&self, pending: &Pending) {
        let (id, payees) = (pending.id, pending.payees.clone());
        remember(&self.posted, Posted { id, payees });
    }
}

fn remember<T>(list: &Mutex<VecDeque<T>>, one: T) {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    list.push_back(one);
    if list.len() > REMEMBERED {
        list.pop_front();
    }
}

fn recall<T: Clone>(list: &Mutex<VecDeque<T>>, choices: &mut StdRng) -> Option<T> {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    if list.is_empty() {
        return None;
    }
    let place = choices.random_range(0..list.len());
    // one in four stays, for others to be too late
    if choices.random_range(0..4) == 0 {
        return list.get(place).cloned();
    }
    list.remove(place)
}

async fn open_main(doors: &Doors<'_>, user_id: i64, currency: &str) -> Result<i64> {
    let caller = Caller::Service {
        name: "account".to_owned(),
    };
    let message = OpenAccountRequest {
        user_id,
        currency: currency.to_owned(),
    };
    let request = doors.request(&caller, message, FIRST_CALL)?;
    let opened = LedgerServiceClient::new(doors.channel(0))
        .open_account(request)
        .await?;
    Ok(opened.into_inner().account_id)
}

/// A further account; none when the ledger has no service for it yet.
async fn open_further(doors: &Doors<'_>, user: i64, currency: &str) -> Result<Option<i64>> {
    let message = CreateAccountRequest {
        currency: currency.to_owned(),
        label: "further".to_owned(),
        request_id: Uuid::new_v4().to_string(),
    };
    let request = doors.request(&By::User(user).caller(), message, FIRST_CALL)?;
    let mut service = LedgerAccountServiceClient::new(doors.channel(0));
    match service.create_account(request).await {
        Ok(opened) => Ok(Some(
            opened.into_inner().account.context("no account")?.account_id,
        )),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(status.into()),
    }
}

async fn insert_further(ledger: &PgPool, user: i64, currency: &str) -> Result<i64> {
    let insert = "INSERT INTO accounts (user_id, role, currency) VALUES ($1, 'additional', $2) RETURNING id";
    let id = sqlx::query_scalar(insert).bind(user).bind(currency);
    Ok(id.fetch_one(ledger).await?)
}
