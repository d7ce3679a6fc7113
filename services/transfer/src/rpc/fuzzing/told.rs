//! Messages put together from bytes: each field is often good, sometimes at a limit, sometimes anything.

use prost::Message;
use prost_types::Timestamp;
use proto::transfer::v1::{
    CreateScheduleRequest, CreateTransferRequest, CreateTransfersRequest, DepositRequest, GetTransferRequest,
    GetUserBalanceRequest, ListSchedulesRequest, OpenAccountRequest, PostTransferRequest, Recurrence,
    ReverseTransferRequest, Split, TransferAction, VoidTransferRequest, WithdrawRequest,
    transfer_action::Action,
};

use crate::domain::money::MAX_MINOR;

const NUMBERS: [i64; 12] = [
    0,
    0,
    0,
    1,
    2,
    3,
    -1,
    MAX_MINOR,
    MAX_MINOR + 1,
    i64::MIN,
    i64::MAX,
    100,
];
const CURRENCIES: [&str; 6] = ["", "", "USD", "EUR", "usd", "XYZ"];

/// Takes bytes and gives fields. Where the bytes end, the fields are the plainest.
pub(super) struct Teller<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// The bytes are those of the wire.
    raw: bool,
}

impl<'a> Teller<'a> {
    pub fn new(bytes: &'a [u8], raw: bool) -> Self {
        Self {
            bytes: bytes.iter(),
            raw,
        }
    }

    /// The message of the wire, if it is one, or one that is told.
    pub fn message<T: Message + Default>(&mut self, told: fn(&mut Self) -> T) -> Option<T> {
        if self.raw {
            T::decode(self.bytes.as_slice()).ok()
        } else {
            Some(told(self))
        }
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn of<T: Copy + Default>(&mut self, all: &[T]) -> T {
        let at = usize::from(self.byte()) % all.len();
        all.get(at).copied().unwrap_or_default()
    }

    fn any_number(&mut self) -> i64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        i64::from_le_bytes(bytes)
    }

    fn number(&mut self) -> i64 {
        match self.byte() {
            0..250 => self.of(&NUMBERS),
            _ => self.any_number(),
        }
    }

    /// Of a side: a user or an account, or both, or neither.
    fn party(&mut self) -> (i64, i64) {
        match self.byte() % 8 {
            0..=3 => (i64::from(self.byte() % 120) + 1, 0),
            4..=5 => (0, i64::from(self.byte() % 120) + 1),
            6 => (self.number(), 0),
            _ => (self.number(), self.number()),
        }
    }

    fn amount(&mut self) -> i64 {
        match self.byte() % 4 {
            0..=2 => i64::from(self.byte()) + 1,
            _ => self.number(),
        }
    }

    fn uuid(&mut self) -> String {
        let number = u128::from(self.byte()) << 64 | 0x4000_8000_0000_0000_0001;
        let id = uuid::Uuid::from_u128(number);
        match self.byte() % 16 {
            0..=11 => id.to_string(),
            12 => id.to_string().to_uppercase(),
            13 => id.simple().to_string(),
            14 => uuid::Uuid::nil().to_string(),
            _ => self.text(),
        }
    }

