//! Checks of request fields. All are checked, and all that is wrong is told at once.

use tonic::Status;
use uuid::Uuid;

/// The largest id: JSON numbers are exact up to here.
const MAX_ID: i64 = (1 << 53) - 1;
/// The size of a page that names none.
const DEFAULT_PAGE: i64 = 100;
/// The largest page.
const MAX_PAGE: i64 = 1_000;

/// What is wrong with a request.
#[derive(Default)]
pub struct Problems(Vec<(String, &'static str)>);

impl Problems {
    /// Adds a problem.
    pub fn add(&mut self, field: impl Into<String>, problem: &'static str) {
        self.0.push((field.into(), problem));
    }

    /// Takes a value, or adds the problem of its absence.
    pub fn need<T>(&mut self, field: &str, problem: &'static str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.add(field, problem);
        }
        value
    }

    /// Adds a problem if there is one.
    pub fn check(&mut self, field: &str, problem: Option<&'static str>) {
        if let Some(problem) = problem {
            self.add(field, problem);
        }
    }

    /// The id of a user or a room.
    pub fn id(&mut self, field: impl Into<String>, id: i64) -> i64 {
        if !(1..=MAX_ID).contains(&id) {
            self.add(field, "must be between 1 and 9007199254740991");
        }
        id
    }

    /// An id made by the client.
    pub fn uuid(&mut self, field: &str, text: &str) -> Uuid {
        // hyphenated, as the contract writes it back; not one of the other forms that the parser takes
        match Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 && !id.is_nil() => id,
            Ok(_) | Err(_) => {
                self.add(field, "must be a UUID like 123e4567-e89b-42d3-a456-426614174000");
                Uuid::nil()
            }
        }
    }

    /// The size of a page.
    pub fn page_size(&mut self, size: i32) -> i64 {
        match i64::from(size) {
            0 => DEFAULT_PAGE,
            size @ 1..=MAX_PAGE => size,
            _ => {
                self.add("page_size", "must be between 1 and 1000, or 0 for 100");
                DEFAULT_PAGE
            }
        }
    }

    /// A page token; empty is the first page.
    pub fn token<T>(&mut self, token: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        if token.is_empty() {
            return None;
        }
        let page = read(token);
        if page.is_none() {
            self.add("page_token", "must be empty or come from the answer before");
        }
        page
    }

    /// INVALID_ARGUMENT when there is any, or when a value that was needed is not there.
    pub fn finish_with<T>(self, value: Option<T>) -> Result<T, Status> {
        self.finish()?;
        value.ok_or_else(|| crate::error::internal("a field was refused without a problem"))
    }

    /// INVALID_ARGUMENT when there is any.
    pub fn finish(self) -> Result<(), Status> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(crate::error::invalid(
            self.0.iter().map(|(field, problem)| (field.as_str(), *problem)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_at_once() {
        let mut problems = Problems::default();
        problems.id("receiver_id", 0);
        problems.id("sender_id", MAX_ID + 1);
        problems.uuid("message_id", "123e4567e89b42d3a456426614174000");
        problems.page_size(-1);
        problems.token("?", |_| None::<()>);
        let status = problems.finish().unwrap_err();
        let fields: Vec<String> = crate::error::violations(&status)
            .into_iter()
            .map(|(field, _)| field)
            .collect();
        assert_eq!(
            fields,
            [
                "receiver_id",
                "sender_id",
                "message_id",
                "page_size",
                "page_token"
            ]
        );
    }

    #[test]
    fn what_is_right_passes() {
        let mut problems = Problems::default();
        assert_eq!(problems.id("a", MAX_ID), MAX_ID);
        let text = "123E4567-E89B-42D3-A456-426614174000";
        assert_eq!(problems.uuid("b", text).to_string(), text.to_lowercase());
        assert_eq!((problems.page_size(0), problems.page_size(1_000)), (100, 1_000));
        assert_eq!(problems.token("", |_| None::<()>), None);
        problems.finish().unwrap();
    }
}
