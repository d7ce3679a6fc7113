//! A client as the contract wants it: it repeats what it does not know the end of, with the same id, at another replica.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures_util::StreamExt as _;
use proto::transfer::v1::{
    CreateTransfersRequest, GetTransferRequest, StreamTransfersRequest, Transfer, TransferResult,
    transfer_action::Action, transfer_service_client::TransferServiceClient,
};
use rand::{RngExt as _, rngs::StdRng};
use rpc::{
    Caller,
    caller::{HEADER, Key},
};
use tests::{Service, TestWorld, eventually};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::{
    order::{By, Message, Order},
    summary::Tally,
};

/// So long an outcome may stay unknown: longer than everything that is broken at the end of the chaos takes to mend.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long an attempt may be under way behind its deadline: as long as it took to arrive.
const TRANSIT: Duration = Duration::from_millis(500);
/// Actions of a stream that wait for their results; more than a chain has.
const WINDOW: usize = 8;

/// A definite answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done, at a moment in microseconds; perhaps by an earlier attempt.
    Done { at: i64, replayed: bool },
    /// It was refused, and nothing was written.
    Refused { code: Code, reason: String },
}

impl Answer {
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Done { .. } => "done",
            Self::Refused { reason, .. } => reason,
        }
    }

    fn of_result(result: TransferResult) -> Self {
        match result.error {
            Some(error) => Self::Refused {
                code: Code::from_i32(error.code),
                reason: error.reason,
            },
            None => Self::Done {
                at: result.created_at.map_or(0, |at| micros(at.seconds, at.nanos)),
                replayed: result.replayed,
            },
        }
    }
}

/// What a client was told about an order in the end.
#[derive(Clone, Debug)]
pub struct Record {
    pub order: Order,
    pub answer: Answer,
    /// Attempts before, of which it heard no end.
    pub unknown: u32,
    /// The chain that it is a member of.
    pub chain: Option<uuid::Uuid>,
}

/// The ways to all replicas.
pub struct Doors<'a> {
    channels: Vec<Channel>,
    key: &'a Key,
    pub tally: &'a Tally,
}

/// Asks with one method, and takes from the answer what all methods tell.
macro_rules! ask {
    ($ledger:ident.$method:ident($request:expr)) => {
        $ledger.$method($request).await.map(|response| {
            let replayed = response.metadata().contains_key("idempotent-replayed");
            let at = response.into_inner().created_at;
            Answer::Done {
                at: at.map_or(0, |at| micros(at.seconds, at.nanos)),
                replayed,
            }
        })
    };
}

impl<'a> Doors<'a> {
    /// Connections of a client of its own.
    pub fn open(world: &'a TestWorld, tally: &'a Tally) -> Result<Self> {
        let channels = world
            .local()
            .addresses(Service::Transfer)
            .into_iter()
            .map(|address| {
                let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
                Ok(endpoint
                    .connect_timeout(Duration::from_secs(1))
                    .tcp_nodelay(true)
                    .connect_lazy())
            });
        Ok(Self {
            channels: channels.collect::<Result<_>>()?,
            key: world.key(),
            tally,
        })
    }

    pub fn channel(&self, replica: usize) -> Channel {
        self.channels[replica % self.channels.len()].clone()
    }

    /// A request in the name of a caller; a signature lives for seconds, so each has its own.
    pub fn request<T>(&self, caller: &Caller, message: T, patience: Duration) -> Result<Request<T>, Status> {
        let context = self.key.sign("gateway", caller);
        let context = context.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let context = MetadataValue::try_from(context.as_bytes())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert(HEADER, context);
        request.set_timeout(patience);
        Ok(request)
    }

    /// Asks one replica once.
    async fn once(
        &self,
        at: usize,
        order: &Order,
        dry_run: bool,
        patience: Duration,
    ) -> Result<Answer, Status> {
        let mut ledger = TransferServiceClient::new(self.channel(at));
        let caller = order.by.caller();
        match order.message(dry_run) {
            Message::Action(Action::Create(message)) => {
                ask!(ledger.create_transfer(self.request(&caller, message, patience)?))
            }
            Message::Action(Action::Post(message)) => {
                ask!(ledger.post_transfer(self.request(&caller, message, patience)?))
            }
            Message::Action(Action::Void(message)) => {
                ask!(ledger.void_transfer(self.request(&caller, message, patience)?))
            }
            Message::Action(Action::Reverse(message)) => {
                ask!(ledger.reverse_transfer(self.request(&caller, message, patience)?))
            }
            Message::Deposit(message) => ask!(ledger.deposit(self.request(&caller, message, patience)?)),
            Message::Withdraw(message) => ask!(ledger.withdraw(self.request(&caller, message, patience)?)),
        }
    }

    /// Asks one replica after another until one of them knows; and how many did not.
    pub async fn until_known(
        &self,
        order: &Order,
        dry_run: bool,
        choices: &mut StdRng,
    ) -> Result<(Answer, u32)> {
        let (answer, unknown) = self
            .until(order.kind(), choices, async |at, patience, _| {
                self.once(at, order, dry_run, patience).await
            })
            .await?;
        Ok((answer?, unknown))
    }