    fn text(&mut self) -> String {
        match self.byte() % 10 {
            0..=3 => String::new(),
            4 => "invoice 1".to_owned(),
            5 => "x".repeat(usize::from(self.byte()) * 2),
            6 => "😀".repeat(usize::from(self.byte())),
            7 => "a\0b".to_owned(),
            8 => "\u{202e}\u{85}".to_owned(),
            _ => {
                let length = usize::from(self.byte() % 64);
                let bytes: Vec<u8> = (0..length).map(|_| self.byte()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }

    fn time(&mut self) -> Option<Timestamp> {
        let now = super::convert::now().timestamp();
        let (seconds, nanos) = match self.byte() % 8 {
            0..=2 => return None,
            3 => (now + 3_600, 0),
            4 => (now + 366 * 86_400 + i64::from(self.byte()) - 100, 999_999_999),
            5 => (now - i64::from(self.byte()), 1),
            6 => (self.number(), i32::try_from(self.number()).unwrap_or(-1)),
            _ => (self.any_number(), self.any_number().to_le_bytes()[0].into()),
        };
        Some(Timestamp { seconds, nanos })
    }

    pub fn transfer(&mut self) -> CreateTransferRequest {
        let (from_user_id, from_account_id) = self.party();
        let splits = match self.byte() % 16 {
            0..=9 => 0,
            15 => 90 + usize::from(self.byte() % 20),
            few => usize::from(few - 9),
        };
        let splits: Vec<Split> = (0..splits).map(|_| self.split()).collect();
        let (to_user_id, to_account_id) = if splits.is_empty() || self.byte() == 1 {
            self.party()
        } else {
            (0, 0)
        };
        let pairs = match self.byte() % 8 {
            7 => 17,
            few => usize::from(few / 3),
        };
        CreateTransferRequest {
            from_user_id,
            to_user_id,
            amount: if splits.is_empty() {
                self.amount()
            } else {
                self.of(&[0, 1, 200])
            },
            currency: self.of(&CURRENCIES).to_owned(),
            transfer_id: self.uuid(),
            from_account_id,
            to_account_id,
            splits,
            pending: self.byte() % 2 == 1,
            expires_at: self.time(),
            reference: self.text(),
            description: self.text(),
            metadata: (0..pairs)
                .map(|at| (format!("{at}{}", self.text()), self.text()))
                .collect(),
            dry_run: self.byte() % 8 == 7,
        }
    }

    fn split(&mut self) -> Split {
        let (to_user_id, to_account_id) = self.party();
        Split {
            to_user_id,
            to_account_id,
            amount: self.amount(),
        }
    }

    pub fn deposit(&mut self) -> DepositRequest {
        let (to_user_id, to_account_id) = self.party();
        DepositRequest {
            to_user_id,
            to_account_id,
            amount: self.amount(),
            currency: self.of(&CURRENCIES).to_owned(),
            transfer_id: self.uuid(),
            reference: self.text(),
            description: self.text(),
            dry_run: false,
        }
    }

    pub fn withdrawal(&mut self) -> WithdrawRequest {
        let (from_user_id, from_account_id) = self.party();
        WithdrawRequest {
            from_user_id,
            from_account_id,
            amount: self.amount(),
            currency: self.of(&CURRENCIES).to_owned(),
            transfer_id: self.uuid(),
            reference: self.text(),
            description: self.text(),
            dry_run: false,
        }
    }

    pub fn post(&mut self) -> PostTransferRequest {
        PostTransferRequest {
            pending_id: self.uuid(),
            amount: self.number(),
            transfer_id: self.uuid(),
            dry_run: self.byte() % 8 == 7,
        }
    }

    pub fn void(&mut self) -> VoidTransferRequest {
        VoidTransferRequest {
            pending_id: self.uuid(),
            transfer_id: self.uuid(),
            dry_run: self.byte() % 8 == 7,
        }
    }

    pub fn reversal(&mut self) -> ReverseTransferRequest {
        ReverseTransferRequest {
            original_id: self.uuid(),
            transfer_id: self.uuid(),
            description: self.text(),
            dry_run: self.byte() % 8 == 7,
        }
    }

    pub fn schedule(&mut self) -> CreateScheduleRequest {
        let transfer = (self.byte() % 16 != 15).then(|| {
            let mut transfer = self.transfer();
            if self.byte() % 8 != 7 {
                transfer.transfer_id.clear();
                transfer.expires_at = None;
                transfer.dry_run = false;
            }
            transfer
        });
        let recurrence = (self.byte() % 2 == 1).then(|| Recurrence {
            unit: i32::from(self.byte() % 6),
            every: i32::try_from(self.number()).unwrap_or(60),
            count: i32::try_from(self.number()).unwrap_or(0),
            until: self.time(),
        });
        CreateScheduleRequest {
            schedule_id: self.uuid(),
            transfer,
            first_at: self.time(),
            recurrence,
            dry_run: false,
        }
    }

    pub fn page(&mut self) -> ListSchedulesRequest {
        ListSchedulesRequest {
            page_size: i32::try_from(self.number()).unwrap_or(i32::MIN),
            page_token: format!(
                "{}{}",
                self.of(&["", "s1-", "s1-7fffffffffffffff", "s1--1"]),
                self.text()
            ),
        }
    }

    pub fn opening(&mut self) -> OpenAccountRequest {
        OpenAccountRequest {
            user_id: self.number(),
            currency: self.of(&CURRENCIES).to_owned(),
        }
    }

    pub fn transfer_id(&mut self) -> GetTransferRequest {
        GetTransferRequest {
            transfer_id: self.uuid(),
        }
    }

    pub fn user_id(&mut self) -> GetUserBalanceRequest {
        GetUserBalanceRequest {
            user_id: self.number(),
        }
    }

    pub fn batch(&mut self) -> CreateTransfersRequest {
        let actions = (0..self.byte() % 24).map(|_| {
            let action = match self.byte() % 16 {
                0..=7 => Some(Action::Create(self.transfer())),
                8..=10 => Some(Action::Post(self.post())),
                11..=12 => Some(Action::Void(self.void())),
                13..=14 => Some(Action::Reverse(self.reversal())),
                _ => None,
            };
            TransferAction {
                action,
                linked: self.byte() % 4 == 3,
            }
        });
        CreateTransfersRequest {
            actions: actions.collect(),
            dry_run: false,
        }
    }
}
