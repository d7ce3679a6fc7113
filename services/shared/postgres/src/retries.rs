use std::time::Duration;

use tokio::time::sleep;

use crate::{
    errors::{is_lost_code, is_transient_code},
    pool::wary,
};

const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// An error that tells whether the same transaction may work in a moment.
pub trait Transient {
    /// True for a serialization failure or a deadlock, and nothing else: the transaction was certainly rolled back, and
    /// the same may work in a moment.
    fn is_transient(&self) -> bool;
    /// True when the session has ended: the server, or a router on the way to it, was replaced or has failed. Whether the
    /// transaction was committed is not known.
    fn is_lost(&self) -> bool;
}

impl Transient for sqlx::Error {
    fn is_transient(&self) -> bool {
        let code = self
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| is_transient_code(&code))
    }

    fn is_lost(&self) -> bool {
        match self {
            Self::Io(_) | Self::Protocol(_) | Self::BeginFailed => true,
            Self::Database(error) => error.code().is_some_and(|code| is_lost_code(&code)),
            _ => false,
        }
    }
}

/// Runs a transaction up to 5 times, with pauses of full jitter, while it fails with a serialization failure or a deadlock, or because its
/// session was lost: so a router or a leader that is replaced costs it milliseconds. Behind the first try, sessions of the pool are tried
/// before use: often all are lost at once.
///
/// The whole transaction has to be inside of `transaction`, from `begin` to `commit`; and to do it twice must be as good as once: it reads
/// only, or finds what it has done before, by a key that the client made.
///
/// # Errors
/// The last error, or the first of another kind.
pub async fn retry<T, E, F, R>(mut transaction: F) -> Result<T, E>
where
    E: Transient,
    F: FnMut() -> R,
    R: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    let mut result = transaction().await;
    for _ in 1..TRIES {
        match &result {
            Err(error) if error.is_transient() || error.is_lost() => {}
            _ => break,
        }
        sleep(pause.mul_f64(rand::random())).await;
        pause *= 2;
        result = wary(transaction()).await;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Failed {
        Transient,
        Lost,
        ForGood,
    }

    impl Transient for Failed {
        fn is_transient(&self) -> bool {
            *self == Self::Transient
        }

        fn is_lost(&self) -> bool {
            *self == Self::Lost
        }
    }

    async fn tries(failure: Failed, succeed_at: u32) -> (Result<u32, Failed>, u32) {
        let mut tries = 0;
        let result = retry(|| {
            tries += 1;
            std::future::ready(if tries == succeed_at {
                Ok(tries)
            } else {
                Err(failure)
            })
        })
        .await;
        (result, tries)
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_work_is_tried_again_and_not_for_ever() {
        for passes in [Failed::Transient, Failed::Lost] {
            assert_eq!(tries(passes, 1).await, (Ok(1), 1));
            assert_eq!(tries(passes, 5).await, (Ok(5), 5));
            assert_eq!(tries(passes, 6).await, (Err(passes), 5));
        }
        assert_eq!(tries(Failed::ForGood, 2).await, (Err(Failed::ForGood), 1));
    }
}
