use sqlx::migrate::MigrateError;

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection within the waiting time, or one that will never be possible.
    #[error("cannot connect to the database: {0}")]
    Connect(#[source] sqlx::Error),
    /// A migration failed; nothing of it was applied.
    #[error("migration {version} ({description}) failed: {source}")]
    Migration {
        /// The time stamp in the file's name.
        version: i64,
        /// The rest of the file's name.
        description: String,
        /// What the database said.
        source: Box<MigrateError>,
    },
    /// The migrations could not be looked at or locked.
    #[error("cannot migrate the database: {0}")]
    Migrations(#[source] Box<MigrateError>),
}

/// The name of the constraint that a statement violated.
pub fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

/// Whether the statement may work when it is tried later: the server is away, restarts, is overloaded, has become a
/// read-only replica, or ran out of time. Whether the statement took effect is not known.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        // what answers is not a PostgreSQL that works: a proxy whose server is away takes a connection and ends it
        | sqlx::Error::Protocol(_)
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_unavailable_code(&code)),
        _ => false,
    }
}

/// See appendix A of PostgreSQL's manual.
pub(crate) fn is_unavailable_code(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    // connection exceptions; insufficient resources (too many connections, disk full)
    matches!(class, "08" | "53")
        // shutdown, crash, starting; cancelled by a timeout; lock not available; left idle; a read-only replica
        || matches!(code, "57P01" | "57P02" | "57P03" | "57014" | "55P03" | "25P03" | "25006")
        // a transaction that lost against others, after all retries
        || is_transient_code(code)
}

/// Connection exceptions; shutdown, crash, starting: the session has ended, or never began.
pub(crate) fn is_lost_code(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "57P01" | "57P02" | "57P03")
}

/// Serialization failure, deadlock: rolled back for sure.
pub(crate) fn is_transient_code(code: &str) -> bool {
    matches!(code, "40001" | "40P01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_pass_are_told_from_those_that_stay() {
        for code in [
            "08006", "53300", "57P01", "57P03", "57014", "55P03", "25006", "40001", "40P01",
        ] {
            assert!(is_unavailable_code(code), "{code}");
        }
        for code in ["23505", "23514", "42601", "42P01", "22003", "28P01", ""] {
            assert!(!is_unavailable_code(code), "{code}");
        }
        assert!(is_unavailable(&sqlx::Error::PoolTimedOut));
        assert!(is_unavailable(&sqlx::Error::Protocol(
            "unexpected response from SSLRequest: 0x00".to_owned()
        )));
        assert!(!is_unavailable(&sqlx::Error::RowNotFound));
    }
}
