//! Who may write to whom.

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Being created: does not exist yet for others.
    Pending,
    /// May do everything.
    Active,
    /// May read, not write, and cannot be written to.
    Frozen,
    /// Gone.
    Closed,
}

/// Why somebody cannot be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no such user, not yet or no more.
    Absent,
    /// The user is frozen.
    Frozen,
}

/// Whether a user with this status, if any is known, can be written to.
pub fn reachable(status: Option<Status>) -> Result<(), Unreachable> {
    match status {
        Some(Status::Active) => Ok(()),
        Some(Status::Frozen) => Err(Unreachable::Frozen),
        Some(Status::Pending | Status::Closed) | None => Err(Unreachable::Absent),
    }
}
