//! How long the database is waited for.
//!
//! A connection that was lost silently (the machine at its other end is gone, a firewall has forgotten it) gives neither an
//! answer nor an error for a quarter of an hour. The database limits its statements itself, but cannot say so there.

use std::time::Duration;

use super::error::Error;

/// Twice as long as a transaction may wait for a lock: what has not answered then will not.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the database answers, or that it does not. Whether a write took effect is then not known.
pub async fn answer<T, E: From<Silence>>(asked: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Silence.into()),
    }
}

/// The database has not answered.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer")]
pub struct Silence;

impl From<Silence> for Error {
    fn from(silence: Silence) -> Self {
        Self::Unavailable(silence.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let silent = answer(std::future::pending::<Result<(), Error>>()).await;
        assert!(matches!(silent, Err(Error::Unavailable(_))), "{silent:?}");
        let answered = answer(std::future::ready(Ok::<_, Error>(7))).await;
        assert!(matches!(answered, Ok(7)), "{answered:?}");
    }
}
