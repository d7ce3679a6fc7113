//! What the clients ask for, in the words of the contract.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::transfer::v1::{
    CreateTransferRequest, DepositRequest, PostTransferRequest, ReverseTransferRequest, Split,
    TransferAction, VoidTransferRequest, WithdrawRequest, transfer_action::Action,
};
use rpc::Caller;
use uuid::Uuid;

/// An account that the clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: i64,
    pub user: i64,
    pub main: bool,
    pub currency: &'static str,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    User(i64),
    Operator,
}

impl By {
    pub fn caller(self) -> Caller {
        let (user_id, operator) = match self {
            Self::User(user) => (user, false),
            Self::Operator => (1, true),
        };
        Caller::User {
            user_id,
            operator,
            session: None,
        }
    }
}

/// Whether a transfer is pending first, and until when; in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    No,
    Usual,
    Until(i64),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Move {
        from: Account,
        to: Vec<(Account, i64)>,
        hold: Hold,
        note: String,
    },
    Deposit {
        to: Account,
        amount: i64,
    },
    Withdraw {
        from: Account,
        amount: i64,
    },
    /// An amount of 0 is all.
    Post {
        pending: Uuid,
        amount: i64,
    },
    Void {
        pending: Uuid,
    },
    Reverse {
        original: Uuid,
    },
}

/// Something that a client asks for.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: Uuid,
    pub by: By,
    pub what: What,
}

/// An order as it is sent.
pub enum Message {
    Action(Action),
    Deposit(DepositRequest),
    Withdraw(WithdrawRequest),
}

impl Order {
    pub fn new(by: By, what: What) -> Self {
        let id = Uuid::new_v4();
        Self { id, by, what }
    }

    /// What people would call it.
    pub fn kind(&self) -> &'static str {
        match &self.what {
            What::Move { to, hold, .. } => match (to.len(), hold) {
                (1, Hold::No) => "transfer",
                (1, _) => "pending",
                (_, Hold::No) => "split",
                _ => "pending split",
            },
            What::Deposit { .. } => "deposit",
            What::Withdraw { .. } => "withdrawal",
            What::Post { amount: 0, .. } => "post",
            What::Post { .. } => "post a part",
            What::Void { .. } => "void",
            What::Reverse { .. } => "reversal",
        }
    }

    /// Whether it is a pending transfer whose time is over.
    pub fn is_over(&self) -> bool {
        matches!(&self.what, What::Move { hold: Hold::Until(end), .. } if *end <= now())
    }

    pub fn message(&self, dry_run: bool) -> Message {
        let transfer_id = self.id.to_string();
        Message::Action(match &self.what {
            What::Move { .. } => Action::Create(CreateTransferRequest {
                transfer_id,
                dry_run,
                ..self.transfer()
            }),
            What::Deposit { to, amount } => {
                return Message::Deposit(DepositRequest {
                    to_account_id: to.id,
                    amount: *amount,
                    currency: to.currency.to_owned(),
                    transfer_id,
                    dry_run,
                    ..DepositRequest::default()
                });
            }
            What::Withdraw { from, amount } => {
                return Message::Withdraw(WithdrawRequest {
                    from_account_id: from.id,
                    amount: *amount,
                    transfer_id,
                    dry_run,
                    ..WithdrawRequest::default()
                });
            }
            What::Post { pending, amount } => Action::Post(PostTransferRequest {
                pending_id: pending.to_string(),
                amount: *amount,
                transfer_id,
                dry_run,
            }),
            What::Void { pending } => Action::Void(VoidTransferRequest {
                pending_id: pending.to_string(),
                transfer_id,
                dry_run,
            }),
            What::Reverse { original } => Action::Reverse(ReverseTransferRequest {
                original_id: original.to_string(),
                transfer_id,
                description: String::new(),
                dry_run,
            }),
        })
    }

    /// The order as an action of a batch or stream; deposits and withdrawals are none.
    pub fn action(&self, linked: bool) -> Option<TransferAction> {
        match self.message(false) {
            Message::Action(action) => Some(TransferAction {
                action: Some(action),
                linked,
            }),
            Message::Deposit(_) | Message::Withdraw(_) => None,
        }
    }

    /// The transfer without an id.
    pub fn transfer(&self) -> CreateTransferRequest {
        let What::Move { from, to, hold, note } = &self.what else {
            return CreateTransferRequest::default();
        };
        let mut request = CreateTransferRequest {
            pending: *hold != Hold::No,
            reference: note.clone(),
            ..CreateTransferRequest::default()
        };
        if let Hold::Until(micros) = hold {
            request.expires_at = Some(moment(*micros).into());
        }
        if !note.is_empty() {
            request.description = format!("about {note}");
            request.metadata = HashMap::from([("note".to_owned(), note.clone())]);
        }
        // main accounts are called by their users, as most clients do it
        if from.main {
            request.from_user_id = from.user;
        } else {
            request.from_account_id = from.id;
        }
        match to.as_slice() {
            [(one, amount)] => {
                request.amount = *amount;
                if one.main {
                    request.to_user_id = one.user;
                } else {
                    request.to_account_id = one.id;
                }
            }
            many => {
                request.splits = many
                    .iter()
                    .map(|(payee, amount)| Split {
                        to_user_id: if payee.main { payee.user } else { 0 },
                        to_account_id: if payee.main { 0 } else { payee.id },
                        amount: *amount,
                    })
                    .collect();
            }
        }
        request
    }
}

/// Now, in microseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub fn moment(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs())
}
