//! Lets an HTTP/2 connection write for many requests at once.

use std::{future::poll_fn, pin::pin, task::Poll};

/// Runs a connection so that each time it is woken, the tasks that are ready go first. The runtime would run it at once after
/// the first task that gives it something to send, and each request would be a write to the socket of its own.
pub async fn gather<F: Future>(connection: F) -> F::Output {
    let mut connection = pin!(connection);
    let mut waited = false;
    poll_fn(|context| {
        waited = !waited;
        if waited {
            // a task that wakes itself goes to the end of the queue
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_is_ready_goes_first() {
        let (ready, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let connection = gather(async { seen.store(ready.load(Ordering::SeqCst), Ordering::SeqCst) });
        let others = async { ready.store(3, Ordering::SeqCst) };
        tokio::join!(connection, others);
        assert_eq!(seen.load(Ordering::SeqCst), 3);
    }
}
