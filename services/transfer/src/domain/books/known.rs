//! What the books know of transfers that were made before, and whether a repeated command asks for the same.

use std::{collections::HashMap, ops::Range, sync::Arc};

use uuid::Uuid;

use super::{
    super::{
        command::{NewTransfer, Note, Refusal},
        journal::{Kind, Row},
        money::Amount,
    },
    Done,
};

/// What is known of an id.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Its rows.
    pub rows: Range<usize>,
    /// The rows that ended it, when it was pending.
    pub end: Option<Range<usize>>,
    /// Whether it was reversed.
    pub reversed: bool,
}

impl Known {
    pub fn new(rows: Range<usize>) -> Self {
        Self {
            rows,
            end: None,
            reversed: false,
        }
    }
}

/// What rows, in order of id and leg, tell of their ids.
pub(super) fn index(rows: &[Row]) -> HashMap<Uuid, Known> {
    let mut known: HashMap<Uuid, Known> = HashMap::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        known.entry(row.id).or_insert_with(|| Known::new(at..at)).rows.end = at + 1;
    }
    for row in rows {
        let Some(original) = row.original else { continue };
        let Some(range) = known.get(&row.id).map(|known| known.rows.clone()) else {
            continue;
        };
        if let Some(known) = known.get_mut(&original) {
            if row.kind.ends_pending() {
                known.end = Some(range);
            } else {
                known.reversed = true;
            }
        }
    }
    known
}

/// The first result again, when the rows are what the order asks for.
pub(super) fn same_transfer(rows: &[Row], order: &NewTransfer) -> Result<Done, Refusal> {
    let first = rows.first().ok_or(Refusal::IdReused("transfer_id"))?;
    let kind = if order.hold.is_some() {
        Kind::Pending
    } else {
        Kind::Transfer
    };
    let same_credits = || {
        rows.iter().map(|row| (row.credit, row.amount())).eq(order
            .credits
            .iter()
            .map(|credit| (credit.account, credit.amount.minor())))
    };
    let differs = if !matches!(first.kind, Kind::Transfer | Kind::Pending) {
        Some("transfer_id")
    } else if first.kind != kind {
        Some("pending")
    } else if first.debit != order.debit {
        Some("from")
    } else if rows.len() != order.credits.len() || (rows.len() > 1 && !same_credits()) {
        Some("splits")
    } else if order.credits.first().map(|credit| credit.account) != Some(first.credit) {
        Some("to")
    } else if !same_credits() {
        Some("amount")
    } else if order.currency.is_some_and(|named| named != first.currency) {
        Some("currency")
    } else if order
        .hold
        .is_some_and(|hold| hold.named && Some(hold.until) != first.expires_at)
    {
        Some("expires_at")
    } else {
        note_differs(first.note.as_ref(), order.note.as_ref())
    };
    outcome(first, differs)
}

/// The first result again, when the rows are of this kind and belong to the same transfer.
pub(super) fn same_action(
    rows: &[Row],
    kind: Kind,
    original: Uuid,
    original_field: &'static str,
    amount: Option<Amount>,
    note: Option<&Arc<Note>>,
) -> Result<Done, Refusal> {
    let first = rows.first().ok_or(Refusal::IdReused("transfer_id"))?;
    let differs = if first.kind != kind {
        Some("transfer_id")
    } else if first.original != Some(original) {
        Some(original_field)
    } else if kind == Kind::Post && !same_part(rows, amount) {
        Some("amount")
    } else {
        note_differs(first.note.as_ref(), note)
    };
    outcome(first, differs)
}

/// Whether as much was posted as is asked now.
fn same_part(rows: &[Row], amount: Option<Amount>) -> bool {
    match amount {
        Some(amount) => rows.iter().map(|row| row.moved).sum::<i64>() == amount.minor(),
        None => rows.iter().all(|row| row.moved == -row.held),
    }
}

fn outcome(first: &Row, differs: Option<&'static str>) -> Result<Done, Refusal> {
    match differs {
        Some(field) => Err(Refusal::IdReused(field)),
        None => Ok(Done {
            at: first.at,
            replayed: true,
        }),
    }
}

fn note_differs(first: Option<&Arc<Note>>, again: Option<&Arc<Note>>) -> Option<&'static str> {
    if first == again {
        return None;
    }
    let nothing = Note::default();
    let (first, again) = (
        first.map_or(&nothing, AsRef::as_ref),
        again.map_or(&nothing, AsRef::as_ref),
    );
    if first.reference != again.reference {
        Some("reference")
    } else if first.description != again.description {
        Some("description")
    } else if first.metadata != again.metadata {
        Some("metadata")
    } else {
        None
    }
}
