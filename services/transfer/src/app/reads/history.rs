//! The history of an account: its entries by position, and what the balance was.

use chrono::{DateTime, TimeDelta, Utc};

use super::{AccountRecord, Journal, Reads};
use crate::{
    app::error::Error,
    domain::{account::Account, journal::Row},
};

/// The most entries of a statement in one piece.
pub const LONGEST_STATEMENT: i64 = 10_000;

/// What a row of the journal did to one of its two accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number within the account.
    pub position: i64,
    /// By how much the posted balance changed.
    pub amount: i64,
    /// By how much the held amount changed.
    pub held: i64,
    /// The posted balance afterwards.
    pub posted_after: i64,
    /// The held amount afterwards.
    pub held_after: i64,
    /// The account on the other side.
    pub counterparty: i64,
    /// The row.
    pub row: Row,
}

impl Entry {
    /// What a row did to one of its accounts.
    pub fn of(row: Row, account: i64) -> Self {
        if row.debit == account {
            Self {
                position: row.debit_position,
                amount: -row.moved,
                held: row.held,
                posted_after: row.debit_posted,
                held_after: row.debit_held,
                counterparty: row.credit,
                row,
            }
        } else {
            Self {
                position: row.credit_position,
                amount: row.moved,
                held: 0,
                posted_after: row.credit_posted,
                held_after: row.credit_held,
                counterparty: row.debit,
                row,
            }
        }
    }
}

/// A part of a history, in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The account.
    pub account: i64,
    /// Entries behind this position,
    pub after: i64,
    /// and up to this one.
    pub until: i64,
    /// Begin at the lowest position, else at the highest.
    pub oldest_first: bool,
    /// So many at most.
    pub limit: i64,
    /// Only those with this reference.
    pub reference: Option<String>,
}

/// A span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// This moment and later.
    pub from: Option<DateTime<Utc>>,
    /// Before this moment.
    pub to: Option<DateTime<Utc>>,
}

/// Which entries, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of which time.
    pub span: Span,
    /// From the oldest to the newest, or the other way.
    pub oldest_first: bool,
    /// Only those with this reference.
    pub reference: Option<String>,
    /// So many at most.
    pub limit: i64,
}

/// Where a page begins: behind an entry, in the order of the list or against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The position of the entry.
    pub position: i64,
    /// Against the order of the list.
    pub back: bool,
}

/// A page of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of the list.
    pub entries: Vec<Entry>,
    /// The page behind it.
    pub next: Option<Cursor>,
    /// The page before it.
    pub previous: Option<Cursor>,
}

/// The balance behind an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// The sum of all entries.
    pub posted: i64,
    /// What is held.
    pub held: i64,
    /// The position of the entry; 0 before the first.
    pub position: i64,
    /// The time of the entry.
    pub at: Option<DateTime<Utc>>,
}

impl Balance {
    /// That of now.
    pub fn of(account: &Account) -> Self {
        Self {
            posted: account.posted,
            held: account.held,
            position: account.position,
            at: (account.position > 0).then_some(account.last_at),
        }
    }

    fn behind(entry: &Entry) -> Self {
        Self {
            posted: entry.posted_after,
            held: entry.held_after,
            position: entry.position,
            at: Some(entry.row.at),
        }
    }
}

/// Where a statement goes on, and where it ends, whatever is added meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Behind this position,
    pub after: i64,
    /// up to this one.
    pub until: i64,
}

/// A page of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The balance before the first entry.
    pub opening: Balance,
    /// The oldest first.
    pub entries: Vec<Entry>,
    /// The balance behind the last entry.
    pub closing: Balance,
    /// What is missing.
    pub rest: Option<Rest>,
}

