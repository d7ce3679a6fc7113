//! Parts that are kept together.

use super::{
    super::{
        error::Error,
        parts::{AccountPart, ChangePart, OccurrencePart, SchedulePart},
    },
    Intake, Refused, SignedBatch, SignedRow,
};

/// So many parts are kept in one statement; a batch of the journal may be longer.
pub(super) const FULL: usize = 2_048;

/// Parts with their numbers.
pub(super) struct Chunk<T> {
    items: Vec<T>,
    numbers: Vec<i64>,
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            numbers: Vec::new(),
        }
    }
}

impl<T: Kept> Chunk<T> {
    pub fn push(&mut self, number: i64, item: T) {
        self.items.push(item);
        self.numbers.push(number);
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Keeps all. When one of them is refused, each by itself, to name the first one.
    pub async fn flush<I: Intake>(&mut self, intake: &mut I) -> Result<(), Error> {
        let (items, numbers) = (std::mem::take(&mut self.items), std::mem::take(&mut self.numbers));
        for (items, numbers) in items.chunks(FULL).zip(numbers.chunks(FULL)) {
            match T::keep(intake, items).await {
                Ok(()) => {}
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Rule(_)) => keep_each(intake, items, numbers).await?,
            }
        }
        Ok(())
    }
}

async fn keep_each<T: Kept, I: Intake>(intake: &mut I, items: &[T], numbers: &[i64]) -> Result<(), Error> {
    for (item, number) in items.iter().zip(numbers) {
        match T::keep(intake, std::slice::from_ref(item)).await {
            Ok(()) => {}
            Err(Refused::Failed(error)) => return Err(error),
            Err(Refused::Rule(rule)) => return Err(Error::BadExport(format!("part {number}: {rule}"))),
        }
    }
    Ok(())
}

/// Something that a transaction keeps.
pub(super) trait Kept: Sized + Send + Sync {
    fn keep<I: Intake>(intake: &mut I, items: &[Self]) -> impl Future<Output = Result<(), Refused>> + Send;
}

impl Kept for AccountPart {
    async fn keep<I: Intake>(intake: &mut I, items: &[Self]) -> Result<(), Refused> {
        intake.accounts(items).await
    }
}

impl Kept for ChangePart {
    async fn keep<I: Intake>(intake: &mut I, items: &[Self]) -> Result<(), Refused> {
        intake.changes(items).await
    }
}

impl Kept for SignedRow {
    async fn keep<I: Intake>(intake: &mut I, items: &[Self]) -> Result<(), Refused> {
        intake.rows(items).await
    }
}

impl Kept for SignedBatch {
    async fn keep<I: Intake>(intake: &mut I, items: &[Self]) -> Result<(), Refused> {
        intake.batches(items).await
    }
}

impl Kept for SchedulePart {
    async fn keep<I: Intake>(intake: &mut I, items: &[Self]) -> Result<(), Refused> {
        intake.schedules(items).await
    }
}

impl Kept for OccurrencePart {
    async fn keep<I: Intake>(intake: &mut I, items: &[Self]) -> Result<(), Refused> {
        intake.occurrences(items).await
    }
}
