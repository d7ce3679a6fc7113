//! Rooms of two.

/// Two different users, the one with the lower number first: whoever writes first, the room is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    low: i64,
    high: i64,
}

impl Pair {
    /// None when both are the same user.
    pub fn new(one: i64, other: i64) -> Option<Self> {
        (one != other).then_some(Self {
            low: one.min(other),
            high: one.max(other),
        })
    }

    /// The user with the lower number.
    pub fn low(self) -> i64 {
        self.low
    }

    /// The user with the higher number.
    pub fn high(self) -> i64 {
        self.high
    }

    /// The other one of the two.
    pub fn other(self, user: i64) -> i64 {
        if user == self.low { self.high } else { self.low }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_does_not_depend_on_who_writes() {
        assert_eq!(Pair::new(2, 1), Pair::new(1, 2));
        assert_eq!(Pair::new(1, 1), None);
        let pair = Pair::new(7, 3).unwrap();
        assert_eq!(
            (pair.low(), pair.high(), pair.other(3), pair.other(7)),
            (3, 7, 7, 3)
        );
    }
}
