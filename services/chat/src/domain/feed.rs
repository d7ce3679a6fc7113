//! Where a subscription stands in each of its rooms.
//!
//! Messages come live, in any manner: twice, late, not at all. The feed says for each what to do, so that every message of a
//! room is delivered once and in order: what is missing is read from the history, and as long as a room is behind, its live
//! messages only tell how far the history has to be read.

use std::collections::{HashMap, VecDeque};

/// What to do with a message that came live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: deliver it.
    Deliver,
    /// It was delivered: drop it.
    Seen,
    /// Something before it is missing: drop it, the history will bring it.
    Behind,
    /// The subscription does not follow its room: drop it.
    Foreign,
}

/// What to read from the history of a room next: what comes after this position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The room.
    pub room: i64,
    /// The last position that was delivered.
    pub after: i64,
}

/// The history had a message missing: it is not what the feed was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole;

#[derive(Clone, Copy, Debug)]
struct Room {
    /// The position of the last message that was delivered.
    delivered: i64,
    /// The highest position that is known to exist.
    known: i64,
}

impl Room {
    fn is_behind(self) -> bool {
        self.delivered < self.known
    }
}

/// The positions of one subscription.
#[derive(Debug, Default)]
pub struct Feed {
    rooms: HashMap<i64, Room>,
    /// Rooms to read, each once, in turn.
    behind: VecDeque<i64>,
}

impl Feed {
    /// Follows a room from behind `delivered`, which now stands at `last`. For a room that is followed already, only `last`
    /// counts: it may be news.
    pub fn follow(&mut self, room: i64, delivered: i64, last: i64) {
        let entry = self.rooms.entry(room).or_insert(Room {
            delivered,
            known: delivered,
        });
        let was_behind = entry.is_behind();
        entry.known = entry.known.max(last);
        if entry.is_behind() && !was_behind {
            self.behind.push_back(room);
        }
    }

    /// The rooms that are followed, in no order.
    pub fn rooms(&self) -> impl Iterator<Item = i64> {
        self.rooms.keys().copied()
    }

    /// A message came live.
    pub fn offer(&mut self, room: i64, seq: i64) -> Verdict {
        let Some(entry) = self.rooms.get_mut(&room) else {
            return Verdict::Foreign;
        };
        if seq <= entry.delivered {
            return Verdict::Seen;
        }
        if entry.is_behind() {
            entry.known = entry.known.max(seq);
            return Verdict::Behind;
        }
        entry.known = seq;
        if seq == entry.delivered + 1 {
            entry.delivered = seq;
            return Verdict::Deliver;
        }
        self.behind.push_back(room);
        Verdict::Behind
    }

    /// What to read next. Rooms take turns, a page each.
    pub fn next_gap(&mut self) -> Option<Gap> {
        self.behind.rotate_left(usize::from(!self.behind.is_empty()));
        let room = *self.behind.back()?;
        self.rooms.get(&room).map(|entry| Gap {
            room,
            after: entry.delivered,
        })
    }

