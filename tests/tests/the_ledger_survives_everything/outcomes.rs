//! What the clients were told, against the journal.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result, ensure};
use uuid::Uuid;

use super::{
    books::Row,
    client::{Answer, Record},
    order::{Account, Hold, What},
};

const WEEK: i64 = 7 * 24 * 3_600 * 1_000_000;
/// How far the ledger's clock and ours may differ, with the time of a call: minutes, as some calls are repeated for so long.
const ABOUT: i64 = 180 * 1_000_000;

/// The journal by id.
pub struct Journal<'a> {
    rows: HashMap<Uuid, Vec<&'a Row>>,
    /// The rows that ended each pending transfer.
    ends: HashMap<Uuid, Vec<&'a Row>>,
    treasuries: HashMap<String, i64>,
}

impl<'a> Journal<'a> {
    pub fn new(journal: &'a [Row], treasuries: HashMap<String, i64>) -> Self {
        let mut rows: HashMap<Uuid, Vec<&Row>> = HashMap::new();
        let mut ends: HashMap<Uuid, Vec<&Row>> = HashMap::new();
        for row in journal {
            rows.entry(row.id).or_default().push(row);
            if let Some(original) = row.original_id
                && row.kind != "reversal"
            {
                ends.entry(original).or_default().push(row);
            }
        }
        for legs in rows.values_mut().chain(ends.values_mut()) {
            legs.sort_by_key(|row| row.leg);
        }
        Self {
            rows,
            ends,
            treasuries,
        }
    }

    /// What was done is there as it was asked for, what was refused is not, chains are whole, and nothing else is there.
    pub fn agrees_with(&self, records: &[Record], dry: &[Uuid]) -> Result<()> {
        let mut done = HashSet::new();
        let mut chains: HashMap<Uuid, HashSet<bool>> = HashMap::new();
        let mut broken = Vec::new();
        for record in records {
            if let Err(problem) = self.is_as_told(record) {
                broken.push(format!("{problem:#}: {record:?}"));
            }
            if record.answer.is_done() {
                done.insert(record.order.id);
            }
            if let Some(chain) = record.chain {
                chains.entry(chain).or_default().insert(record.answer.is_done());
            }
        }
        ensure!(
            broken.is_empty(),
            "{} outcomes are not as told:\n{}",
            broken.len(),
            broken.join("\n")
        );
        let torn = chains.values().filter(|outcomes| outcomes.len() > 1).count();
        ensure!(torn == 0, "{torn} chains were torn");
        for id in dry {
            ensure!(
                !self.rows.contains_key(id),
                "a dry run was made: {:?}",
                self.rows.get(id)
            );
        }
        let invented = self
            .rows
            .iter()
            .find(|(id, rows)| !done.contains(id) && rows.iter().any(|row| row.kind != "expire"));
        ensure!(invented.is_none(), "nobody asked for {invented:?}");
        Ok(())
    }

    fn is_as_told(&self, record: &Record) -> Result<()> {
        let rows = self.rows.get(&record.order.id).map_or(&[][..], Vec::as_slice);
        let Answer::Done { at, .. } = record.answer else {
            ensure!(rows.is_empty(), "it was refused, and is there: {rows:?}");
            return Ok(());
        };
        ensure!(!rows.is_empty(), "it was done, and is not there");
        for (leg, row) in rows.iter().enumerate() {
            ensure!(usize::from(row.leg.unsigned_abs()) == leg, "leg {leg} is {row:?}");
            // of a planned transfer no time was told
            ensure!(at == 0 || row.at == at, "it was made at {at}: {row:?}");
        }
        match &record.order.what {
            What::Move { from, to, hold, note } => {
                let credits: Vec<_> = to.iter().map(|(to, amount)| (to.id, *amount)).collect();
                moved(rows, from, &credits, *hold, note)
            }
            What::Deposit { to, amount } => {
                self.with_treasury(rows, to, *amount, |row| (row.credit, row.debit))
            }
            What::Withdraw { from, amount } => {
                self.with_treasury(rows, from, *amount, |row| (row.debit, row.credit))
            }
            What::Post { pending, amount } => {
                // of a transfer to several a part is never posted
                let all = *amount == 0 || rows.len() > 1;
                self.ended(rows, *pending, "post", |row| if all { row.held } else { *amount })
            }
            What::Void { pending } => self.ended(rows, *pending, "void", |_| 0),
            What::Reverse { original } => self.reversed(rows, *original),
        }
    }

    fn with_treasury(
        &self,
        rows: &[&Row],
        account: &Account,
        amount: i64,
        sides: impl Fn(&Row) -> (i64, i64),
    ) -> Result<()> {
        let [row] = rows else {
            anyhow::bail!("{} rows", rows.len())
        };
        let treasury = self.treasuries.get(account.currency).context("no treasury")?;
        ensure!(
            row.kind == "transfer" && sides(row) == (account.id, *treasury) && row.moved == amount,
            "it is {row:?}"
        );
        Ok(())
    }

    fn ended(&self, rows: &[&Row], pending: Uuid, kind: &str, amount: impl Fn(&Row) -> i64) -> Result<()> {
        let begun = self.rows.get(&pending).context("nothing was pending")?;
        ensure!(
            begun.len() == rows.len(),
            "{} legs became {}",
            begun.len(),
            rows.len()
        );
        for (begun, row) in begun.iter().zip(rows) {
            ensure!(
                row.kind == kind
                    && row.original_id == Some(pending)
                    && (row.debit, row.credit, row.held) == (begun.debit, begun.credit, -begun.held)
                    && row.moved == amount(begun),
                "{begun:?} became {row:?}"
            );
        }
        Ok(())
    }

    fn reversed(&self, rows: &[&Row], original: Uuid) -> Result<()> {
        let mut posted = self.rows.get(&original).context("there was nothing to reverse")?;
        if posted.iter().any(|row| row.kind == "pending") {
            posted = self.ends.get(&original).context("it was not posted")?;
        }
        ensure!(
            posted.len() == rows.len(),
            "{} legs became {}",
            posted.len(),
            rows.len()
        );
        for (posted, row) in posted.iter().zip(rows) {
            ensure!(
                row.kind == "reversal"
                    && row.original_id == Some(original)
                    && (row.debit, row.credit, row.moved) == (posted.credit, posted.debit, posted.moved),
                "{posted:?} became {row:?}"
            );
        }
        Ok(())
    }
}

fn moved(rows: &[&Row], from: &Account, credits: &[(i64, i64)], hold: Hold, note: &str) -> Result<()> {
    ensure!(rows.len() == credits.len(), "{} rows", rows.len());
    let text = |text: String| (!note.is_empty()).then_some(text);
    for (row, (to, amount)) in rows.iter().zip(credits) {
        let expires = match (hold, row.expires) {
            (Hold::No, expires) => expires.is_none(),
            (Hold::Usual, expires) => expires.is_some_and(|end| (end - row.at - WEEK).abs() < ABOUT),
            (Hold::Until(end), expires) => expires == Some(end),
        };
        let (kind, amounts) = match hold {
            Hold::No => ("transfer", (*amount, 0)),
            _ => ("pending", (0, *amount)),
        };
        ensure!(
            row.kind == kind
                && expires
                && (row.moved, row.held) == amounts
                && (row.debit, row.credit) == (from.id, *to)
                && row.currency == from.currency
                && row.original_id.is_none()
                && row.reference == text(note.to_owned())
                && row.note == text(note.to_owned())
                && row.description == text(format!("about {note}")),
            "it is {row:?}"
        );
    }
    Ok(())
}
