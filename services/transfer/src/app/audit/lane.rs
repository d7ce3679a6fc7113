//! One lane: no gap in its positions, every row signed, and its batches a chain.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Bad, Batch, Head, Snapshot, Stop, Stored};
use crate::{
    app::{
        chain::{GENESIS, HASH_LEN, OpenBatch, Place, Signer},
        error::Error,
    },
    domain::journal::Row,
};

/// Batches in a page.
const PAGE: i64 = 512;

/// What is known of a lane.
pub(super) struct Chain {
    lane: i32,
    /// Lane 0, as long as it has rows that are older than signatures.
    unsigned: bool,
    number: i64,
    next_sequence: i64,
    hash: [u8; HASH_LEN],
    last_at: DateTime<Utc>,
    /// The batch whose rows come.
    open: Option<Open>,
    batches: VecDeque<Batch>,
    ended: bool,
    /// Ends that were seen earlier and were not met yet.
    known: Vec<Head>,
}

struct Open {
    batch: Batch,
    signed: OpenBatch,
    rows_left: i32,
}

impl Chain {
    pub async fn open<S: Snapshot>(snapshot: &mut S, lane: i32, known: Vec<Head>) -> Result<Self, Error> {
        let mut chain = Self {
            lane,
            unsigned: false,
            number: 0,
            next_sequence: 1,
            hash: GENESIS,
            last_at: DateTime::UNIX_EPOCH,
            open: None,
            batches: VecDeque::new(),
            ended: false,
            known,
        };
        chain.fill(snapshot).await?;
        chain.unsigned = lane == 0 && chain.batches.is_empty();
        Ok(chain)
    }

    pub fn lane(&self) -> i32 {
        self.lane
    }

    /// The end of what was seen.
    pub fn head(&self) -> Option<Head> {
        (self.next_sequence > 1).then_some(Head {
            lane: self.lane,
            batch: self.number,
            sequence: self.next_sequence - 1,
            hash: self.hash,
        })
    }

    /// The batch of the last row that was looked at.
    pub fn batch(&self) -> i64 {
        self.open.as_ref().map_or(self.number, |open| open.batch.number)
    }

    /// Looks at the next row of the lane, or at its end.
    pub async fn look<S: Snapshot>(
        &mut self,
        snapshot: &mut S,
        signer: &Signer,
        head: Option<&Stored>,
    ) -> Result<(), Stop> {
        if self.open.is_none() && self.batches.is_empty() {
            self.fill(snapshot).await?;
        }
        let Some(stored) = head else {
            return Ok(self.end()?);
        };
        if stored.sequence != self.next_sequence {
            return Err(self.missing("a row is missing here").into());
        }
        let unknown = || self.of(stored, "it has a value that this version does not know");
        let row = stored.row.as_ref().ok_or_else(unknown)?;
        if self.unsigned {
            return Ok(self.link(signer, stored, row)?);
        }
        if self.open.is_none() {
            self.begin(signer, stored)?;
        }
        Ok(self.sign(stored, row)?)
    }

    /// Goes on with the batch that begins with this row.
    fn begin(&mut self, signer: &Signer, stored: &Stored) -> Result<(), Bad> {
        let Some(batch) = self.batches.pop_front() else {
            return Err(self.of(stored, "it belongs to no batch"));
        };
        let follows = batch.number == self.number + 1
            && batch.first_sequence == stored.sequence
            && batch.row_count > 0
            && batch.at > self.last_at;
        if !follows {
            return Err(self.of(
                stored,
                "the batch that begins here is not the next one of the lane",
            ));
        }
        let place = Place {
            lane: self.lane,
            number: batch.number,
            first_sequence: batch.first_sequence,
            at: batch.at,
        };
        let rows = usize::try_from(batch.row_count).unwrap_or_default();
        self.open = Some(Open {
            signed: signer.begin(&place, &self.hash, rows),
            rows_left: batch.row_count,
            batch,
        });
        Ok(())
    }

