//! What the accounts were behind the last commits of this replica, so that a batch need not ask before it writes.
//!
//! It is a guess: another replica may have changed them since. [`super::Lane::propose`] writes only when it is right.

use std::collections::HashMap;

use crate::domain::account::{Account, Status};

/// Accounts that are remembered at most; one takes some 150 bytes.
const REMEMBERED: usize = 100_000;
/// For how many batches nothing is guessed after guesses were wrong again and again: where replicas share accounts, asking
/// first is cheaper than writing twice.
const LONGEST_PAUSE: u32 = 64;

/// Remembers accounts, and how good that was lately.
#[derive(Debug, Default)]
pub(super) struct Memory {
    accounts: HashMap<i64, Account>,
    /// Batches that do not guess, from now on.
    pause: u32,
    /// The length of the next pause.
    next_pause: u32,
}

impl Memory {
    /// The accounts of these numbers, in their order; none when one is not known, or when the guess would be a bad one.
    pub fn recall(&mut self, ids: &[i64]) -> Option<Vec<Account>> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        ids.iter()
            .map(|id| {
                self.accounts
                    .get(id)
                    .filter(|account| account.status == Status::Open)
            })
            .map(Option::<&Account>::cloned)
            .collect()
    }

    /// Keeps what a commit has left.
    pub fn keep<'a>(&mut self, accounts: impl Iterator<Item = &'a Account>) {
        for account in accounts {
            if self.accounts.len() >= REMEMBERED {
                self.accounts.clear();
            }
            match self.accounts.get_mut(&account.id) {
                Some(known) => known.clone_from(account),
                None => {
                    self.accounts.insert(account.id, account.clone());
                }
            }
        }
    }

    /// A guess was right.
    pub fn was_right(&mut self) {
        self.next_pause = 0;
    }

    /// These accounts are to be read again.
    pub fn forget(&mut self, ids: &[i64]) {
        for id in ids {
            self.accounts.remove(id);
        }
    }

    /// A guess about these accounts was wrong.
    pub fn was_wrong(&mut self, ids: &[i64]) {
        self.forget(ids);
        self.next_pause = (self.next_pause * 2).clamp(1, LONGEST_PAUSE);
        self.pause = self.next_pause;
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::{
        account::Role,
        money::{Currency, MAX_MINOR},
    };

    fn account(id: i64, status: Status) -> Account {
        Account {
            id,
            owner: Some(id),
            role: Role::Main,
            status,
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
    fn all_accounts_or_none_are_recalled() {
        let mut memory = Memory::default();
        let accounts = [
            account(1, Status::Open),
            account(2, Status::Open),
            account(3, Status::Frozen),
        ];
        memory.keep(accounts.iter());
        assert_eq!(memory.recall(&[1, 2]).unwrap(), accounts[..2]);
        assert!(memory.recall(&[1, 4]).is_none(), "one is unknown");
        assert!(
            memory.recall(&[1, 3]).is_none(),
            "what a frozen account refuses is to be certain"
        );
    }

    #[test]
    fn wrong_guesses_become_rare() {
        let mut memory = Memory::default();
        let accounts = [account(1, Status::Open)];
        let mut guesses = 0;
        for _ in 0..1_000 {
            memory.keep(accounts.iter());
            if memory.recall(&[1]).is_some() {
                guesses += 1;
                memory.was_wrong(&[1]);
            }
        }
        assert!((10..30).contains(&guesses), "{guesses}");
        memory.keep(accounts.iter());
        while memory.recall(&[1]).is_none() {}
        memory.was_right();
        assert!(memory.recall(&[1]).is_some());
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let mut memory = Memory::default();
        for id in 0..250_001 {
            memory.keep([account(id, Status::Open)].iter());
            assert!(memory.accounts.len() <= REMEMBERED);
        }
    }
}