    /// A message from the history is delivered; it must be the next one of its room.
    pub fn advance(&mut self, room: i64, seq: i64) -> Result<(), Hole> {
        let entry = self.rooms.get_mut(&room).ok_or(Hole)?;
        if seq != entry.delivered + 1 {
            return Err(Hole);
        }
        entry.delivered = seq;
        entry.known = entry.known.max(seq);
        if !entry.is_behind() {
            self.behind.retain(|behind| *behind != room);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_message_is_delivered_and_never_again() {
        let mut feed = Feed::default();
        feed.follow(1, 4, 4);
        assert_eq!(feed.offer(1, 5), Verdict::Deliver);
        assert_eq!(feed.offer(1, 5), Verdict::Seen);
        assert_eq!(feed.offer(1, 3), Verdict::Seen);
        assert_eq!(feed.offer(2, 1), Verdict::Foreign);
        assert_eq!(feed.next_gap(), None);
    }

    #[test]
    fn a_gap_is_read_to_its_end_before_live_messages_count_again() {
        let mut feed = Feed::default();
        feed.follow(1, 0, 0);
        assert_eq!(feed.offer(1, 3), Verdict::Behind);
        assert_eq!(feed.offer(1, 1), Verdict::Behind, "the history brings it");
        assert_eq!(feed.next_gap(), Some(Gap { room: 1, after: 0 }));
        for seq in 1..=3 {
            feed.advance(1, seq).unwrap();
        }
        assert_eq!(feed.next_gap(), None);
        assert_eq!(feed.offer(1, 4), Verdict::Deliver);
    }

    #[test]
    fn rooms_that_are_behind_take_turns() {
        let mut feed = Feed::default();
        feed.follow(1, 0, 9);
        feed.follow(2, 3, 9);
        feed.follow(2, 3, 9);
        let gaps: Vec<i64> = (0..4)
            .filter_map(|_| feed.next_gap())
            .map(|gap| gap.room)
            .collect();
        assert_eq!(gaps, [1, 2, 1, 2]);
    }

    #[test]
    fn a_history_with_a_hole_is_not_delivered() {
        let mut feed = Feed::default();
        feed.follow(1, 0, 5);
        assert_eq!(feed.advance(1, 2), Err(Hole));
        assert_eq!(feed.advance(2, 1), Err(Hole));
    }

    /// What may happen to a subscription of two rooms.
    #[derive(Clone, Debug)]
    enum Happening {
        /// A message is stored, and its event comes or is lost.
        Sent { room: i64, heard: bool },
        /// An event comes again.
        Again { room: i64, nth: i64 },
        /// The consumer begins anew: the rooms are looked up.
        Reset,
        /// A page of the history is read.
        Read { page: i64 },
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            4 => (1..=2i64, prop::bool::weighted(0.7)).prop_map(|(room, heard)| Happening::Sent { room, heard }),
            2 => (1..=2i64, 0..40i64).prop_map(|(room, nth)| Happening::Again { room, nth }),
            1 => Just(Happening::Reset),
            3 => (1..5i64).prop_map(|page| Happening::Read { page }),
        ]
    }

    /// The world around a feed: what is stored, and what was delivered.
    struct Play {
        feed: Feed,
        last: HashMap<i64, i64>,
        delivered: HashMap<i64, Vec<i64>>,
    }

    impl Play {
        fn offer(&mut self, room: i64, seq: i64) {
            if self.feed.offer(room, seq) == Verdict::Deliver {
                self.delivered.entry(room).or_default().push(seq);
            }
        }

        fn read(&mut self, page: i64) -> bool {
            let Some(gap) = self.feed.next_gap() else {
                return false;
            };
            for seq in gap.after + 1..=self.last[&gap.room].min(gap.after + page) {
                self.feed.advance(gap.room, seq).unwrap();
                self.delivered.entry(gap.room).or_default().push(seq);
            }
            true
        }

        fn reset(&mut self) {
            for (room, last) in &self.last {
                self.feed.follow(*room, 0, *last);
            }
        }
    }

    proptest! {
        #[test]
        fn each_message_is_delivered_once_in_order(
            start in 0..5i64,
            ahead in 0..5i64,
            happenings in prop::collection::vec(happening(), 0..200),
        ) {
            let mut play = Play {
                feed: Feed::default(),
                last: HashMap::from([(1, start + ahead), (2, 0)]),
                delivered: HashMap::new(),
            };
            play.feed.follow(1, start, start + ahead);
            play.feed.follow(2, 0, 0);
            for happening in happenings {
                match happening {
                    Happening::Sent { room, heard } => {
                        let seq = play.last[&room] + 1;
                        play.last.insert(room, seq);
                        if heard {
                            play.offer(room, seq);
                        }
                    }
                    Happening::Again { room, nth } => {
                        let last = play.last[&room];
                        if last > 0 {
                            play.offer(room, 1 + nth % last);
                        }
                    }
                    Happening::Reset => play.reset(),
                    Happening::Read { page } => {
                        play.read(page);
                    }
                }
            }
            play.reset();
            while play.read(3) {}
            let expected = |from: i64, last: i64| (from + 1..=last).collect::<Vec<_>>();
            prop_assert_eq!(play.delivered.remove(&1).unwrap_or_default(), expected(start, play.last[&1]));
            prop_assert_eq!(play.delivered.remove(&2).unwrap_or_default(), expected(0, play.last[&2]));
        }
    }
}
