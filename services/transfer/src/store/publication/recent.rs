//! What this instance has committed lately: to publish it, it need not be read again.
//!
//! It may be wrong, as a database that has taken over may lack the last commits. [`super::Publication`] looks in the journal
//! for the last of the rows that it takes from here.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Run, Unpublished};
use crate::{
    app::engine::Committed,
    domain::{command::Note, journal::Row},
};

/// Rows that are kept at most; one takes some 200 bytes. What is not here any more is read.
const KEPT: usize = 32_768;

/// The last batches of one lane, without a gap between them. Clones share them.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<Kept>>);

/// While it lives, batches are kept.
pub(super) struct Keeper(Recent);

#[derive(Default)]
struct Kept {
    /// Somebody publishes.
    wanted: bool,
    batches: VecDeque<Arc<Committed>>,
    rows: usize,
}

impl Recent {
    /// Keeps a batch while somebody publishes.
    pub fn push(&self, mut batch: Committed) {
        if !self.kept().wanted || batch.rows.is_empty() {
            return;
        }
        batch.rows.iter_mut().for_each(strip);
        let batch = Arc::new(batch);
        let mut kept = self.kept();
        let follows = |last: &Arc<Committed>| (last.lane, end(last)) == (batch.lane, batch.first_sequence);
        if !kept.batches.back().is_none_or(follows) {
            kept.clear();
        }
        kept.rows += batch.rows.len();
        kept.batches.push_back(batch);
        while kept.rows > KEPT {
            kept.drop_first();
        }
    }

