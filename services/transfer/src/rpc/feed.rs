//! Answers that are made while a client reads them.

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use lifecycle::Lifecycle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{status, stream::draining};
use crate::app::error::Error;

/// Answers that wait for a client to read them; then no more are made.
const UNREAD: usize = 256;

/// The answers that `work` sends, and its error behind them. It is dropped where it stands when the client goes, or the
/// instance stops. The permit lives as long as the work.
pub(super) fn feed<T, A, F>(
    name: &'static str,
    lifecycle: &Lifecycle,
    permit: OwnedSemaphorePermit,
    work: impl FnOnce(mpsc::Sender<T>) -> F,
    answer: impl FnMut(T) -> A + Send + 'static,
) -> BoxStream<'static, Result<A, Status>>
where
    T: Send + 'static,
    A: Send + 'static,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (items, unread) = mpsc::channel(UNREAD);
    // not in the channel: a client that does not read must hear of it when it reads again
    let (end, ended) = oneshot::channel();
    let (work, life) = (work(items.clone()), lifecycle.clone());
    lifecycle.spawn_request_scoped(name, async move {
        let status = tokio::select! {
            result = work => result.err().map(status::from_error),
            () = life.draining() => Some(draining()),
            () = items.closed() => None,
        };
        drop((items, permit));
        if let Some(status) = status {
            // the client has gone
            let _ = end.send(status);
        }
    });
    let end = ended
        .into_stream()
        .filter_map(|status| async { status.ok().map(Err) });
    ReceiverStream::new(unread).map(answer).map(Ok).chain(end).boxed()
}
