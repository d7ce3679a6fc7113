//! Bytes to a history of the ledger: every text of bytes is one, so that random bytes, and those that a fuzzer finds, all
//! tell something. An exhausted text goes on with zeroes, which mean the plainest choice.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use transfer::domain::{
    account::{Account, Change, Role, Status},
    command::{Authority, Command, Credit, Hold, NewTransfer, Note},
    money::{Amount, Currency, MAX_MINOR},
};
use uuid::Uuid;

/// The accounts and what was asked of them.
#[derive(Debug)]
pub struct History {
    pub accounts: Vec<Account>,
    pub batches: Vec<Batch>,
}

/// What one commit does.
#[derive(Debug)]
pub struct Batch {
    pub at: DateTime<Utc>,
    /// Changes of accounts before it.
    pub changes: Vec<(i64, Change)>,
    /// Chains; most have one member.
    pub chains: Vec<Vec<Command>>,
}

const TREASURY: i64 = 1;
const STRANGER: i64 = 9;
/// Number, owner, role and currency.
const ACCOUNTS: [(i64, Option<i64>, Role, &str); 12] = [
    (TREASURY, None, Role::Treasury, "USD"),
    (10, Some(1), Role::Main, "USD"),
    (20, Some(2), Role::Main, "USD"),
    (30, Some(3), Role::Main, "USD"),
    (11, Some(1), Role::Additional, "USD"),
    (21, Some(2), Role::Additional, "USD"),
    (40, Some(4), Role::Main, "USD"),
    (3, None, Role::Fees, "USD"),
    (2, None, Role::Treasury, "EUR"),
    (12, Some(1), Role::Additional, "EUR"),
    (50, Some(5), Role::Main, "EUR"),
    (60, Some(6), Role::Main, "JPY"),
];
/// Most commands are between these: what shares no currency has little to tell.
const OFTEN: [i64; 6] = [10, 20, 30, 11, 21, 40];
/// An account that nobody has.
const NOWHERE: i64 = 99;

struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, end: u8) -> u8 {
        self.0.next().map_or(0, |byte| byte % end)
    }

    /// True in so many of 256 cases.
    fn rarely(&mut self, cases: u8) -> bool {
        self.0.next().is_some_and(|byte| *byte >= 255 - cases)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.below(u8::try_from(all.len()).unwrap()))]
    }

    fn are_left(&self) -> bool {
        self.0.len() > 0
    }

    fn amount(&mut self) -> Amount {
        let minor = match self.below(20) {
            0..=14 => i64::from(self.below(100)) + 1,
            15..=16 => 1_000,
            17 => MAX_MINOR / 2,
            18 => MAX_MINOR - i64::from(self.below(200)),
            _ => MAX_MINOR,
        };
        Amount::new(minor).unwrap()
    }

    fn account(&mut self) -> i64 {
        if self.rarely(3) {
            return NOWHERE;
        }
        match self.below(4) {
            0..=2 => self.of(&OFTEN),
            _ => ACCOUNTS[usize::from(self.below(12))].0,
        }
    }
}

fn owner(account: i64) -> Option<i64> {
    ACCOUNTS.iter().find(|(id, ..)| *id == account)?.1
}

/// The history that bytes tell.
pub fn read(bytes: &[u8]) -> History {
    let mut choices = Choices(bytes.iter());
    let accounts = ACCOUNTS.map(|account| opened(&mut choices, account)).to_vec();
    let mut teller = Teller {
        choices,
        told: Vec::new(),
        at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
    };
    let mut batches = vec![teller.deposits()];
    while teller.choices.are_left() {
        batches.push(teller.batch());
    }
    History { accounts, batches }
}

fn opened(choices: &mut Choices<'_>, (id, owner, role, currency): (i64, Option<i64>, Role, &str)) -> Account {
    let (floor, ceiling) = match (role, choices.below(8)) {
        (Role::Treasury, _) | (_, 5) => (-MAX_MINOR, MAX_MINOR),
        (_, 0..=3) => (0, MAX_MINOR),
        (_, 4) => (-200, MAX_MINOR),
        (_, 6) => (0, 700),
        (_, _) => (20, MAX_MINOR - 1),
    };
    Account {
        id,
        owner,
        role,
        status: Status::Open,
        currency: Currency::from_code(currency).unwrap(),
        posted: 0,
        held: 0,
        incoming: 0,
        floor,
        ceiling,
        revision: 0,
        position: 0,
        last_at: DateTime::UNIX_EPOCH,
    }
}

