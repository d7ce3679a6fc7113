//! The requests that are sent.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use prost::Message;
use proto::transfer::v1::{CreateTransferRequest, DepositRequest, OpenAccountRequest};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rpc::{Caller, caller::Key};
use uuid::Uuid;

use super::generator::Source;

/// Users, each with a main account; numbered from 1.
pub(super) const USERS: i64 = 10_000;
/// The user whose account is hot.
pub(super) const HOT: i64 = 1;
/// What each user has at first, in minor units: enough for any run.
const DEPOSIT: i64 = 1_000_000_000;
/// A signed caller is good for 30 s.
const RENEW: Duration = Duration::from_secs(15);

/// The signed callers of all users, renewed before they expire.
struct Callers {
    key: Key,
    signed: Vec<(Instant, Vec<u8>)>,
}

impl Callers {
    /// Signs for all users now, so that it takes no time later.
    fn new(key: Key) -> Result<Self> {
        let signed = (1..=USERS).map(|user| sign(&key, &user_caller(user)));
        Ok(Self {
            signed: signed.collect::<Result<_>>()?,
            key,
        })
    }

    fn write(&mut self, user: i64, header: &mut Vec<u8>) -> Result<()> {
        let index = usize::try_from(user - 1)?;
        let signed = self.signed.get_mut(index).context("no such user")?;
        if signed.0.elapsed() > RENEW {
            *signed = sign(&self.key, &user_caller(user))?;
        }
        header.extend_from_slice(&signed.1);
        Ok(())
    }
}

fn user_caller(user_id: i64) -> Caller {
    Caller::User {
        user_id,
        operator: false,
        session: None,
    }
}

/// Signs now; good for 30 s.
pub(super) fn sign(key: &Key, caller: &Caller) -> Result<(Instant, Vec<u8>)> {
    let value = key.sign("gateway", caller)?;
    Ok((Instant::now(), value.as_bytes().to_vec()))
}

/// Somebody who may do everything.
pub(super) fn operator() -> Caller {
    Caller::User {
        user_id: 1,
        operator: true,
        session: None,
    }
}

/// The session of a user: 43 characters, as the gateway wants them.
pub(super) fn session(user: i64) -> String {
    format!("{user:043}")
}

/// Who pays whom.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Any two users.
    Uniform,
    /// One user pays or is paid by any other.
    Hot,
}

impl Shape {
    /// Payer and payee, never the same.
    pub fn pair(self, random: &mut SmallRng) -> (i64, i64) {
        let other = random.random_range(1..USERS);
        match self {
            Self::Uniform => {
                let first = random.random_range(1..=USERS);
                (first, if other < first { other } else { other + 1 })
            }
            Self::Hot => {
                let other = if other < HOT { other } else { other + 1 };
                if random.random() {
                    (HOT, other)
                } else {
                    (other, HOT)
                }
            }
        }
    }
}

/// Single transfers by gRPC, straight to the service.
pub(super) struct Transfers {
    shape: Shape,
    callers: Callers,
    random: SmallRng,
}

impl Transfers {
    pub fn new(shape: Shape, key: Key, seed: u64) -> Result<Self> {
        Ok(Self {
            shape,
            callers: Callers::new(key)?,
            random: SmallRng::seed_from_u64(seed),
        })
    }
}

impl Source for Transfers {
    fn path(&self) -> &'static str {
        "/kontor.transfer.v1.TransferService/CreateTransfer"
    }

    fn next(&mut self, header: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<Option<u128>> {
        let (from, to) = self.shape.pair(&mut self.random);
        self.callers.write(from, header)?;
        let id = random_id(&mut self.random);
        let request = CreateTransferRequest {
            from_user_id: from,
            to_user_id: to,
            amount: 1,
            transfer_id: id.to_string(),
            ..CreateTransferRequest::default()
        };
        request.encode(body)?;
        Ok(Some(id.as_u128()))
    }
}

