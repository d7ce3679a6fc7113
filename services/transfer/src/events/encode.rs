//! Rows of the journal as records, encoded into buffers that are used again.

use std::{fmt::Write as _, time::SystemTime};

use prost::Message as _;
use proto::transfer::v1::{EntryMade, TransferEvent, transfer_event::Event};
use uuid::Uuid;

use crate::{rpc, store::Unpublished};

/// The full name of the message.
pub(super) const EVENT_TYPE: &str = "kontor.transfer.v1.TransferEvent";

/// One of the two accounts of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Debit,
    Credit,
}

/// The record of one side of a row.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    key: String,
    payload: Vec<u8>,
    event_id: String,
    message: TransferEvent,
}

/// A record to publish.
pub(super) struct Encoded<'a> {
    pub key: &'a str,
    pub payload: &'a [u8],
    pub event_id: &'a str,
}

impl Encoder {
    pub fn entry(&mut self, unpublished: &Unpublished, side: Side) -> Encoded<'_> {
        let Unpublished { lane, sequence, row } = unpublished;
        let (account, position, counterparty) = match side {
            Side::Debit => (row.debit, row.debit_position, row.credit),
            Side::Credit => (row.credit, row.credit_position, row.debit),
        };
        let mut entry = match self.message.event.take() {
            Some(Event::EntryMade(entry)) => entry,
            _ => EntryMade::default(),
        };
        (entry.amount, entry.held, entry.posted_after, entry.held_after) = match side {
            Side::Debit => (-row.moved, row.held, row.debit_posted, row.debit_held),
            Side::Credit => (row.moved, 0, row.credit_posted, row.credit_held),
        };
        entry.account_id = account;
        entry.position = position;
        entry.counterparty_account_id = counterparty;
        entry.leg = i32::from(row.leg);
        entry.kind = rpc::kind(row.kind).into();
        row.currency.code().clone_into(&mut entry.currency);
        entry.created_at = Some(SystemTime::from(row.at).into());
        put_id(&mut entry.transfer_id, Some(row.id));
        put_id(&mut entry.original_id, row.original);
        row.note
            .as_ref()
            .and_then(|note| note.reference.as_deref())
            .unwrap_or_default()
            .clone_into(&mut entry.reference);
        entry.lane = *lane;
        entry.sequence = *sequence;
        self.message.event = Some(Event::EntryMade(entry));
        self.finish(account, event_id(*lane, *sequence, side))
    }

    /// Any other event of an account.
    pub fn other(&mut self, account: i64, event: Event, id: Uuid) -> Encoded<'_> {
        self.message.event = Some(event);
        self.finish(account, id)
    }

    fn finish(&mut self, account: i64, id: Uuid) -> Encoded<'_> {
        self.key.clear();
        // writing to a String cannot fail
        let _ = write!(self.key, "{account}");
        self.payload.clear();
        self.message.encode_raw(&mut self.payload);
        put_id(&mut self.event_id, Some(id));
        Encoded {
            key: &self.key,
            payload: &self.payload,
            event_id: &self.event_id,
        }
    }
}

/// The same each time that the record is sent: made of the row's place, which no client chooses, and the side (UUID version
/// 8, RFC 9562).
fn event_id(lane: i32, sequence: i64, side: Side) -> Uuid {
    const VERSION_8: u64 = 0x8000;
    const VARIANT: u64 = 1 << 63;
    let high = (u64::from(lane.unsigned_abs()) << 32) | VERSION_8 | u64::from(side == Side::Credit);
    Uuid::from_u64_pair(high, VARIANT | (sequence.unsigned_abs() & ((VARIANT >> 1) - 1)))
}

fn put_id(text: &mut String, id: Option<Uuid>) {
    text.clear();
    if let Some(id) = id {
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        text.push_str(id.hyphenated().encode_lower(&mut buffer));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_side_of_each_row_has_an_id_of_its_own() {
        let mut seen = HashSet::new();
        for lane in [0, 1, 64] {
            for sequence in [1, 2, 1 << 40, (1 << 62) - 1] {
                for side in [Side::Debit, Side::Credit] {
                    let id = event_id(lane, sequence, side);
                    assert_eq!(id.get_version_num(), 8);
                    assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
                    assert!(seen.insert(id), "{lane} {sequence} {side:?}");
                }
            }
        }
    }
}
