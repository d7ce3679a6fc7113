//! When a planned transfer is due, and whether it can be planned at all.

use chrono::{DateTime, Months, TimeDelta, Utc};

use super::{
    account::{Account, Status},
    books::may_pay_from,
    command::{Authority, NewTransfer, Refusal},
};

/// The largest step, in units.
pub const MAX_EVERY: u32 = 100_000;
/// The shortest step in seconds.
pub const MIN_SECONDS: u32 = 60;
/// The most occurrences that can be named.
pub const MAX_COUNT: u32 = 1_000_000;
/// The end of the year 9999: later times cannot be written in RFC 3339.
const LAST_SECOND: i64 = 253_402_300_799;

/// The step of a recurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Second,
    /// Days of 24 hours.
    Day,
    /// Weeks of 7 such days.
    Week,
    /// Months in UTC: on the day of the first occurrence, or the last day of a shorter month.
    Month,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Second, Self::Day, Self::Week, Self::Month];

    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The unit of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }

    /// None for a month, which has no fixed length.
    fn seconds(self) -> Option<i64> {
        match self {
            Self::Second => Some(1),
            Self::Day => Some(86_400),
            Self::Week => Some(7 * 86_400),
            Self::Month => None,
        }
    }
}

/// How something repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recurrence {
    /// The unit of the step.
    pub unit: Unit,
    /// The step in units.
    pub every: u32,
    /// How many occurrences in all; none is without an end.
    pub count: Option<u32>,
    /// No occurrence after this moment.
    pub until: Option<DateTime<Utc>>,
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The first occurrence.
    pub first: DateTime<Utc>,
    /// How it repeats; none is once.
    pub recurrence: Option<Recurrence>,
}

impl Timing {
    /// When the occurrence of a number, from 1, is due; none when there is no such occurrence.
    ///
    /// Every occurrence is reckoned from the first one, not from the one before: after the 28th of February comes the 31st
    /// of March when the first was on a 31st.
    pub fn at(&self, number: i64) -> Option<DateTime<Utc>> {
        let steps = number.checked_sub(1).filter(|steps| *steps >= 0)?;
        let Some(recurrence) = self.recurrence else {
            return (steps == 0).then_some(self.first);
        };
        if recurrence.count.is_some_and(|count| number > i64::from(count)) {
            return None;
        }
        let units = steps.checked_mul(i64::from(recurrence.every))?;
        let at = match recurrence.unit.seconds() {
            Some(seconds) => {
                let distance = TimeDelta::try_seconds(units.checked_mul(seconds)?)?;
                self.first.checked_add_signed(distance)?
            }
            None => self
                .first
                .checked_add_months(Months::new(u32::try_from(units).ok()?))?,
        };
        let over = at.timestamp() > LAST_SECOND || recurrence.until.is_some_and(|until| at > until);
        (!over).then_some(at)
    }
}

/// Where a schedule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Occurrences are to come.
    Active,
    /// The last one has happened.
    Finished,
    /// Ended by its owner.
    Cancelled,
}

impl State {
    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Active, Self::Finished, Self::Cancelled]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// Refuses what cannot become right by waiting: whose the accounts are, their currencies, and that they are not closed.
/// Balances, limits and a freeze may be different when the time comes.
///
/// # Errors
/// As the transfer itself would be refused.
pub fn check(transfer: &NewTransfer, accounts: &[Account]) -> Result<(), Refusal> {
    let find = |id: i64| {
        accounts
            .iter()
            .find(|account| account.id == id)
            .ok_or(Refusal::AccountNotFound)
    };
    let debit = find(transfer.debit)?;
    may_pay_from(debit, transfer.by)?;
    transfer.total()?;
    if transfer.currency.is_some_and(|named| named != debit.currency) {
        return Err(Refusal::CurrencyMismatch);
    }
    let open = |account: &Account| match account.status {
        Status::Open | Status::Frozen => Ok(()),
        Status::Closed => Err(Refusal::AccountClosed),
    };
    open(debit)?;
    for credit in &transfer.credits {
        if credit.account == transfer.debit {
            return Err(Refusal::Malformed("to"));
        }
        let account = find(credit.account)?;
        if account.role.is_system() && transfer.by != Authority::Bank {
            return Err(Refusal::AccountNotFound);
        }
        if account.currency != debit.currency {
            return Err(Refusal::CurrencyMismatch);
        }
        open(account)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
