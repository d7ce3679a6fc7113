//! Accounts: what they hold, what they may do.

use chrono::{DateTime, Utc};

use super::money::{Currency, MAX_MINOR};

/// What an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The account that is meant by a user's number.
    Main,
    /// A further account of a user.
    Additional,
    /// The bank's side of all money: deposits come from it, withdrawals go to it.
    Treasury,
    /// Where fees go.
    Fees,
}

impl Role {
    /// Whether the account is the bank's own: only operators see and use it.
    pub fn is_system(self) -> bool {
        match self {
            Self::Treasury | Self::Fees => true,
            Self::Main | Self::Additional => false,
        }
    }
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It pays and is paid.
    Open,
    /// Neither, for the time being. Pending transfers may be given back.
    Frozen,
    /// Neither, and it is empty.
    Closed,
}

/// An account as the rules see it. All figures are minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account's number.
    pub id: i64,
    /// Its user; none for an account of the bank.
    pub owner: Option<i64>,
    /// What it is for.
    pub role: Role,
    /// What it may do.
    pub status: Status,
    /// Its currency.
    pub currency: Currency,
    /// The sum of all posted entries.
    pub posted: i64,
    /// What is held back for pending transfers from it.
    pub held: i64,
    /// What pending transfers to it may still bring.
    pub incoming: i64,
    /// What it must keep; negative for an overdraft.
    pub floor: i64,
    /// What it may hold.
    pub ceiling: i64,
    /// How often its state or limits were changed.
    pub revision: i64,
    /// The number of its last entry.
    pub position: i64,
    /// The time of its last entry.
    pub last_at: DateTime<Utc>,
}

/// Why an account cannot be changed as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// There is money on it, or on its way.
    NotEmpty,
    /// It is frozen.
    Frozen,
    /// It is closed.
    Closed,
    /// The minimum would be above the maximum.
    LimitsCrossed,
}

/// What is asked of an account's state or limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// New limits; absent ones stay.
    Limits {
        /// What it must keep.
        floor: Option<i64>,
        /// What it may hold.
        ceiling: Option<i64>,
    },
    /// Stop paying and being paid.
    Freeze,
    /// The end of a freeze.
    Unfreeze,
    /// The end.
    Close,
    /// A closed account is used again.
    Reopen,
}

impl Account {
    /// What can be spent: posted less held less the floor.
    pub fn available(&self) -> i64 {
        // the three are within ±2^54: no overflow
        self.posted - self.held - self.floor
    }

    /// Whether it has so much to spend, and stays above what can be kept exactly.
    pub fn can_pay(&self, amount: i64) -> bool {
        self.available() >= amount && (self.posted - self.held).saturating_sub(amount) >= -MAX_MINOR
    }

    /// How much more may come in before the ceiling, when everything that is pending comes.
    pub fn room(&self) -> i64 {
        self.ceiling.min(MAX_MINOR) - self.posted - self.incoming
    }

    /// Changes state or limits; whether anything changed.
    pub fn change(&mut self, change: Change) -> Result<bool, ChangeRefusal> {
        let before = (self.status, self.floor, self.ceiling);
        match (change, self.status) {
            (Change::Limits { floor, ceiling }, _) => {
                let (floor, ceiling) = (floor.unwrap_or(self.floor), ceiling.unwrap_or(self.ceiling));
                if floor > ceiling {
                    return Err(ChangeRefusal::LimitsCrossed);
                }
                (self.floor, self.ceiling) = (floor, ceiling);
            }
            (Change::Freeze | Change::Unfreeze, Status::Closed) => return Err(ChangeRefusal::Closed),
            (Change::Freeze, Status::Open | Status::Frozen) => self.status = Status::Frozen,
            (Change::Close, Status::Frozen) => return Err(ChangeRefusal::Frozen),
            (Change::Close, Status::Open) => {
                if (self.posted, self.held, self.incoming) != (0, 0, 0) {
                    return Err(ChangeRefusal::NotEmpty);
                }
                self.status = Status::Closed;
            }
            (Change::Unfreeze, Status::Open | Status::Frozen) | (Change::Reopen, Status::Closed) => {
                self.status = Status::Open;
            }
            (Change::Close, Status::Closed) | (Change::Reopen, Status::Open | Status::Frozen) => {}
        }
        let changed = before != (self.status, self.floor, self.ceiling);
        self.revision += i64::from(changed);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            id: 1,
            owner: Some(1),
            role: Role::Main,
            status: Status::Open,
            currency: Currency::from_code("USD").unwrap(),
            posted: 0,
            held: 0,
            incoming: 0,
            floor: 0,
            ceiling: MAX_MINOR,
            revision: 0,
            position: 0,
            last_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_an_empty_open_account_is_closed() {
        for (posted, held, incoming) in [(1, 0, 0), (-1, 0, 0), (0, 0, 1)] {
            let mut full = Account {
                posted,
                held,
                incoming,
                ..account()
            };
            assert_eq!(full.change(Change::Close), Err(ChangeRefusal::NotEmpty));
        }
        let mut empty = account();
        assert_eq!(empty.change(Change::Freeze), Ok(true));
        assert_eq!(empty.change(Change::Close), Err(ChangeRefusal::Frozen));
        assert_eq!(empty.change(Change::Unfreeze), Ok(true));
        assert_eq!(empty.change(Change::Close), Ok(true));
        assert_eq!(empty.change(Change::Close), Ok(false));
        assert_eq!(empty.change(Change::Freeze), Err(ChangeRefusal::Closed));
        assert_eq!(empty.change(Change::Reopen), Ok(true));
        assert_eq!(empty.status, Status::Open);
    }

    #[test]
    fn limits_do_not_cross() {
        let mut limited = account();
        let limits = |floor, ceiling| Change::Limits { floor, ceiling };
        assert_eq!(limited.change(limits(Some(-100), None)), Ok(true));
        assert_eq!(limited.available(), 100);
        assert_eq!(
            limited.change(limits(None, Some(-101))),
            Err(ChangeRefusal::LimitsCrossed)
        );
        assert_eq!((limited.floor, limited.ceiling), (-100, MAX_MINOR));
    }
}
