//! Statements as CSV (RFC 4180).
//!
//! Texts stay as the parties wrote them, so that what is read from the file is what was written to the ledger. A mark in front
//! of those that a spreadsheet takes for a formula would be read back as a part of the text by everything else.

use chrono::SecondsFormat;
use csv::{Terminator, Writer, WriterBuilder};
use proto::http_body::HttpBody;

use crate::app::{error::Error, reads::history::Entry};

const CONTENT_TYPE: &str = "text/csv; charset=utf-8";

const HEADINGS: [&str; 12] = [
    "position",
    "created_at",
    "transfer_id",
    "kind",
    "counterparty_account",
    "currency",
    "amount",
    "held",
    "posted_after",
    "held_after",
    "reference",
    "description",
];

/// A statement that is being written.
pub struct Statement(Writer<Vec<u8>>);

impl Statement {
    /// One with its headings.
    pub fn begin() -> Result<Self, Error> {
        let mut writer = WriterBuilder::new()
            .terminator(Terminator::CRLF)
            .from_writer(Vec::new());
        writer.write_record(HEADINGS).map_err(broken)?;
        Ok(Self(writer))
    }

    /// Adds entries.
    pub fn add(&mut self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            let note = entry.row.note.as_deref();
            self.0
                .write_record([
                    &*entry.position.to_string(),
                    &entry.row.at.to_rfc3339_opts(SecondsFormat::Micros, true),
                    &entry.row.id.to_string(),
                    entry.row.kind.name(),
                    &entry.counterparty.to_string(),
                    entry.row.currency.code(),
                    &entry.amount.to_string(),
                    &entry.held.to_string(),
                    &entry.posted_after.to_string(),
                    &entry.held_after.to_string(),
                    note.and_then(|note| note.reference.as_deref())
                        .unwrap_or_default(),
                    note.and_then(|note| note.description.as_deref())
                        .unwrap_or_default(),
                ])
                .map_err(broken)?;
        }
        Ok(())
    }

    /// The answer.
    pub fn end(self) -> Result<HttpBody, Error> {
        let bytes = self.0.into_inner().map_err(|error| broken(error.into_error()))?;
        Ok(HttpBody {
            content_type: CONTENT_TYPE.to_owned(),
            data: bytes.into(),
        })
    }
}

/// Memory takes everything, so this does not happen.
fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Internal(error.into())
}
