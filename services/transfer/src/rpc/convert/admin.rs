//! The whole ledger: requests of operators, and what they are answered.

mod export;
mod import;

use proto::transfer::v1::{
    BadRow, ImportLedgerResponse, LaneHead, VerifyLedgerRequest, VerifyLedgerResponse,
};
use rpc::fields::Problems;
use tonic::Status;

pub use self::{export::exported, import::part};
pub use super::now;
use crate::app::{
    audit::{Bad, Head, Progress, Report},
    chain::LAST_LANE,
    import::Taken,
};

/// The most ends of lanes that can be named.
const MAX_HEADS: usize = 1_000;

pub fn known_heads(request: &VerifyLedgerRequest) -> Result<Vec<Head>, Status> {
    if request.known_heads.len() > MAX_HEADS {
        return Err(rpc::error::invalid([("known_heads", "must be at most 1000")]));
    }
    let mut problems = Problems::default();
    let mut heads = Vec::with_capacity(request.known_heads.len());
    for (at, head) in request.known_heads.iter().enumerate() {
        // lane 0 may be older than batches
        let right = (0..=LAST_LANE).contains(&head.lane)
            && head.sequence >= 1
            && (head.batch >= 1 || (head.batch, head.lane) == (0, 0));
        let hash = head.hash.as_ref().try_into().ok().filter(|_| right);
        let field = format!("known_heads[{at}]");
        let hash = problems.need(&field, "must be a head as an earlier answer told it", hash);
        heads.extend(hash.map(|hash| Head {
            lane: head.lane,
            batch: head.batch,
            sequence: head.sequence,
            hash,
        }));
    }
    problems.finish()?;
    Ok(heads)
}

pub fn report(report: Report) -> VerifyLedgerResponse {
    match report {
        Report::Progress(progress) => verified(progress),
        Report::Done(progress, bad, heads) => VerifyLedgerResponse {
            done: true,
            bad_row: bad.map(bad_row),
            heads: heads.into_iter().map(head).collect(),
            ..verified(progress)
        },
    }
}

pub fn taken(Taken { counts, done }: Taken) -> ImportLedgerResponse {
    ImportLedgerResponse {
        accounts: counts.accounts,
        rows: counts.rows,
        schedules: counts.schedules,
        done,
    }
}

fn verified(progress: Progress) -> VerifyLedgerResponse {
    VerifyLedgerResponse {
        verified_rows: progress.rows,
        total_rows: progress.total_rows,
        verified_accounts: progress.accounts,
        ..VerifyLedgerResponse::default()
    }
}

fn head(head: Head) -> LaneHead {
    LaneHead {
        lane: head.lane,
        batch: head.batch,
        sequence: head.sequence,
        hash: head.hash.to_vec().into(),
    }
}

fn bad_row(bad: Bad) -> BadRow {
    BadRow {
        lane: bad.lane,
        sequence: bad.sequence,
        transfer_id: bad.transfer.map(|id| id.to_string()).unwrap_or_default(),
        account_id: bad.account.unwrap_or_default(),
        problem: bad.problem,
        batch: bad.batch,
    }
}
