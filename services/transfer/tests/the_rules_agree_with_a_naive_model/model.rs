//! The rules once more, written down from the contract (`proto/kontor/transfer/v1`) and not from `domain/`: plain lists, and
//! every figure counted again from the whole history each time. Slow, and meant to be seen to be right.

use chrono::{DateTime, Utc};
use transfer::domain::{
    account::{Account, Change, ChangeRefusal, Role, Status},
    books::Done,
    command::{Command, Note, Refusal},
    journal::Kind,
    money::Currency,
};
use uuid::Uuid;

use super::decisions::Decision;

/// What an account is, without its figures.
#[derive(Clone, Debug)]
pub struct Holder {
    pub id: i64,
    pub owner: Option<i64>,
    pub system: bool,
    pub currency: Currency,
    pub status: Status,
    pub floor: i64,
    pub ceiling: i64,
}

/// Money moved or held between two accounts, or no longer held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub from: i64,
    pub to: i64,
    pub moved: i64,
    pub held: i64,
}

/// Something that was done.
#[derive(Clone, Debug)]
pub struct Deed {
    pub id: Uuid,
    pub kind: Kind,
    pub moves: Vec<Move>,
    pub currency: Currency,
    pub at: DateTime<Utc>,
    pub original: Option<Uuid>,
    pub until: Option<DateTime<Utc>>,
    pub note: Note,
}

/// All accounts and all that was ever done.
#[derive(Clone, Debug)]
pub struct Model {
    pub holders: Vec<Holder>,
    pub deeds: Vec<Deed>,
}

type Outcome = Result<Done, Refusal>;

impl Model {
    pub fn new(accounts: &[Account]) -> Self {
        let holders = accounts.iter().map(|account| Holder {
            id: account.id,
            owner: account.owner,
            system: matches!(account.role, Role::Treasury | Role::Fees),
            currency: account.currency,
            status: account.status,
            floor: account.floor,
            ceiling: account.ceiling,
        });
        Self {
            holders: holders.collect(),
            deeds: Vec::new(),
        }
    }

    pub fn posted(&self, account: i64) -> i64 {
        let moves = || self.deeds.iter().flat_map(|deed| &deed.moves);
        let came: i64 = moves().filter(|m| m.to == account).map(|m| m.moved).sum();
        let went: i64 = moves().filter(|m| m.from == account).map(|m| m.moved).sum();
        came - went
    }

    pub fn held(&self, account: i64) -> i64 {
        let open = self.open_pendings();
        open.filter(|m| m.from == account).map(|m| m.held).sum()
    }

    pub fn incoming(&self, account: i64) -> i64 {
        let open = self.open_pendings();
        open.filter(|m| m.to == account).map(|m| m.held).sum()
    }

    pub fn entries(&self, account: i64) -> i64 {
        let moves = self.deeds.iter().flat_map(|deed| &deed.moves);
        let touching = moves.filter(|m| m.from == account || m.to == account);
        touching.map(|_| 1).sum()
    }

    fn open_pendings(&self) -> impl Iterator<Item = &Move> {
        let open = |deed: &&Deed| deed.kind == Kind::Pending && self.end_of(deed.id).is_none();
        self.deeds.iter().filter(open).flat_map(|deed| &deed.moves)
    }

    pub fn end_of(&self, pending: Uuid) -> Option<&Deed> {
        let ends = |deed: &&Deed| {
            deed.original == Some(pending) && matches!(deed.kind, Kind::Post | Kind::Void | Kind::Expire)
        };
        self.deeds.iter().find(ends)
    }

    pub fn reversal_of(&self, original: Uuid) -> Option<&Deed> {
        let reverses = |deed: &&Deed| deed.original == Some(original) && deed.kind == Kind::Reversal;
        self.deeds.iter().find(reverses)
    }

    pub fn deed(&self, id: Uuid) -> Option<&Deed> {
        self.deeds.iter().find(|deed| deed.id == id)
    }

    pub fn holder(&self, id: i64) -> Result<&Holder, Refusal> {
        self.holders
            .iter()
            .find(|holder| holder.id == id)
            .ok_or(Refusal::AccountNotFound)
    }

    pub fn owns(&self, user: i64, account: i64) -> bool {
        self.holder(account)
            .is_ok_and(|holder| holder.owner == Some(user))
    }

    pub fn apply(&mut self, command: &Command, at: DateTime<Utc>) -> Outcome {
        match self.decide(command, at)? {
            Decision::Again(first) => Ok(Done {
                at: first,
                replayed: true,
            }),
            Decision::New(deed) => {
                self.deeds.push(deed);
                Ok(Done { at, replayed: false })
            }
        }
    }

    /// All or nothing; who repeats what was done before the chain hears so, unless it comes after the one that failed.
    pub fn apply_chain(&mut self, commands: &[Command], at: DateTime<Utc>) -> Vec<Outcome> {
        let before = self.clone();
        let mut outcomes = Vec::new();
        for command in commands {
            let outcome = self.apply(command, at);
            outcomes.push(outcome);
            if outcome.is_err() {
                break;
            }
        }
        let Some(failed) = outcomes.iter().position(Result::is_err) else {
            return outcomes;
        };
        *self = before;
        outcomes.resize(commands.len(), Err(Refusal::LinkedFailed));
        for (outcome, command) in outcomes.iter_mut().zip(commands).take(failed) {
            if self.deed(command.id()).is_none() {
                *outcome = Err(Refusal::LinkedFailed);
            }
        }
        outcomes
    }

    pub fn change(&mut self, account: i64, change: Change) -> Result<bool, ChangeRefusal> {
        let empty = (self.posted(account), self.held(account), self.incoming(account)) == (0, 0, 0);
        let holder = self
            .holders
            .iter_mut()
            .find(|holder| holder.id == account)
            .unwrap();
        let before = holder.clone();
        match change {
            Change::Limits { floor, ceiling } => {
                holder.floor = floor.unwrap_or(before.floor);
                holder.ceiling = ceiling.unwrap_or(before.ceiling);
                if holder.floor > holder.ceiling {
                    *holder = before;
                    return Err(ChangeRefusal::LimitsCrossed);
                }
            }
            Change::Freeze | Change::Unfreeze if before.status == Status::Closed => {
                return Err(ChangeRefusal::Closed);
            }
            Change::Freeze => holder.status = Status::Frozen,
            Change::Unfreeze => holder.status = Status::Open,
            Change::Close if before.status == Status::Frozen => return Err(ChangeRefusal::Frozen),
            Change::Close if !empty => return Err(ChangeRefusal::NotEmpty),
            Change::Close => holder.status = Status::Closed,
            Change::Reopen if before.status == Status::Closed => holder.status = Status::Open,
            Change::Reopen => {}
        }
        Ok((before.status, before.floor, before.ceiling) != (holder.status, holder.floor, holder.ceiling))
    }
}
