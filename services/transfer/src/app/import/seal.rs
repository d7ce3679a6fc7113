//! Rows become batches again, signed with this ledger's key.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{SignedBatch, SignedRow};
use crate::{
    app::{
        audit::Batch,
        chain::{GENESIS, HASH_LEN, LAST_LANE, Place, Signer},
        expiry::Hold,
        parts::RowPart,
    },
    domain::journal::Kind,
};

/// The most rows of a batch: no ledger has room for more in its queue.
const LONGEST: usize = 1_000_000;

/// A batch with its rows and the numbers of their parts.
pub(super) struct Sealed {
    pub rows: Vec<(i64, SignedRow)>,
    pub batch: SignedBatch,
}

/// The lanes so far.
pub(super) struct Seal {
    signer: Signer,
    lanes: BTreeMap<i32, End>,
    /// The last row's time, lane and position.
    last: Option<(DateTime<Utc>, i32, i64)>,
    /// The rows of the batch that is not complete yet, with the numbers of their parts.
    open: Vec<(i64, RowPart)>,
    pending: HashMap<Uuid, DateTime<Utc>>,
}

/// The end of a lane.
struct End {
    number: i64,
    sequence: i64,
    hash: [u8; HASH_LEN],
}

impl Seal {
    pub fn new(signer: Signer) -> Self {
        Self {
            signer,
            lanes: BTreeMap::new(),
            last: None,
            open: Vec::new(),
            pending: HashMap::new(),
        }
    }

    /// Takes the next row; the batch before, when the row begins another one.
    pub fn take(&mut self, number: i64, part: RowPart) -> Result<Option<Sealed>, &'static str> {
        if !(0..=LAST_LANE).contains(&part.lane) {
            return Err("there is no such lane");
        }
        let place = (part.row.at, part.lane, part.sequence);
        if self.last.is_some_and(|last| last >= place) {
            return Err("the row is not behind the one before, by time, lane and position");
        }
        let same = |(_, before): &(i64, RowPart)| (before.lane, before.row.at) == (part.lane, part.row.at);
        let sealed = if self.open.last().is_some_and(same) {
            if self.open.len() >= LONGEST {
                return Err("a lane has too many rows of the same time");
            }
            None
        } else {
            self.close()
        };
        let end = self.lanes.entry(part.lane).or_insert(End {
            number: 0,
            sequence: 0,
            hash: GENESIS,
        });
        if part.sequence != end.sequence + 1 {
            return Err("the row is not the next one of its lane");
        }
        end.sequence = part.sequence;
        self.last = Some(place);
        self.remember(&part);
        self.open.push((number, part));
        Ok(sealed)
    }

    /// The last batch, when there is one.
    pub fn close(&mut self) -> Option<Sealed> {
        let open = std::mem::take(&mut self.open);
        let (_, first) = open.first()?;
        let end = self.lanes.get_mut(&first.lane)?;
        let place = Place {
            lane: first.lane,
            number: end.number + 1,
            first_sequence: first.sequence,
            at: first.row.at,
        };
        let signed = self
            .signer
            .sign(&place, &end.hash, open.iter().map(|(_, part)| &part.row));
        (end.number, end.hash) = (place.number, signed.hash);
        let batch = Batch {
            number: place.number,
            first_sequence: place.first_sequence,
            row_count: i32::try_from(open.len()).unwrap_or(i32::MAX),
            at: place.at,
            hash: signed.hash.to_vec(),
        };
        let rows = open.into_iter().zip(signed.signatures);
        Some(Sealed {
            rows: rows
                .map(|((number, part), signature)| (number, SignedRow { part, signature }))
                .collect(),
            batch: SignedBatch {
                lane: place.lane,
                batch,
            },
        })
    }

    /// What is pending.
    pub fn pending(&self) -> Vec<Hold> {
        let pending = self.pending.iter();
        pending
            .map(|(pending, expires_at)| Hold {
                pending: *pending,
                expires_at: *expires_at,
            })
            .collect()
    }

    fn remember(&mut self, part: &RowPart) {
        let row = &part.row;
        match (row.kind, row.original, row.expires_at) {
            (Kind::Pending, _, Some(expires_at)) => {
                self.pending.insert(row.id, expires_at);
            }
            (kind, Some(original), _) if kind.ends_pending() => {
                self.pending.remove(&original);
            }
            _ => {}
        }
    }
}
