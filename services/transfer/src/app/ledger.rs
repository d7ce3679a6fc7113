//! Writes to the ledger: orders of callers become commands, and commands outcomes.

use std::{collections::HashMap, time::Instant};

use super::{
    directory::{Accounts, Directory},
    engine::{Engine, Outcome},
    error::Error,
    order::{Action, Item, Order, Party},
};
use crate::domain::{
    books::Done,
    command::{Authority, Command, Credit, NewTransfer, Refusal},
    money::Currency,
};

/// The use cases that move money.
pub struct Ledger<A> {
    directory: Directory<A>,
    engine: Engine,
}

/// What became of an item of a batch.
pub type ItemResult = Result<Done, ItemError>;

/// Why an item of a batch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemError {
    /// The rules refuse it.
    Refused(Refusal),
    /// A user has no account.
    UserNotFound,
}

impl From<ItemError> for Error {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::Refused(refusal) => Self::Refused(refusal),
            ItemError::UserNotFound => Self::UserNotFound,
        }
    }
}

impl<A: Accounts> Ledger<A> {
    /// The use cases on an engine.
    pub fn new(accounts: A, engine: Engine) -> Self {
        Self {
            directory: Directory::new(accounts),
            engine,
        }
    }

    /// Does one thing.
    pub async fn run(&self, action: Action, dry_run: bool, deadline: Instant) -> Result<Done, Error> {
        let command = match action {
            Action::Direct(command) => command,
            Action::Transfer(order) => self.command(order).await?,
        };
        Ok(self.engine.run(command, dry_run, deadline).await??)
    }

    /// The command of an order, whose users have accounts.
    pub async fn command(&self, order: Order) -> Result<Command, Error> {
        let users = self.directory.main_accounts(&users_of(&order)).await?;
        Ok(self.resolve(order, &users).await??)
    }

    /// Does many things in their order, as one commit. Those that cannot be done fail alone, or with their chain.
    pub async fn run_all(
        &self,
        items: Vec<Item>,
        dry_run: bool,
        deadline: Instant,
    ) -> Result<Vec<ItemResult>, Error> {
        let mut users: Vec<i64> = items
            .iter()
            .filter_map(|item| match &item.action {
                Action::Transfer(order) => Some(users_of(order)),
                Action::Direct(_) => None,
            })
            .flatten()
            .collect();
        users.sort_unstable();
        users.dedup();
        let users = self.directory.main_accounts(&users).await?;
        let mut resolved = Vec::with_capacity(items.len());
        for item in items {
            let command = match item.action {
                Action::Direct(command) => Ok(command),
                Action::Transfer(order) => self.resolve(order, &users).await?,
            };
            resolved.push((command, item.linked));
        }
        self.run_resolved(resolved, dry_run, deadline).await
    }

    /// A chain with a member that cannot even be resolved fails as a whole, before the queue.
    async fn run_resolved(
        &self,
        resolved: Vec<(Result<Command, ItemError>, bool)>,
        dry_run: bool,
        deadline: Instant,
    ) -> Result<Vec<ItemResult>, Error> {
        let mut results: Vec<Option<ItemResult>> = Vec::with_capacity(resolved.len());
        let mut commands = Vec::with_capacity(resolved.len());
        let mut resolved = resolved.into_iter().peekable();
        while resolved.peek().is_some() {
            let mut chain = Vec::new();
            for (command, linked) in resolved.by_ref() {
                chain.push((command, linked));
                if !linked {
                    break;
                }
            }
            let whole = chain.iter().all(|(command, _)| command.is_ok());
            for (command, linked) in chain {
                match command {
                    Ok(command) if whole => {
                        commands.push((command, linked));
                        results.push(None);
                    }
                    Ok(_) => results.push(Some(Err(ItemError::Refused(Refusal::LinkedFailed)))),
                    Err(error) => results.push(Some(Err(error))),
                }
            }
        }
        let mut outcomes = self
            .engine
            .run_all(commands, dry_run, deadline)
            .await?
            .into_iter()
            .map(|outcome: Outcome| outcome.map_err(ItemError::Refused));
        results
            .into_iter()
            .map(|result| {
                result
                    .or_else(|| outcomes.next())
                    .ok_or_else(|| Error::Internal("a command without an outcome".into()))
            })
            .collect()
    }

    /// Opens the main account of a user; opening it again finds it.
    pub async fn open_main(&self, user: i64, currency: Currency) -> Result<i64, Error> {
        self.directory.open_main(user, currency).await
    }

    /// The main account of a user.
    pub async fn main_account(&self, user: i64) -> Result<i64, Error> {
        let found = self.directory.main_accounts(&[user]).await?;
        found.get(&user).copied().ok_or(Error::UserNotFound)
    }

    async fn resolve(
        &self,
        order: Order,
        users: &HashMap<i64, i64>,
    ) -> Result<Result<Command, ItemError>, Error> {
        if let (Party::User(payer), Authority::User(caller)) = (order.from, order.by)
            && payer != caller
        {
            // said before anything is looked up: who else has an account is not the caller's business
            return Ok(Err(ItemError::Refused(Refusal::NotYourAccount)));
        }
        let known = |party: Party| match party {
            Party::User(user) => users.get(&user).copied().ok_or(ItemError::UserNotFound).map(Some),
            Party::Account(account) => Ok(Some(account)),
            Party::Treasury => Ok(None),
        };
        let sides = known(order.from).and_then(|from| {
            let to: Result<Vec<_>, _> = order.to.iter().map(|(party, _)| known(*party)).collect();
            Ok((from, to?))
        });
        let (from, to) = match sides {
            Ok(sides) => sides,
            Err(error) => return Ok(Err(error)),
        };
        // the treasury's side is that of the other account
        let counterparty = from.or_else(|| to.iter().copied().flatten().next());
        let treasury = match counterparty {
            Some(account) if from.is_none() || to.contains(&None) => {
                self.directory.treasury_for(account).await?
            }
            _ => None,
        };
        let not_found = ItemError::Refused(Refusal::AccountNotFound);
        let Some(debit) = from.or(treasury) else {
            return Ok(Err(not_found));
        };
        let credits = to
            .into_iter()
            .zip(&order.to)
            .map(|(account, (_, amount))| {
                Some(Credit {
                    account: account.or(treasury)?,
                    amount: *amount,
                })
            })
            .collect::<Option<Vec<_>>>();
        let Some(credits) = credits else {
            return Ok(Err(not_found));
        };
        Ok(Ok(Command::Transfer(NewTransfer {
            id: order.id,
            by: order.by,
            debit,
            credits,
            currency: order.currency,
            hold: order.hold,
            note: order.note,
        })))
    }
}

fn users_of(order: &Order) -> Vec<i64> {
    let parties = order.to.iter().map(|(party, _)| *party);
    parties
        .chain([order.from])
        .filter_map(|party| match party {
            Party::User(user) => Some(user),
            Party::Account(_) | Party::Treasury => None,
        })
        .collect()
}
