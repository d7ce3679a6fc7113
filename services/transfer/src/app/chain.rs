//! Signatures of rows and batches: a row that was changed behind the ledger's back no longer fits its signature, and a
//! batch that was changed, moved or taken away no longer fits those behind it.
//!
//! HMAC-SHA-256 (RFC 2104). A row's signature is over all that the row says and its place; of it 8 bytes are kept beside the
//! row, to name the bad one. A batch's hash is over the hash of the batch before and the whole signatures of its rows.

use std::fmt;

use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::journal::Row;

/// The length of a batch's hash.
pub const HASH_LEN: usize = 32;

/// The last of the lanes that replicas write, from 1; lane 0 holds what is older than the chain.
pub const LAST_LANE: i32 = 64;

/// The hash before the first batch of a lane.
pub const GENESIS: [u8; HASH_LEN] = [0; HASH_LEN];

/// The place of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The lane.
    pub lane: i32,
    /// The batch's number in the lane, from 1.
    pub number: i64,
    /// The position of its first row in the lane.
    pub first_sequence: i64,
    /// When it was made.
    pub at: DateTime<Utc>,
}

/// The end of a lane, where its next batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The lane.
    pub lane: i32,
    /// The number of the last batch.
    pub number: i64,
    /// The position behind the last row.
    pub next_sequence: i64,
    /// The hash of the last batch.
    pub hash: [u8; HASH_LEN],
    /// When the last batch was made.
    pub last_at: DateTime<Utc>,
}

impl Tip {
    /// The beginning of a lane.
    pub fn genesis(lane: i32) -> Self {
        Self {
            lane,
            number: 0,
            next_sequence: 1,
            hash: GENESIS,
            last_at: DateTime::UNIX_EPOCH,
        }
    }

    /// The position of the last batch's first row, where it has so many.
    pub fn first_of_last(&self, rows: usize) -> i64 {
        self.next_sequence
            .saturating_sub(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// The place of the next batch, made at a moment.
    fn next(&self, at: DateTime<Utc>) -> Place {
        Place {
            lane: self.lane,
            number: self.number + 1,
            first_sequence: self.next_sequence,
            at,
        }
    }

    /// The end behind a batch of so many rows.
    fn behind(place: &Place, rows: usize, signed: &Signed) -> Self {
        Self {
            lane: place.lane,
            number: place.number,
            next_sequence: place
                .first_sequence
                .saturating_add(i64::try_from(rows).unwrap_or(i64::MAX)),
            hash: signed.hash,
            last_at: place.at,
        }
    }
}

/// Signs with the ledger's key.
#[derive(Clone)]
pub struct Signer(hmac::Key);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(key redacted)")
    }
}

/// What the rows of a batch are signed with, and the hash of the batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// One for each row.
    pub signatures: Vec<i64>,
    /// The hash of the batch.
    pub hash: [u8; HASH_LEN],
}

impl Signer {
    /// Signs with a key of at least 32 bytes.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Signs rows as the next batch of a lane; its place, and where the lane ends behind it.
    pub fn extend(&self, from: &Tip, at: DateTime<Utc>, rows: &[Row]) -> (Place, Signed, Tip) {
        let place = from.next(at);
        let signed = self.sign(&place, &from.hash, rows.iter());
        let tip = Tip::behind(&place, rows.len(), &signed);
        (place, signed, tip)
    }

    /// Signs the rows of a batch, which follows the one with the hash `previous`.
    pub fn sign<'a>(
        &self,
        place: &Place,
        previous: &[u8; HASH_LEN],
        rows: impl ExactSizeIterator<Item = &'a Row>,
    ) -> Signed {
        let mut batch = self.begin(place, previous, rows.len());
        let signatures = rows.map(|row| batch.row(row)).collect();
        Signed {
            signatures,
            hash: batch.finish(),
        }
    }

    /// Begins a batch of so many rows, which are signed one after the other.
    pub fn begin(&self, place: &Place, previous: &[u8; HASH_LEN], rows: usize) -> OpenBatch {
        let mut batch = hmac::Context::with_key(&self.0);
        batch.update(b"kontor batch");
        batch.update(previous);
        batch.update(&place.lane.to_be_bytes());
        batch.update(&place.number.to_be_bytes());
        batch.update(&place.first_sequence.to_be_bytes());
        batch.update(&place.at.timestamp_micros().to_be_bytes());
        batch.update(&rows.to_be_bytes());
        OpenBatch {
            key: self.0.clone(),
            batch,
            lane: place.lane,
            sequence: place.first_sequence,
            bytes: Vec::with_capacity(256),
        }
    }

    /// The id of the expiry of a pending transfer: for all replicas the same, and known to nobody else before it is there.
    pub fn expiry_id(&self, pending: Uuid) -> Uuid {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"kontor expiry");
        context.update(pending.as_bytes());
        let tag = context.sign();
        let bytes = tag.as_ref().first_chunk().copied().unwrap_or_default();
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// A batch that is being signed, row by row.
pub struct OpenBatch {
    key: hmac::Key,
    batch: hmac::Context,
    lane: i32,
    sequence: i64,
    bytes: Vec<u8>,
}

impl OpenBatch {
    /// The signature of the next row.
    pub fn row(&mut self, row: &Row) -> i64 {
        self.bytes.clear();
        write_row(&mut self.bytes, self.lane, self.sequence, row);
        self.sequence += 1;
        let tag = hmac::sign(&self.key, &self.bytes);
        self.batch.update(tag.as_ref());
        shortened(tag.as_ref())
    }

    /// The hash of the batch.
    pub fn finish(self) -> [u8; HASH_LEN] {
        let mut hash = GENESIS;
        hash.copy_from_slice(self.batch.sign().as_ref());
        hash
    }
}

/// The 8 bytes of a signature that are kept beside its row.
fn shortened(tag: &[u8]) -> i64 {
    tag.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// Every field in a fixed order; what can be absent or long says so first.
fn write_row(bytes: &mut Vec<u8>, lane: i32, sequence: i64, row: &Row) {
    bytes.extend_from_slice(b"kontor row 1");
    bytes.extend_from_slice(&lane.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(row.id.as_bytes());
    bytes.extend_from_slice(&row.leg.to_be_bytes());
    let numbers = [
        row.debit,
        row.credit,
        row.moved,
        row.held,
        row.debit_position,
        row.credit_position,
        row.debit_posted,
        row.debit_held,
        row.credit_posted,
        row.credit_held,
        row.at.timestamp_micros(),
    ];
    for number in numbers {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    write_text(bytes, Some(row.kind.name()));
    write_text(bytes, Some(row.currency.code()));
    write_optional(bytes, row.original.as_ref().map(|id| id.as_bytes().as_slice()));
    let expires = row.expires_at.map(|at| at.timestamp_micros().to_be_bytes());
    write_optional(bytes, expires.as_ref().map(<[u8; 8]>::as_slice));
    let note = row.note.as_deref();
    write_text(bytes, note.and_then(|note| note.reference.as_deref()));
    write_text(bytes, note.and_then(|note| note.description.as_deref()));
    for (key, value) in note.into_iter().flat_map(|note| &note.metadata) {
        write_text(bytes, Some(key));
        write_text(bytes, Some(value));
    }
}

fn write_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    write_optional(bytes, text.map(str::as_bytes));
}

fn write_optional(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => bytes.push(0),
        Some(value) => {
            bytes.push(1);
            bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
            bytes.extend_from_slice(value);
        }
    }
}
