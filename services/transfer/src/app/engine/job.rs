//! What waits in the queue.

use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Outcome, Wanted};
use crate::{app::error::Error, domain::command::Command};

/// Commands of one caller.
pub(super) struct Job {
    pub steps: Steps,
    pub dry_run: bool,
    pub deadline: Instant,
    pub reply: oneshot::Sender<Result<Vec<Outcome>, Error>>,
    /// The job's place in the queue; free again when the job is answered.
    #[expect(dead_code, reason = "held until the job is dropped")]
    pub room: OwnedSemaphorePermit,
}

impl Job {
    /// Whether somebody still waits for the answer. What nobody waits for is not begun: its caller may ask again elsewhere,
    /// and must not hear there that it was refused while it is yet to be done here.
    pub fn is_awaited(&self, now: Instant) -> bool {
        self.deadline > now && !self.reply.is_closed()
    }
}

/// In most jobs one command, which needs no list.
pub(super) enum Steps {
    One(Box<Command>),
    Many(Vec<(Command, bool)>),
}

impl Steps {
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        let (one, many) = match self {
            Self::One(command) => (Some(&**command), [].as_slice()),
            Self::Many(commands) => (None, commands.as_slice()),
        };
        one.into_iter().chain(many.iter().map(|(command, _)| command))
    }

    /// Whether they are transfers to one account each, at once, with nothing said about them.
    pub fn are_plain(&self) -> bool {
        self.commands().all(|command| match command {
            Command::Transfer(transfer) => {
                transfer.credits.len() == 1 && transfer.hold.is_none() && transfer.note.is_none()
            }
            Command::Post { .. }
            | Command::Void { .. }
            | Command::Expire { .. }
            | Command::Reverse { .. } => false,
        })
    }

    /// Rows that they may write: what they weigh.
    pub fn rows(&self) -> usize {
        self.commands().map(rows).sum()
    }
}

/// The rows of a command. What is done to an earlier transfer counts as one: how many legs that has is not known yet.
fn rows(command: &Command) -> usize {
    match command {
        Command::Transfer(transfer) => transfer.credits.len().max(1),
        Command::Post { .. } | Command::Void { .. } | Command::Expire { .. } | Command::Reverse { .. } => 1,
    }
}

/// What some jobs touch, all together.
pub(super) fn wanted<'a>(jobs: impl Iterator<Item = &'a Job> + Clone) -> Wanted {
    let commands = jobs.flat_map(|job| job.steps.commands());
    let mut wanted = Wanted::default();
    for command in commands {
        wanted.ids.push(command.id());
        wanted.originals.extend(command.original());
        if let Command::Transfer(transfer) = command {
            wanted.accounts.push(transfer.debit);
            wanted
                .accounts
                .extend(transfer.credits.iter().map(|credit| credit.account));
        }
    }
    // the order of the locks: see the store
    wanted.accounts.sort_unstable();
    wanted.accounts.dedup();
    wanted.originals.sort_unstable();
    wanted.originals.dedup();
    wanted
}
