//! What a client asks for, before users are looked up.

use std::sync::Arc;

use uuid::Uuid;

use crate::domain::{
    command::{Authority, Hold, Note},
    money::{Amount, Currency},
};

/// The account of one side of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The main account of a user.
    User(i64),
    /// The account of a number.
    Account(i64),
    /// The bank's treasury in the currency of the other side.
    Treasury,
}

/// A transfer that a client asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// The id that the client made: the same id is the same transfer, for ever.
    pub id: Uuid,
    /// Who wants it.
    pub by: Authority,
    /// Who pays.
    pub from: Party,
    /// Who is paid, and how much.
    pub to: Vec<(Party, Amount)>,
    /// In which currency; none takes the paying account's.
    pub currency: Option<Currency>,
    /// Hold instead of post.
    pub hold: Option<Hold>,
    /// What is said about it.
    pub note: Option<Arc<Note>>,
}

/// Something that a client asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// A transfer, whose users are to be looked up.
    Transfer(Order),
    /// A command that names no users.
    Direct(crate::domain::command::Command),
}

/// An action of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    /// What to do.
    pub action: Action,
    /// Tied to the next one.
    pub linked: bool,
}
