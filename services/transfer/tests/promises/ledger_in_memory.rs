//! What transfers should have done to accounts, told as naively as possible.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use rand::{RngExt as _, rngs::StdRng};
use transfer::domain::{command::Command, money::Amount};
use uuid::Uuid;

/// An entry of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub position: i64,
    pub id: Uuid,
    pub amount: i64,
    pub held: i64,
    pub posted_after: i64,
    pub held_after: i64,
    pub counterparty: i64,
    pub reference: String,
    pub at: DateTime<Utc>,
}

/// What one leg of a transfer does.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    pub debit: i64,
    pub credit: i64,
    pub moved: i64,
    pub held: i64,
}

/// The legs of a transfer, and the post that moved the money of a pending one.
#[derive(Clone, Debug, Default)]
pub struct Known {
    legs: Vec<Leg>,
    moved_by: Option<Uuid>,
}

impl Known {
    pub fn of(legs: impl Iterator<Item = Leg>) -> Self {
        Self {
            legs: legs.collect(),
            moved_by: None,
        }
    }
}

#[derive(Default)]
pub struct Memory {
    accounts: BTreeMap<i64, Vec<Seen>>,
    known: HashMap<Uuid, Known>,
    /// Transfers as they were created, in their order.
    created: Vec<Uuid>,
}

impl Memory {
    /// A transfer that was created earlier.
    pub fn some(&self, random: &mut StdRng) -> Option<Uuid> {
        let newest = self.created.len().min(12);
        (newest > 0).then(|| self.created[self.created.len() - 1 - random.random_range(0..newest)])
    }

    /// What a command does to an earlier transfer, if the rules accept it.
    pub fn done_to(&self, command: &Command) -> Known {
        let original = command.original().unwrap();
        let known = &self.known[&original];
        let part = |leg: &Leg, moved| Leg {
            moved,
            held: -leg.held,
            ..*leg
        };
        match command {
            Command::Post { amount, .. } => Known::of(
                known
                    .legs
                    .iter()
                    .map(|leg| part(leg, amount.map_or(leg.held, Amount::minor))),
            ),
            Command::Void { .. } | Command::Expire { .. } => {
                Known::of(known.legs.iter().map(|leg| part(leg, 0)))
            }
            Command::Reverse { .. } => {
                let moved = known.moved_by.map_or(known, |post| &self.known[&post]);
                Known::of(moved.legs.iter().map(|leg| Leg {
                    debit: leg.credit,
                    credit: leg.debit,
                    moved: leg.moved,
                    held: 0,
                }))
            }
            Command::Transfer(_) => panic!("not done to an earlier one"),
        }
    }

    /// Something was done at a moment.
    pub fn make(&mut self, id: Uuid, known: Known, reference: &str, at: DateTime<Utc>, to: Option<Uuid>) {
        for leg in &known.legs {
            self.enter(leg.debit, leg.credit, (-leg.moved, leg.held), id, reference, at);
            self.enter(leg.credit, leg.debit, (leg.moved, 0), id, reference, at);
        }
        match to {
            None => self.created.push(id),
            Some(original) => self.known.get_mut(&original).unwrap().moved_by = Some(id),
        }
        self.known.insert(id, known);
    }

    fn enter(
        &mut self,
        account: i64,
        counterparty: i64,
        (amount, held): (i64, i64),
        id: Uuid,
        reference: &str,
        at: DateTime<Utc>,
    ) {
        let entries = self.accounts.entry(account).or_default();
        let (posted, was_held) = entries
            .last()
            .map_or((0, 0), |last| (last.posted_after, last.held_after));
        entries.push(Seen {
            position: i64::try_from(entries.len()).unwrap() + 1,
            id,
            amount,
            held,
            posted_after: posted + amount,
            held_after: was_held + held,
            counterparty,
            reference: reference.to_owned(),
            at,
        });
    }

    pub fn entries(&self, account: i64) -> &[Seen] {
        self.accounts.get(&account).map_or(&[], Vec::as_slice)
    }

    /// Position, posted and held at a moment.
    pub fn balance(&self, account: i64, at: DateTime<Utc>) -> (i64, i64, i64) {
        let last = self.entries(account).iter().rev().find(|seen| seen.at <= at);
        last.map_or((0, 0, 0), |last| {
            (last.position, last.posted_after, last.held_after)
        })
    }

    pub fn between(&self, account: i64, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Vec<Seen> {
        let entries = self.entries(account).iter();
        entries
            .filter(|seen| from.is_none_or(|from| seen.at >= from) && to.is_none_or(|to| seen.at < to))
            .cloned()
            .collect()
    }
}
