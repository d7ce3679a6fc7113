//! The entries of an account as a stream that does not end by itself.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lifecycle::Lifecycle;
use proto::transfer::v1::WatchAccountResponse;
use tonic::Status;

use super::{convert::accounts as convert, status, stream::draining};
use crate::app::watch::Watcher;

/// What a watcher sees, until the instance drains.
///
/// Nothing is read before the client has taken what was: one that does not read holds one page, and its place.
pub(super) fn entries(
    watcher: Watcher,
    lifecycle: Lifecycle,
) -> BoxStream<'static, Result<WatchAccountResponse, Status>> {
    let pages = stream::try_unfold((watcher, lifecycle), |(mut watcher, lifecycle)| async move {
        let page = tokio::select! {
            biased;
            () = lifecycle.draining() => return Err(draining()),
            page = watcher.next() => page.map_err(status::from_error)?,
        };
        let answers: Vec<_> = page
            .iter()
            .map(|entry| {
                Ok(WatchAccountResponse {
                    entry: Some(convert::entry(entry)),
                })
            })
            .collect();
        Ok(Some((stream::iter(answers), (watcher, lifecycle))))
    });
    pages.try_flatten().boxed()
}