    /// Asks one replica until it knows.
    pub async fn until_it_answers(&self, at: usize, order: &Order, within: Duration) -> Result<Answer> {
        eventually(&format!("replica {at} answers"), within, async || {
            let answer = self.once(at, order, false, Duration::from_secs(2)).await;
            answer.map_err(anyhow::Error::from)
        })
        .await
    }

    /// Reads a transfer at any replica.
    pub async fn read(&self, order: &Order, choices: &mut StdRng) -> Result<Result<Transfer, Answer>> {
        let caller = order.by.caller();
        let found = RefCell::new(None);
        let (answer, _) = self
            .until("read", choices, async |at, patience, _| {
                let message = GetTransferRequest {
                    transfer_id: order.id.to_string(),
                };
                let request = self.request(&caller, message, patience)?;
                let mut ledger = TransferServiceClient::new(self.channel(at));
                *found.borrow_mut() = ledger.get_transfer(request).await?.into_inner().transfer;
                Ok(Answer::Done {
                    at: 0,
                    replayed: false,
                })
            })
            .await?;
        match answer? {
            Answer::Done { .. } => Ok(Ok(found.into_inner().context("an answer without a transfer")?)),
            refused @ Answer::Refused { .. } => Ok(Err(refused)),
        }
    }

    /// Runs a batch until its outcome is known.
    pub async fn batch(
        &self,
        orders: &[(Order, bool)],
        dry_run: bool,
        choices: &mut StdRng,
    ) -> Result<(Vec<Answer>, u32)> {
        let actions: Vec<_> = orders
            .iter()
            .filter_map(|(order, linked)| order.action(*linked))
            .collect();
        let caller = caller_of(orders);
        let results = RefCell::new(Vec::new());
        let (answer, unknown) = self
            .until("batch", choices, async |at, patience, refusals_count| {
                let message = CreateTransfersRequest {
                    actions: actions.clone(),
                    dry_run,
                };
                let request = self.request(&caller, message, patience)?;
                let mut ledger = TransferServiceClient::new(self.channel(at));
                let answered = ledger.create_transfers(request).await?.into_inner().results;
                if !refusals_count && answered.iter().any(|result| result.error.is_some()) {
                    return Err(too_early());
                }
                *results.borrow_mut() = answered;
                Ok(Answer::Done {
                    at: 0,
                    replayed: false,
                })
            })
            .await?;
        let answer = answer?;
        ensure!(answer.is_done(), "a whole batch was refused: {answer:?}");
        let results = results.into_inner();
        for (place, (result, (order, _))) in results.iter().zip(orders).enumerate() {
            ensure!(
                result.index == i64::try_from(place)? && result.transfer_id == order.id.to_string(),
                "at {place} of a batch: {result:?} for {order:?}"
            );
        }
        ensure!(results.len() == orders.len(), "{} results", results.len());
        Ok((results.into_iter().map(Answer::of_result).collect(), unknown))
    }

    /// Runs actions by a stream. What has no result when it breaks is sent again by another one, chains as a whole.
    pub async fn stream(&self, orders: &[(Order, bool)], choices: &mut StdRng) -> Result<(Vec<Answer>, u32)> {
        let known: RefCell<BTreeMap<usize, Answer>> = RefCell::default();
        let (answer, unknown) = self
            .until("stream", choices, async |at, patience, refusals_count| {
                let done = known.borrow().len();
                let (mut results, broken) = self.stream_once(at, &orders[done..], patience).await;
                // what is behind a refusal that does not count is sent once more too, to stay in its order
                let early = results.iter().position(|result| !result.is_done());
                let early = early.filter(|_| !refusals_count);
                results.truncate(early.unwrap_or(results.len()));
                // a result counts when the whole of its chain has one
                let whole = (0..results.len()).rev().find(|place| !orders[done + place].1);
                let whole = whole.map_or(0, |last| last + 1);
                known
                    .borrow_mut()
                    .extend((done..).zip(results.into_iter().take(whole)));
                if known.borrow().len() == orders.len() {
                    return Ok(Answer::Done {
                        at: 0,
                        replayed: false,
                    });
                }
                Err(match broken {
                    Some(status) => status,
                    None if early.is_some() => too_early(),
                    None => Status::unavailable("the stream ended early"),
                })
            })
            .await?;
        let answer = answer?;
        ensure!(answer.is_done(), "a whole stream was refused: {answer:?}");
        Ok((known.into_inner().into_values().collect(), unknown))
    }

