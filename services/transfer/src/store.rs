//! The ledger in PostgreSQL.
//!
//! `lane` writes batches of the journal; `rows` is the one place that reads rows of the journal and of accounts.

mod accounts;
mod archive;
mod histories;
mod holds;
mod intake;
mod lane;
mod publication;
mod reads;
mod reconcile;
mod rows;
mod schedules;
mod snapshot;
mod write;
mod writer;

use sqlx::PgPool;

pub use self::{
    intake::PgIntake,
    lane::PgLane,
    publication::{Lag, Lost, Page, Publication, Recent, Unpublished},
    reconcile::PgReconciler,
    snapshot::PgSnapshot,
};
use crate::app::{chain::Signer, engine::Failure, error::Error};

/// The ledger of one database.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    signer: Signer,
}

impl Postgres {
    /// The ledger of the database behind `pool`, signed by `signer`.
    pub fn new(pool: PgPool, signer: Signer) -> Self {
        Self { pool, signer }
    }
}

/// Of a read, or of a write in one statement.
fn classify(error: sqlx::Error) -> Error {
    if postgres::is_unavailable(&error) {
        Error::Unavailable(error.into())
    } else {
        Error::Internal(error.into())
    }
}

/// Whether a lane does not end where its owner believes, because an import has written to it.
fn has_moved(error: &sqlx::Error) -> bool {
    matches!(
        postgres::constraint(error),
        Some("journal_sequence" | "batches_pkey")
    )
}

/// Of a batch.
impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        use postgres::Transient as _;
        // another replica was first with the same id, the same end or the same reversal: the next try finds it
        let raced = matches!(
            postgres::constraint(&error),
            Some("journal_pkey" | "journal_done_once")
        );
        if raced || error.is_transient() {
            Self::Conflict(error.into())
        } else if error.is_lost() {
            Self::Lost(error.into())
        } else if has_moved(&error) || postgres::is_unavailable(&error) {
            Self::Unavailable(error.into())
        } else {
            Self::Broken(error.into())
        }
    }
}