    /// Compares the row's signature, and behind the last row that of the batch.
    fn sign(&mut self, stored: &Stored, row: &Row) -> Result<(), Bad> {
        let Some(open) = &mut self.open else {
            return Err(self.of(stored, "it belongs to no batch"));
        };
        let signed = open.signed.row(row) == stored.signature;
        let same_time = row.at == open.batch.at;
        open.rows_left -= 1;
        if !signed {
            return Err(self.of(stored, "it is not what was signed"));
        }
        if !same_time {
            return Err(self.of(stored, "it has another time than its batch"));
        }
        self.next_sequence += 1;
        let Some(open) = self.open.take_if(|open| open.rows_left == 0) else {
            return Ok(());
        };
        let (number, first) = (open.batch.number, open.batch.first_sequence);
        let hash = open.signed.finish();
        if hash.as_slice() != open.batch.hash {
            return Err(Bad {
                lane: self.lane,
                sequence: first,
                batch: number,
                problem: "the batch that begins here does not fit its signature and the batches before"
                    .to_owned(),
                ..Bad::default()
            });
        }
        (self.number, self.hash, self.last_at) = (number, hash, open.batch.at);
        self.meet()
    }

    /// A row that is older than signatures has none; the head depends on all of them nevertheless.
    fn link(&mut self, signer: &Signer, stored: &Stored, row: &Row) -> Result<(), Bad> {
        if stored.signature != 0 {
            return Err(self.of(stored, "it is signed and belongs to no batch"));
        }
        let place = Place {
            lane: self.lane,
            number: 0,
            first_sequence: stored.sequence,
            at: row.at,
        };
        self.hash = signer.sign(&place, &self.hash, std::iter::once(row)).hash;
        self.next_sequence += 1;
        self.meet()
    }

    /// Compares the end of what was seen with an end that was seen earlier.
    fn meet(&mut self) -> Result<(), Bad> {
        let (batch, sequence, hash) = (self.number, self.next_sequence - 1, self.hash);
        let meets = |head: &Head| (head.batch, head.sequence) == (batch, sequence);
        let differs = self.known.iter().any(|head| meets(head) && head.hash != hash);
        self.known.retain(|head| !meets(head));
        if differs {
            return Err(Bad {
                lane: self.lane,
                sequence,
                batch,
                problem: "the lane up to here is not the one of the known head".to_owned(),
                ..Bad::default()
            });
        }
        Ok(())
    }

    fn end(&self) -> Result<(), Bad> {
        if self.open.is_some() {
            return Err(self.missing("the rest of a batch is missing"));
        }
        if !self.batches.is_empty() {
            return Err(self.missing("the rows of a batch are missing"));
        }
        match self.known.first() {
            Some(head) => Err(self.missing(&format!(
                "the lane has no batch {} that ends with row {}, as a known head says",
                head.batch, head.sequence
            ))),
            None => Ok(()),
        }
    }

    async fn fill<S: Snapshot>(&mut self, snapshot: &mut S) -> Result<(), Error> {
        if self.ended || self.unsigned {
            return Ok(());
        }
        let page = snapshot.batches(self.lane, self.number, PAGE).await?;
        self.ended = i64::try_from(page.len()).is_ok_and(|found| found < PAGE);
        self.batches.extend(page);
        Ok(())
    }

    /// At the place of the next row.
    fn missing(&self, problem: &str) -> Bad {
        let open = self.open.as_ref().map(|open| open.batch.number);
        Bad {
            lane: self.lane,
            sequence: self.next_sequence,
            batch: open.unwrap_or(self.number + i64::from(!self.unsigned)),
            problem: problem.to_owned(),
            ..Bad::default()
        }
    }

    /// At a row.
    fn of(&self, stored: &Stored, problem: &str) -> Bad {
        let transfer: Option<Uuid> = Some(stored.id);
        Bad {
            transfer,
            ..self.missing(problem)
        }
    }
}