/// Single transfers by JSON, with a session.
pub(super) struct JsonTransfers {
    sessions: Vec<String>,
    random: SmallRng,
    /// Who pays, each once and in turn; anybody at any time when there is none.
    payers: Option<std::ops::RangeInclusive<i64>>,
}

impl JsonTransfers {
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: (1..=USERS).map(session).collect(),
            random: SmallRng::seed_from_u64(seed),
            payers: None,
        }
    }

    /// One of each user.
    pub fn one_of_each(seed: u64) -> Self {
        Self {
            payers: Some(1..=USERS),
            ..Self::new(seed)
        }
    }
}

impl Source for JsonTransfers {
    fn path(&self) -> &'static str {
        "/api/transfer"
    }

    fn next(&mut self, header: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<Option<u128>> {
        let (from, to) = match &mut self.payers {
            None => Shape::Uniform.pair(&mut self.random),
            Some(payers) => match payers.next() {
                Some(payer) => (payer, payer % USERS + 1),
                None => return Ok(None),
            },
        };
        let session = self.sessions.get(usize::try_from(from - 1)?);
        header.extend_from_slice(session.context("no such user")?.as_bytes());
        let id = random_id(&mut self.random);
        write!(
            body,
            r#"{{"from":{from},"to":{to},"amount":1,"transfer_id":"{id}"}}"#
        )?;
        Ok(Some(id.as_u128()))
    }
}

/// A version 4 UUID, as clients make them.
pub(super) fn random_id(random: &mut SmallRng) -> Uuid {
    uuid::Builder::from_random_bytes(random.random()).into_uuid()
}

/// Opens the account of each user.
pub(super) struct Openings {
    header: Vec<u8>,
    users: std::ops::RangeInclusive<i64>,
}

impl Openings {
    pub fn new(key: &Key) -> Result<Self> {
        let account = Caller::Service {
            name: "account".to_owned(),
        };
        Ok(Self {
            header: sign(key, &account)?.1,
            users: 1..=USERS,
        })
    }
}

impl Source for Openings {
    fn path(&self) -> &'static str {
        "/kontor.transfer.v1.LedgerService/OpenAccount"
    }

    fn next(&mut self, header: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<Option<u128>> {
        let Some(user_id) = self.users.next() else {
            return Ok(None);
        };
        header.extend_from_slice(&self.header);
        let request = OpenAccountRequest {
            user_id,
            currency: "USD".to_owned(),
        };
        request.encode(body)?;
        Ok(Some(0))
    }
}

/// Gives each user money.
pub(super) struct Deposits {
    header: Vec<u8>,
    users: std::ops::RangeInclusive<i64>,
}

impl Deposits {
    pub fn new(key: &Key) -> Result<Self> {
        Ok(Self {
            header: sign(key, &operator())?.1,
            users: 1..=USERS,
        })
    }
}

impl Source for Deposits {
    fn path(&self) -> &'static str {
        "/kontor.transfer.v1.TransferService/Deposit"
    }

    fn next(&mut self, header: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<Option<u128>> {
        let Some(to_user_id) = self.users.next() else {
            return Ok(None);
        };
        header.extend_from_slice(&self.header);
        let request = DepositRequest {
            to_user_id,
            amount: DEPOSIT,
            transfer_id: Uuid::new_v4().to_string(),
            ..DepositRequest::default()
        };
        request.encode(body)?;
        Ok(Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_two_users() {
        let mut random = SmallRng::seed_from_u64(1);
        for _ in 0..10_000 {
            for (first, second) in [Shape::Uniform.pair(&mut random), Shape::Hot.pair(&mut random)] {
                assert!((1..=USERS).contains(&first) && (1..=USERS).contains(&second));
                assert_ne!(first, second);
            }
            let (first, second) = Shape::Hot.pair(&mut random);
            assert!(first == HOT || second == HOT);
        }
    }
}
