//! Posting: what a transfer does to its two accounts.

use super::money::{Amount, Currency, MAX_MINOR};

/// An account as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account's number.
    pub id: i64,
    /// The sum of all posted legs, in minor units.
    pub posted: i64,
    /// What is held back for pending transfers, in minor units.
    pub held: i64,
    /// What the account must keep, in minor units; negative for an overdraft.
    pub floor: i64,
    /// The account's currency.
    pub currency: Currency,
}

impl Account {
    /// What can be spent, in minor units: posted less held less the floor.
    pub fn available(&self) -> i64 {
        self.posted.saturating_sub(self.held).saturating_sub(self.floor)
    }
}

/// One leg of a transfer: by how much an account changes, and what it holds afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The account's number.
    pub account_id: i64,
    /// The change in minor units: negative for the debit.
    pub amount: i64,
    /// The posted balance afterwards, in minor units.
    pub balance_after: i64,
}

/// Why a transfer cannot be posted. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The paying account has less available than the amount.
    InsufficientBalance,
    /// The accounts, or the account and the transfer, have different currencies.
    CurrencyMismatch,
    /// A balance would exceed what can be kept exactly.
    BalanceOverflow,
}

/// Posts a transfer: the debit and the credit, which sum to zero.
///
/// `currency` is what the client named; `None` takes the paying account's.
pub fn post(
    debit: &Account,
    credit: &Account,
    amount: Amount,
    currency: Option<Currency>,
) -> Result<[Leg; 2], Refusal> {
    if debit.currency != credit.currency || currency.is_some_and(|named| named != debit.currency) {
        return Err(Refusal::CurrencyMismatch);
    }
    let minor = amount.minor();
    if debit.available() < minor {
        return Err(Refusal::InsufficientBalance);
    }
    let debited = leg(debit, -minor)?;
    let credited = leg(credit, minor)?;
    Ok([debited, credited])
}

fn leg(account: &Account, amount: i64) -> Result<Leg, Refusal> {
    let balance_after = account
        .posted
        .checked_add(amount)
        .ok_or(Refusal::BalanceOverflow)?;
    if balance_after.abs() > MAX_MINOR {
        return Err(Refusal::BalanceOverflow);
    }
    Ok(Leg {
        account_id: account.id,
        amount,
        balance_after,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(id: i64, posted: i64, held: i64, floor: i64) -> Account {
        let Some(currency) = Currency::from_code("USD") else {
            panic!("USD is a currency")
        };
        Account {
            id,
            posted,
            held,
            floor,
            currency,
        }
    }

    fn amount(minor: i64) -> Amount {
        Amount::new(minor).unwrap()
    }

    #[test]
    fn the_whole_available_balance_can_be_spent_and_not_a_cent_more() {
        let (alice, bob) = (account(1, 1_000, 100, -50), account(2, 0, 0, 0));
        assert_eq!(alice.available(), 950);
        assert!(post(&alice, &bob, amount(950), None).is_ok());
        assert_eq!(
            post(&alice, &bob, amount(951), None),
            Err(Refusal::InsufficientBalance)
        );
    }

    #[test]
    fn currencies_are_not_mixed() {
        let (alice, mut bob) = (account(1, 1_000, 0, 0), account(2, 0, 0, 0));
        let euro = Currency::from_code("EUR").unwrap();
        assert_eq!(
            post(&alice, &bob, amount(1), Some(euro)),
            Err(Refusal::CurrencyMismatch)
        );
        bob.currency = euro;
        assert_eq!(
            post(&alice, &bob, amount(1), None),
            Err(Refusal::CurrencyMismatch)
        );
    }

    #[test]
    fn a_balance_stays_exact() {
        let (alice, bob) = (account(1, 1_000, 0, 0), account(2, MAX_MINOR, 0, 0));
        assert_eq!(post(&alice, &bob, amount(1), None), Err(Refusal::BalanceOverflow));
    }

    proptest! {
        #[test]
        fn money_is_conserved_and_the_floor_holds(
            posted in -MAX_MINOR..=MAX_MINOR,
            held in 0..=MAX_MINOR,
            floor in -MAX_MINOR..=MAX_MINOR,
            other in -MAX_MINOR..=MAX_MINOR,
            minor in 1..=MAX_MINOR,
        ) {
            let (alice, bob) = (account(1, posted, held, floor), account(2, other, 0, i64::MIN / 4));
            if let Ok([debit, credit]) = post(&alice, &bob, amount(minor), None) {
                prop_assert_eq!(debit.amount + credit.amount, 0);
                prop_assert!(debit.balance_after - held >= floor);
                prop_assert_eq!(debit.balance_after, posted - minor);
                prop_assert_eq!(credit.balance_after, other + minor);
            }
        }
    }
}
