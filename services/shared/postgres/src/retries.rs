use std::time::Duration;

use tokio::time::sleep;

use crate::errors::is_transient_code;

const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// An error that tells whether its transaction was rolled back only because another one was in its way.
pub trait Transient {
    /// True for a serialization failure or a deadlock, and nothing else: the transaction was certainly rolled back, and
    /// the same may work in a moment.
    fn is_transient(&self) -> bool;
}

impl Transient for sqlx::Error {
    fn is_transient(&self) -> bool {
        let code = self
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        code.is_some_and(|code| is_transient_code(&code))
    }
}

/// Runs a transaction up to 5 times while it fails with a serialization failure or a deadlock, with pauses of full jitter.
///
/// The whole transaction has to be inside of `transaction`, from `begin` to `commit`.
///
/// # Errors
/// The last error, or the first that is not transient.
pub async fn retry<T, E, F, R>(mut transaction: F) -> Result<T, E>
where
    E: Transient,
    F: FnMut() -> R,
    R: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match transaction().await {
            Err(error) if error.is_transient() => {}
            result => return result,
        }
        sleep(pause.mul_f64(rand::random())).await;
        pause *= 2;
    }
    transaction().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Failed {
        transient: bool,
    }

    impl Transient for Failed {
        fn is_transient(&self) -> bool {
            self.transient
        }
    }

    async fn tries(transient: bool, succeed_at: u32) -> (Result<u32, Failed>, u32) {
        let mut tries = 0;
        let result = retry(|| {
            tries += 1;
            let result = if tries == succeed_at {
                Ok(tries)
            } else {
                Err(Failed { transient })
            };
            async move { result }
        })
        .await;
        (result, tries)
    }

    #[tokio::test(start_paused = true)]
    async fn only_transient_failures_are_retried_and_not_for_ever() {
        assert_eq!(tries(true, 1).await, (Ok(1), 1));
        assert_eq!(tries(true, 5).await, (Ok(5), 5));
        assert_eq!(tries(true, 6).await, (Err(Failed { transient: true }), 5));
        assert_eq!(tries(false, 2).await, (Err(Failed { transient: false }), 1));
    }
}
