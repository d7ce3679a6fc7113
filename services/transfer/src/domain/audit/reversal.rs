//! What a reversal must say, given what it takes back.

use super::{
    super::journal::{Kind, Row},
    Problem,
};

/// Compares a row of a reversal with the rows of its transfer and of all that was done to that.
pub(super) fn check(row: &Row, family: &[Row]) -> Result<(), Problem> {
    let original = row.original.ok_or(Problem::Shape)?;
    let pending = family
        .iter()
        .any(|other| other.id == original && other.kind == Kind::Pending);
    // a pending transfer has moved what was posted of it
    let moved = |other: &&Row| {
        if pending {
            other.original == Some(original) && other.kind == Kind::Post
        } else {
            other.id == original && other.kind == Kind::Transfer
        }
    };
    let legs = family.iter().filter(moved).count();
    if legs == 0 {
        return Err(Problem::NotPosted);
    }
    let mut same_leg = family.iter().filter(moved).filter(|other| other.leg == row.leg);
    let fits = same_leg.next().is_some_and(|taken| {
        (taken.debit, taken.credit, taken.moved) == (row.credit, row.debit, row.moved)
            && taken.currency == row.currency
            && taken.at <= row.at
    });
    if !fits {
        return Err(Problem::NotItsTransfer);
    }
    let reversals = || {
        family
            .iter()
            .filter(|other| other.kind == Kind::Reversal && other.original == Some(original))
    };
    if reversals().any(|other| other.id != row.id) {
        return Err(Problem::ReversedTwice);
    }
    if reversals().count() == legs {
        Ok(())
    } else {
        Err(Problem::NotItsTransfer)
    }
}