    /// From here on batches are kept.
    pub(super) fn keep(&self) -> Keeper {
        self.kept().wanted = true;
        Keeper(self.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// What is kept is wrong.
    pub fn forget(&self) {
        self.0.kept().clear();
    }

    /// What follows the published rows of its lane, up to so many; none when that is not here.
    pub fn behind(&self, published: &BTreeMap<i32, i64>, most: usize) -> Option<Run> {
        let (batches, lane, next) = {
            let mut kept = self.0.kept();
            let lane = kept.batches.front()?.lane;
            let next = published.get(&lane).map_or(1, |last| last + 1);
            while kept.batches.front().is_some_and(|batch| end(batch) <= next) {
                kept.drop_first();
            }
            if kept.batches.front()?.first_sequence > next {
                return None;
            }
            (kept.batches.clone(), lane, next)
        };
        let mut rows = batches
            .iter()
            .flat_map(|batch| (batch.first_sequence..).zip(&batch.rows))
            .skip_while(|(sequence, _)| *sequence < next);
        let taken = rows
            .by_ref()
            .take(most)
            .map(|(sequence, row)| Unpublished {
                lane,
                sequence,
                row: row.clone(),
            })
            .collect();
        Some(Run {
            rows: taken,
            is_whole: rows.next().is_none(),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut kept = self.0.kept();
        kept.wanted = false;
        kept.clear();
    }
}

impl Kept {
    fn drop_first(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.rows -= batch.rows.len();
        }
    }

    fn clear(&mut self) {
        self.batches.clear();
        self.rows = 0;
    }
}

/// The position behind a batch.
fn end(batch: &Committed) -> i64 {
    let rows = i64::try_from(batch.rows.len()).unwrap_or(i64::MAX);
    batch.first_sequence.saturating_add(rows)
}

/// Leaves of a note what is published of it: the rest is the longest part of a row.
fn strip(row: &mut Row) {
    if let Some(note) = &row.note {
        row.note = note.reference.clone().map(|reference| {
            Arc::new(Note {
                reference: Some(reference),
                ..Note::default()
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::publication::tests::row;

    /// Batches of lane 7 that end behind these positions, from 11 on.
    fn kept(ends: &[i64]) -> Keeper {
        let keeper = Recent::default().keep();
        let mut first = 11;
        for end in ends {
            keeper.0.push(batch(7, first, *end));
            first = *end;
        }
        keeper
    }

    fn batch(lane: i32, first_sequence: i64, end: i64) -> Committed {
        Committed {
            lane,
            first_sequence,
            rows: (first_sequence..end)
                .map(|sequence| row(lane, sequence, sequence).row)
                .collect(),
        }
    }

    fn behind(keeper: &Keeper, published: i64, most: usize) -> Option<(Vec<i64>, bool)> {
        let run = keeper.behind(&BTreeMap::from([(7, published)]), most)?;
        assert!(run.rows.iter().all(|row| row.lane == 7));
        Some((run.rows.iter().map(|row| row.sequence).collect(), run.is_whole))
    }

    #[test]
    fn it_gives_what_follows_the_published_rows() {
        let all = Some((vec![11, 12, 13, 14, 15], true));
        assert_eq!(behind(&kept(&[13, 16]), 10, 99), all);
        assert_eq!(behind(&kept(&[13, 16]), 10, 5), all);
        assert_eq!(behind(&kept(&[13, 16]), 11, 3), Some((vec![12, 13, 14], false)));
        assert_eq!(behind(&kept(&[13, 16]), 14, 3), Some((vec![15], true)));
        assert_eq!(behind(&kept(&[13, 16]), 15, 3), None, "all of it is published");
        assert_eq!(behind(&kept(&[13, 16]), 9, 3), None, "10 is not here");
        assert_eq!(behind(&kept(&[]), 10, 3), None);
    }

    #[test]
    fn it_has_no_gap() {
        for (lane, first) in [(7, 17), (7, 15), (8, 16)] {
            let keeper = kept(&[13, 16]);
            keeper.0.push(batch(lane, first, first + 2));
            let published = BTreeMap::from([(7, 10), (lane, first - 1)]);
            let run = keeper.behind(&published, 99).unwrap();
            let places: Vec<_> = run.rows.iter().map(|row| (row.lane, row.sequence)).collect();
            assert_eq!(places, [(lane, first), (lane, first + 1)]);
        }
    }

    #[test]
    fn it_keeps_nothing_while_nobody_publishes() {
        let keeper = kept(&[13]);
        let recent = keeper.0.clone();
        drop(keeper);
        assert!(recent.kept().batches.is_empty());
        recent.push(batch(7, 13, 15));
        let keeper = recent.keep();
        assert_eq!(behind(&keeper, 12, 9), None);
        recent.push(batch(7, 15, 16));
        assert_eq!(behind(&keeper, 14, 9), Some((vec![15], true)));
        keeper.forget();
        assert_eq!(behind(&keeper, 14, 9), None);
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let ends: Vec<i64> = (1..200).map(|batch| 11 + batch * 1_000).collect();
        let keeper = kept(&ends);
        let kept = keeper.0.kept();
        assert!((KEPT - 1_000..=KEPT).contains(&kept.rows), "{}", kept.rows);
        let counted: usize = kept.batches.iter().map(|batch| batch.rows.len()).sum();
        assert_eq!(kept.rows, counted);
        assert_eq!(end(kept.batches.back().unwrap()), *ends.last().unwrap());
    }

    #[test]
    fn it_keeps_of_a_note_what_is_published() {
        let keeper = kept(&[]);
        let mut batch = batch(7, 11, 13);
        batch.rows[0].note = Some(Arc::new(Note {
            reference: Some("rent".to_owned()),
            description: Some("of May".to_owned()),
            metadata: BTreeMap::from([("door".to_owned(), "3".to_owned())]),
        }));
        batch.rows[1].note = Some(Arc::new(Note {
            description: Some("of June".to_owned()),
            ..Note::default()
        }));
        keeper.0.push(batch);
        let run = keeper.behind(&BTreeMap::from([(7, 10)]), 9).unwrap();
        let note = run.rows[0].row.note.as_deref().unwrap();
        assert_eq!(
            (note.reference.as_deref(), &note.description),
            (Some("rent"), &None)
        );
        assert!(note.metadata.is_empty());
        assert_eq!(run.rows[1].row.note, None);
    }
}
