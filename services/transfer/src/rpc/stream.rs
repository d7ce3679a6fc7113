//! A stream of actions: what has arrived runs as one commit, while the next ones gather.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream::BoxStream};
use lifecycle::Lifecycle;
use proto::transfer::v1::{StreamTransfersRequest, StreamTransfersResponse, TransferAction};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::batch;
use crate::{
    app::{directory::Accounts, engine::MAX_BATCH, ledger::Ledger},
    domain::command::Authority,
};

/// How many actions share a commit at most; a longer chain still does.
const GROUP: usize = 2_048;
/// Results that wait for a client to read them; then nothing more is read from it.
const UNREAD: usize = 4_096;
/// How long a group may wait in the queue.
const PATIENCE: Duration = Duration::from_secs(10);

/// The results of a stream of actions.
pub(super) fn results<A: Accounts>(
    ledger: Arc<Ledger<A>>,
    by: Authority,
    mut actions: Streaming<StreamTransfersRequest>,
    lifecycle: &Lifecycle,
) -> BoxStream<'static, Result<StreamTransfersResponse, Status>> {
    let (results, receiver) = mpsc::channel(UNREAD);
    let life = lifecycle.clone();
    lifecycle.spawn_request_scoped("transfer stream", async move {
        let mut done = 0;
        let mut begun = Begun::default();
        loop {
            let group = tokio::select! {
                group = next_group(&mut actions, &mut begun) => group,
                () = life.draining() => Err(draining()),
            };
            let answers = match group {
                Ok(group) if group.actions.is_empty() => return,
                Ok(Group { actions, dry_run }) => tokio::select! {
                    answers = batch::run(&ledger, actions, by, dry_run, done, Instant::now() + PATIENCE) => answers,
                    // the client has gone, and may send the same elsewhere: what is not begun must not be
                    () = results.closed() => return,
                },
                Err(status) => Err(status),
            };
            match answers {
                Ok(answers) => {
                    done += answers.len();
                    for result in answers {
                        let answer = StreamTransfersResponse { result: Some(result) };
                        if results.send(Ok(answer)).await.is_err() {
                            return; // the client has gone
                        }
                    }
                }
                Err(status) => {
                    let _ = results.send(Err(status)).await;
                    return;
                }
            }
        }
    });
    ReceiverStream::new(receiver).boxed()
}

/// What runs together.
#[derive(Debug, Default)]
struct Group {
    actions: Vec<TransferAction>,
    dry_run: bool,
}

/// A chain that has arrived in part, or that is whole and has to wait for what came before it.
#[derive(Default)]
struct Begun {
    chain: Group,
    whole: bool,
}

impl Begun {
    fn push(&mut self, action: TransferAction, dry_run: bool) -> Result<(), Status> {
        if self.chain.actions.is_empty() {
            self.chain.dry_run = dry_run;
        } else if self.chain.dry_run != dry_run {
            return Err(rpc::error::invalid([(
                "dry_run",
                "must be the same for all actions of a chain",
            )]));
        }
        self.whole = !action.linked;
        self.chain.actions.push(action);
        Ok(())
    }

    fn take(&mut self) -> Group {
        self.whole = false;
        std::mem::take(&mut self.chain)
    }
}

/// Waits for an action, and takes the ones that have arrived with it. A chain whose end has not arrived stays in `begun`, and
/// keeps nothing waiting that came before it: its client may wait for those results. A dry run is a group of its own, so that it
/// does not matter what else has arrived. Empty at the end.
async fn next_group<S>(actions: &mut S, begun: &mut Begun) -> Result<Group, Status>
where
    S: Stream<Item = Result<StreamTransfersRequest, Status>> + Unpin,
{
    let mut group = Group::default();
    loop {
        if begun.whole {
            if begun.chain.dry_run {
                return Ok(if group.actions.is_empty() {
                    begun.take()
                } else {
                    group
                });
            }
            group.actions.append(&mut begun.take().actions);
        }
        if begun.chain.actions.len() >= MAX_BATCH {
            return Err(rpc::error::invalid([(
                "linked",
                "must be false after 8192 actions",
            )]));
        }
        let next = if group.actions.is_empty() {
            actions.next().await
        } else if group.actions.len() + begun.chain.actions.len() < GROUP {
            match actions.next().now_or_never() {
                Some(next) => next,
                None => return Ok(group),
            }
        } else {
            return Ok(group);
        };
        match next {
            Some(Ok(StreamTransfersRequest {
                action: Some(action),
                dry_run,
            })) => begun.push(action, dry_run)?,
            Some(Ok(StreamTransfersRequest { action: None, .. })) => {
                return Err(rpc::error::invalid([("action", "must be given")]));
            }
            Some(Err(status)) => return Err(status),
            // what is tied to nothing is refused for that
            None if group.actions.is_empty() => return Ok(begun.take()),
            None if begun.chain.dry_run => return Ok(group),
            None => {
                group.actions.append(&mut begun.take().actions);
                return Ok(group);
            }
        }
    }
}

pub(super) fn draining() -> Status {
    rpc::error::reject(
        Code::Unavailable,
        "DRAINING",
        "The instance stops; go on with another one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(linked: bool, dry_run: bool) -> StreamTransfersRequest {
        StreamTransfersRequest {
            action: Some(TransferAction { action: None, linked }),
            dry_run,
        }
    }

    #[tokio::test]
    async fn what_is_whole_does_not_wait_for_the_end_of_a_chain() {
        let (sender, receiver) = mpsc::channel(8);
        let mut actions = ReceiverStream::new(receiver);
        let send = |linked| sender.try_send(Ok(request(linked, false))).unwrap();
        let mut begun = Begun::default();
        let mut next = async |begun: &mut Begun| next_group(&mut actions, begun).await.unwrap().actions.len();
        for linked in [false, true, false, true] {
            send(linked);
        }
        assert_eq!(next(&mut begun).await, 3);
        assert_eq!(begun.chain.actions.len(), 1);
        send(true);
        send(false);
        assert_eq!(next(&mut begun).await, 3);
        // the last one is tied to nothing, which its result tells
        send(true);
        drop(sender);
        assert_eq!(next(&mut begun).await, 1);
        assert_eq!(next(&mut begun).await, 0);
    }

    #[tokio::test]
    async fn a_dry_run_is_alone() {
        let dry = [false, true, true, false, false, true];
        let requests = dry.map(|dry_run| Ok(request(false, dry_run)));
        let mut actions = tokio_stream::iter(requests);
        let mut begun = Begun::default();
        let mut groups = Vec::new();
        loop {
            let group = next_group(&mut actions, &mut begun).await.unwrap();
            if group.actions.is_empty() {
                break;
            }
            groups.push((group.actions.len(), group.dry_run));
        }
        assert_eq!(groups, [(1, false), (1, true), (1, true), (2, false), (1, true)]);
        // a chain is one as a whole
        let mut mixed = tokio_stream::iter([request(true, true), request(false, false)].map(Ok));
        let refused = next_group(&mut mixed, &mut Begun::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let mut chain = tokio_stream::iter(
            [(true, true), (false, true), (false, false)].map(|(linked, dry)| Ok(request(linked, dry))),
        );
        let group = next_group(&mut chain, &mut Begun::default()).await.unwrap();
        assert_eq!((group.actions.len(), group.dry_run), (2, true));
    }
}