    /// The results until the stream ends, and how it broke.
    async fn stream_once(
        &self,
        at: usize,
        orders: &[(Order, bool)],
        patience: Duration,
    ) -> (Vec<Answer>, Option<Status>) {
        let (sender, receiver) = mpsc::channel(2 * WINDOW);
        let mut waiting = orders.iter().map(|(order, linked)| StreamTransfersRequest {
            action: order.action(*linked),
            dry_run: false,
        });
        for request in waiting.by_ref().take(WINDOW) {
            // there is room for as many
            let _ = sender.try_send(request);
        }
        let mut answers = Vec::new();
        let run = async {
            // the deadline is for each result, not for all of them
            let mut request = self.request(&caller_of(orders), ReceiverStream::new(receiver), patience)?;
            request.metadata_mut().remove("grpc-timeout");
            let mut ledger = TransferServiceClient::new(self.channel(at));
            let mut results = tokio::time::timeout(patience, ledger.stream_transfers(request))
                .await
                .map_err(|_| Status::deadline_exceeded("the stream does not begin"))??
                .into_inner();
            let mut sender = Some(sender);
            loop {
                match waiting.next() {
                    Some(request) => {
                        // its receiver may have gone with the stream, which the results tell
                        if let Some(sender) = &sender {
                            let _ = sender.try_send(request);
                        }
                    }
                    None => sender = None,
                }
                let next = tokio::time::timeout(patience, results.next()).await;
                match next.map_err(|_| Status::deadline_exceeded("no result"))? {
                    None => return Ok(()),
                    Some(result) => answers.extend(result?.result.map(Answer::of_result)),
                }
            }
        };
        let broken: Result<(), Status> = run.await;
        (answers, broken.err())
    }

    /// What `ask` is answered in the end.
    pub async fn until_answered<F>(&self, what: &str, choices: &mut StdRng, ask: F) -> Result<Answer>
    where
        F: AsyncFn(usize, Duration) -> Result<Answer, Status>,
    {
        let ask = async |at, patience, _| ask(at, patience).await;
        self.until(what, choices, ask).await?.0
    }

    /// Asks one replica after another until one of them knows. `ask` gets the replica, the time of the attempt, and whether
    /// a refusal counts: what is done is done, but what was refused may yet be done by an earlier attempt until its time is
    /// over.
    async fn until<F>(&self, what: &str, choices: &mut StdRng, ask: F) -> Result<(Result<Answer>, u32)>
    where
        F: AsyncFn(usize, Duration, bool) -> Result<Answer, Status>,
    {
        let first = choices.random_range(0..self.channels.len());
        let times: Vec<Duration> = (0..4)
            .map(|_| Duration::from_millis(choices.random_range(300..2_000)))
            .collect();
        let (attempts, unknown, early) = (Cell::new(0), Cell::new(0), Cell::new(false));
        // when no earlier attempt can be under way any more
        let quiet = Cell::new(Instant::now());
        let answer = eventually(&format!("the outcome of a {what}"), PATIENCE, async || {
            ensure!(
                !early.get() || Instant::now() >= quiet.get(),
                "it was refused too early"
            );
            let attempt = attempts.replace(attempts.get() + 1);
            let (begin, time) = (Instant::now(), times[attempt % times.len()]);
            let counts = begin >= quiet.get();
            // not all of it is ours to limit: connecting has no deadline of the call
            let asked = ask(first + attempt, time, counts);
            let answer = tokio::time::timeout(time + Duration::from_millis(250), asked).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
            self.tally.attempted(what, &answer);
            let status = match answer {
                Ok(answer) => return Ok(Ok(answer)),
                Err(status) => status,
            };
            match told(&status) {
                Told::Refused(answer) if counts => return Ok(Ok(answer)),
                Told::Refused(_) => early.set(true),
                Told::Nothing => {
                    unknown.set(unknown.get() + 1);
                    quiet.set(quiet.get().max(begin + time + TRANSIT));
                }
                Told::Nonsense => return Ok(Err(anyhow!("an answer that must not be: {status:?}"))),
            }
            bail!("{status}")
        })
        .await?;
        Ok((answer, unknown.get()))
    }
}

/// What an attempt says that was refused too early to count.
fn too_early() -> Status {
    Status::failed_precondition("refused while an earlier attempt may be under way")
}

enum Told {
    Refused(Answer),
    Nothing,
    Nonsense,
}

/// The codes are a promise about money: see the contract.
fn told(status: &Status) -> Told {
    match status.code() {
        code @ (Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::PermissionDenied
        | Code::AlreadyExists) => Told::Refused(Answer::Refused {
            code,
            reason: rpc::error::reason(status).unwrap_or_default(),
        }),
        // our own side calls an attempt cancelled whose time is over
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Unknown
        | Code::Internal
        | Code::ResourceExhausted
        | Code::Cancelled => Told::Nothing,
        _ => Told::Nonsense,
    }
}

fn caller_of(orders: &[(Order, bool)]) -> Caller {
    orders
        .first()
        .map_or(By::Operator, |(order, _)| order.by)
        .caller()
}

pub fn micros(seconds: i64, nanos: i32) -> i64 {
    seconds * 1_000_000 + i64::from(nanos) / 1_000
}
