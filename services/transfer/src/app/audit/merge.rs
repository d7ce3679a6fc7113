//! The rows of all lanes in an order in which they could have happened.
//!
//! The time of a row is later than that of every earlier row of its accounts and its lane, or the same within a batch. So the
//! lanes, each in the order of its positions, are merged by time; nothing is sorted, and a page of each lane is kept.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use uuid::Uuid;

use super::{Snapshot, Stored};
use crate::{
    app::error::Error,
    domain::journal::{Kind, Row},
};

/// Rows that are kept of all lanes together, and of one at least and at most.
const KEPT: usize = 16_384;
const LEAST: usize = 128;
const MOST: usize = 2_048;

/// A row, and what one that takes something back belongs to.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The lane.
    pub lane: i32,
    /// The row.
    pub stored: Stored,
    /// The rows of the transfer that a reversal takes back, and of all that was done to that.
    pub family: Option<Arc<Vec<Row>>>,
}

/// Reads the rows.
#[derive(Debug)]
pub struct Merge {
    lanes: Vec<Reader>,
    page: i64,
}

#[derive(Debug)]
struct Reader {
    lane: i32,
    rows: VecDeque<Entry>,
    behind: i64,
    ended: bool,
}

impl Merge {
    /// Begins with the first row of each of these lanes.
    pub async fn open<S: Snapshot>(snapshot: &mut S, lanes: &[i32]) -> Result<Self, Error> {
        let page = (KEPT / lanes.len().max(1)).clamp(LEAST, MOST);
        let mut merge = Self {
            lanes: Vec::with_capacity(lanes.len()),
            page: i64::try_from(page).unwrap_or(i64::MAX),
        };
        for lane in lanes {
            merge.lanes.push(Reader {
                lane: *lane,
                rows: VecDeque::new(),
                behind: i64::MIN,
                ended: false,
            });
            merge.fill(snapshot, merge.lanes.len() - 1).await?;
        }
        Ok(merge)
    }

    /// Where a lane is kept.
    pub fn index(&self, lane: i32) -> Option<usize> {
        self.lanes.iter().position(|reader| reader.lane == lane)
    }

    /// The next row of a lane.
    pub fn head(&self, index: usize) -> Option<&Entry> {
        self.lanes.get(index)?.rows.front()
    }

    /// The next row of all, and where its lane is kept; the row behind it in its lane is there already.
    pub async fn take<S: Snapshot>(&mut self, snapshot: &mut S) -> Result<Option<(usize, Entry)>, Error> {
        let heads = self.lanes.iter().enumerate();
        let next = heads
            .filter_map(|(index, reader)| Some((reader.rows.front()?.stored.at, reader.lane, index)))
            .min();
        let Some((.., index)) = next else { return Ok(None) };
        let entry = self.lanes.get_mut(index).and_then(|lane| lane.rows.pop_front());
        self.fill(snapshot, index).await?;
        Ok(entry.map(|entry| (index, entry)))
    }

    async fn fill<S: Snapshot>(&mut self, snapshot: &mut S, index: usize) -> Result<(), Error> {
        let page = self.page;
        let Some(reader) = self.lanes.get_mut(index) else {
            return Ok(());
        };
        if reader.ended || !reader.rows.is_empty() {
            return Ok(());
        }
        let rows = snapshot.rows(reader.lane, reader.behind, page).await?;
        reader.ended = i64::try_from(rows.len()).is_ok_and(|found| found < page);
        if let Some(last) = rows.last() {
            reader.behind = last.sequence;
        }
        let families = families(snapshot, &rows).await?;
        reader.rows.extend(rows.into_iter().map(|stored| Entry {
            lane: reader.lane,
            family: taken_back(&stored).and_then(|id| families.get(&id).cloned()),
            stored,
        }));
        Ok(())
    }
}

fn taken_back(stored: &Stored) -> Option<Uuid> {
    let row = stored.row.as_ref()?;
    row.original.filter(|_| row.kind == Kind::Reversal)
}

async fn families<S: Snapshot>(
    snapshot: &mut S,
    rows: &[Stored],
) -> Result<HashMap<Uuid, Arc<Vec<Row>>>, Error> {
    let mut ids: Vec<Uuid> = rows.iter().filter_map(taken_back).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    ids.sort_unstable();
    ids.dedup();
    let found = snapshot.families(&ids).await?;
    Ok(found.into_iter().map(|(id, rows)| (id, Arc::new(rows))).collect())
}