impl<J: Journal> Reads<J> {
    /// The balance at a moment of the past, entries of that moment included.
    pub async fn balance_at(
        &self,
        record: &AccountRecord,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Balance, Error> {
        // the last entry may be ahead of this clock: its own moment is past
        if at > now.max(record.account.last_at) {
            return Err(Error::InTheFuture);
        }
        let span = Span {
            from: None,
            // times are microseconds
            to: Some(at + TimeDelta::microseconds(1)),
        };
        let until = self.bounds(record, span).await?.until;
        self.balance_behind(record.account.id, until).await
    }

    /// A page of an account's entries.
    pub async fn entries(
        &self,
        record: &AccountRecord,
        query: Query,
        cursor: Option<Cursor>,
    ) -> Result<Page, Error> {
        if let Some(cursor) = cursor {
            has_caught_up(record, cursor.position)?;
        }
        let mut bounds = self.bounds(record, query.span).await?;
        let back = cursor.is_some_and(|cursor| cursor.back);
        let ascending = query.oldest_first != back;
        if let Some(Cursor { position, .. }) = cursor {
            if ascending {
                bounds.after = bounds.after.max(position);
            } else {
                bounds.until = bounds.until.min(position.saturating_sub(1));
            }
        }
        let mut entries = self
            .journal
            .entries(&Scan {
                account: record.account.id,
                after: bounds.after,
                until: bounds.until,
                oldest_first: ascending,
                // one more tells whether there is more
                limit: query.limit.saturating_add(1),
                reference: query.reference,
            })
            .await?;
        let limit = usize::try_from(query.limit).unwrap_or(0);
        let more = entries.len() > limit;
        entries.truncate(limit);
        if back {
            entries.reverse();
        }
        // where a cursor came from, there are entries, for they are never taken away
        let (behind, before) = if back {
            (true, more)
        } else {
            (more, cursor.is_some())
        };
        let to = |entry: Option<&Entry>, back| {
            entry.map(|entry| Cursor {
                position: entry.position,
                back,
            })
        };
        Ok(Page {
            next: to(entries.last(), false).filter(|_| behind),
            previous: to(entries.first(), true).filter(|_| before),
            entries,
        })
    }

    /// A page of a statement; the first one without a `rest`.
    pub async fn statement(
        &self,
        record: &AccountRecord,
        span: Span,
        limit: i64,
        rest: Option<Rest>,
    ) -> Result<Statement, Error> {
        let Rest { after, until } = match rest {
            Some(rest) => {
                has_caught_up(record, rest.until)?;
                rest
            }
            None => self.bounds(record, span).await?,
        };
        let last = until.min(after.saturating_add(limit));
        // the entry before the page has the opening balance
        let before = i64::from(after > 0);
        let mut entries = self
            .journal
            .entries(&Scan {
                account: record.account.id,
                after: after - before,
                until: last.max(after),
                oldest_first: true,
                limit: limit.saturating_add(before),
                reference: None,
            })
            .await?;
        let opening = if before > 0 && !entries.is_empty() {
            Balance::behind(&entries.remove(0))
        } else {
            Balance::default()
        };
        Ok(Statement {
            opening,
            closing: entries.last().map_or(opening, Balance::behind),
            entries,
            rest: (last < until).then_some(Rest { after: last, until }),
        })
    }

    /// A whole statement, page by page, with what goes into it at the moment of the call.
    pub async fn whole_statement(
        &self,
        record: &AccountRecord,
        span: Span,
        mut page: impl FnMut(&[Entry]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        const PAGE: i64 = 1_000;
        let whole = self.bounds(record, span).await?;
        if whole.until - whole.after > LONGEST_STATEMENT {
            return Err(Error::StatementTooLong);
        }
        let mut rest = Some(whole);
        while let Some(next) = rest {
            let statement = self.statement(record, span, PAGE, Some(next)).await?;
            page(&statement.entries)?;
            rest = statement.rest;
        }
        Ok(())
    }

    /// The positions of a span of time.
    async fn bounds(&self, record: &AccountRecord, span: Span) -> Result<Rest, Error> {
        let account = &record.account;
        let mut moments: Vec<DateTime<Utc>> = span.from.into_iter().collect();
        moments.extend(span.to);
        let mut positions = if moments.is_empty() {
            Vec::new().into_iter()
        } else {
            self.journal
                .entries_before(account.id, &moments)
                .await?
                .into_iter()
        };
        let missing = || Error::Internal("a moment without a position".into());
        let after = match span.from {
            Some(_) => positions.next().ok_or_else(missing)?,
            None => 0,
        };
        let until = match span.to {
            Some(_) => positions.next().ok_or_else(missing)?,
            None => account.position,
        };
        Ok(Rest { after, until })
    }

    async fn balance_behind(&self, account: i64, position: i64) -> Result<Balance, Error> {
        let found = self
            .journal
            .entries(&Scan {
                account,
                after: position - 1,
                until: position,
                oldest_first: true,
                limit: 1,
                reference: None,
            })
            .await?;
        Ok(found.first().map(Balance::behind).unwrap_or_default())
    }
}

/// An earlier page may come from a database that is ahead of this one: then what follows is not known here yet, and an answer
/// would have a gap.
fn has_caught_up(record: &AccountRecord, position: i64) -> Result<(), Error> {
    if position <= record.account.position {
        Ok(())
    } else {
        Err(Error::Unavailable(
            "this database is behind the one that the page before came from".into(),
        ))
    }
}