struct Teller<'a> {
    choices: Choices<'a>,
    told: Vec<Command>,
    at: DateTime<Utc>,
}

impl Teller<'_> {
    /// Most accounts begin with some money.
    fn deposits(&mut self) -> Batch {
        let at = self.at;
        let chains = ACCOUNTS
            .iter()
            .filter(|(_, owner, ..)| owner.is_some())
            .map(|(account, _, _, currency)| {
                let id = self.fresh();
                let deposit = Command::Transfer(NewTransfer {
                    id,
                    by: Authority::Bank,
                    debit: if *currency == "EUR" { 2 } else { TREASURY },
                    credits: vec![Credit {
                        account: *account,
                        amount: Amount::new(500).unwrap(),
                    }],
                    currency: None,
                    hold: None,
                    note: None,
                });
                self.told.push(deposit.clone());
                vec![deposit]
            })
            .collect();
        Batch {
            at,
            changes: Vec::new(),
            chains,
        }
    }

    fn batch(&mut self) -> Batch {
        let seconds = self.choices.of(&[0, 0, 1, 1, 2, 5]);
        self.at += TimeDelta::seconds(seconds) + TimeDelta::microseconds(1);
        let mut changes = Vec::new();
        while self.choices.rarely(40) {
            changes.push(self.change());
        }
        let chains = (0..=self.choices.below(6)).map(|_| self.chain()).collect();
        Batch {
            at: self.at,
            changes,
            chains,
        }
    }

    fn change(&mut self) -> (i64, Change) {
        let account = ACCOUNTS[usize::from(self.choices.below(12))].0;
        let change = match self.choices.below(9) {
            0..=1 => Change::Freeze,
            2..=3 => Change::Unfreeze,
            4 => Change::Close,
            5 => Change::Reopen,
            _ => Change::Limits {
                floor: self
                    .choices
                    .of(&[None, Some(0), Some(-300), Some(100), Some(-MAX_MINOR)]),
                ceiling: self
                    .choices
                    .of(&[None, Some(MAX_MINOR), Some(600), Some(-1), Some(2_000)]),
            },
        };
        (account, change)
    }

    fn chain(&mut self) -> Vec<Command> {
        let members = if self.choices.rarely(30) {
            2 + self.choices.below(3)
        } else {
            1
        };
        (0..members)
            .map(|_| {
                let command = self.command();
                self.told.push(command.clone());
                command
            })
            .collect()
    }

    fn command(&mut self) -> Command {
        let id = if self.choices.rarely(8) {
            self.earlier_id()
        } else {
            self.fresh()
        };
        match self.choices.below(20) {
            0..=6 => self.transfer(id),
            7..=9 => self.post(id),
            10..=11 => {
                let (pending, by) = self.earlier_hold();
                Command::Void { id, by, pending }
            }
            12..=13 => Command::Expire {
                id,
                pending: self.earlier_hold().0,
            },
            14..=16 => {
                let (original, by) = self.earlier();
                let note = self.note();
                Command::Reverse {
                    id,
                    by,
                    original,
                    note,
                }
            }
            _ => self.again(),
        }
    }

    fn transfer(&mut self, id: Uuid) -> Command {
        let debit = self.choices.account();
        let more = if self.choices.rarely(60) {
            1 + self.choices.below(3)
        } else {
            0
        };
        let credits = (0..=more)
            .map(|_| {
                let first = self.choices.account();
                // once more: oneself is seldom meant
                let account = if first == debit {
                    self.choices.account()
                } else {
                    first
                };
                let amount = self.choices.amount();
                Credit { account, amount }
            })
            .collect();
        let hold = (self.choices.below(2) == 1).then(|| self.hold());
        let by = match (self.choices.below(12), owner(debit)) {
            (0..=9, Some(owner)) => Authority::User(owner),
            (0..=10, _) => Authority::Bank,
            (_, _) => Authority::User(STRANGER),
        };
        let currency = self.choices.of(&["", "", "", "", "", "USD", "EUR"]);
        Command::Transfer(NewTransfer {
            id,
            by,
            debit,
            credits,
            currency: Currency::from_code(currency),
            hold,
            note: self.note(),
        })
    }

    fn hold(&mut self) -> Hold {
        Hold {
            until: self.at + TimeDelta::seconds(self.choices.of(&[3, 3, 1, 2, 6, 9, 0, -1])),
            named: self.choices.below(3) > 0,
        }
    }

    fn note(&mut self) -> Option<Arc<Note>> {
        let mut note = Note::default();
        match self.choices.below(8) {
            0..=3 => return None,
            4 => {}
            5 => note.reference = Some("invoice 1".to_owned()),
            6 => note.description = Some("for the flowers".to_owned()),
            _ => note.metadata = BTreeMap::from([("order".to_owned(), "7".to_owned())]),
        }
        Some(Arc::new(note))
    }

    fn post(&mut self, id: Uuid) -> Command {
        let (pending, by) = self.earlier_hold();
        let amount = (self.choices.below(2) == 1).then(|| self.choices.amount());
        Command::Post {
            id,
            by,
            pending,
            amount,
        }
    }

    /// Something that was asked before, once more: the same, or a little different.
    fn again(&mut self) -> Command {
        let back = usize::from(self.choices.below(16)) % self.told.len();
        let mut command = self.told[self.told.len() - 1 - back].clone();
        let change = self.choices.below(12);
        if let Command::Transfer(order) = &mut command {
            match change {
                0..=2 => {}
                3 => order.debit = self.choices.account(),
                4 => order.credits[0].account = self.choices.account(),
                5 => order.credits[0].amount = self.choices.amount(),
                6 => {
                    order.hold = if order.hold.is_some() {
                        None
                    } else {
                        Some(self.hold())
                    }
                }
                7 => order.hold = order.hold.map(|_| self.hold()),
                8 => order.currency = Currency::from_code("EUR"),
                9 => order.note = self.note(),
                10 => order.credits.truncate(1),
                _ => order.by = Authority::Bank,
            }
            return command;
        }
        match change {
            4..=5 => {
                if let Command::Post { amount, .. } = &mut command {
                    *amount = (amount.is_none() || change == 4).then(|| self.choices.amount());
                }
                command
            }
            0..=3 => command,
            6 => self.post(command.id()),
            7 => Command::Expire {
                id: command.id(),
                pending: command.original().unwrap(),
            },
            8 => Command::Void {
                id: command.id(),
                by: Authority::Bank,
                pending: command.original().unwrap(),
            },
            9 => Command::Reverse {
                id: command.id(),
                by: Authority::Bank,
                original: command.original().unwrap(),
                note: self.note(),
            },
            _ => self.transfer(command.id()),
        }
    }

    /// An earlier transfer, most often, and somebody who acts on it.
    fn earlier(&mut self) -> (Uuid, Authority) {
        self.earlier_of(|_| true)
    }

    /// An earlier transfer that was to be pending, most often.
    fn earlier_hold(&mut self) -> (Uuid, Authority) {
        if self.choices.rarely(25) {
            self.earlier()
        } else {
            self.earlier_of(|order| order.hold.is_some())
        }
    }

    fn earlier_of(&mut self, wanted: fn(&NewTransfer) -> bool) -> (Uuid, Authority) {
        let transfers = self.told.iter().rev().filter_map(|command| match command {
            Command::Transfer(order) if wanted(order) => Some(order),
            _ => None,
        });
        let transfers: Vec<_> = transfers.take(12).collect();
        if transfers.is_empty() || self.choices.rarely(4) {
            return (self.earlier_id(), Authority::Bank);
        }
        let order = transfers[usize::from(self.choices.below(12)) % transfers.len()];
        let user = match self.choices.below(8) {
            0..=2 => owner(order.credits[0].account),
            3..=4 => owner(order.debit),
            5 => Some(STRANGER),
            _ => None,
        };
        (order.id, user.map_or(Authority::Bank, Authority::User))
    }

    fn earlier_id(&mut self) -> Uuid {
        let back = usize::from(self.choices.below(32)) % self.told.len();
        self.told[self.told.len() - 1 - back].id()
    }

    /// An id that was not used; in no order, as clients make them.
    fn fresh(&mut self) -> Uuid {
        let number = self.told.len() as u128 + 1;
        Uuid::from_u128(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
    }
}
