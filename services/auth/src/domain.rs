//! The rules of sign-in, without any server behind them.

pub mod email;
pub mod password;
pub mod session;

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A customer: own money, own messages.
    User,
    /// Staff of the bank.
    Operator,
}

impl Role {
    /// The name in the database and in Redis.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
        }
    }

    /// The role of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Operator]
            .into_iter()
            .find(|role| role.name() == name)
    }
}
