//! Bad input by every way in: each request hears its code, its reason and the fields that are wrong, and all tables stay
//! what they were.

mod actions;
mod cases;
mod deadlines;

use std::collections::BTreeMap;

use prost::Message;
use proto::transfer::v1::{
    CreateTransferRequest, CreateTransferResponse, CreateTransfersRequest, CreateTransfersResponse,
    StreamTransfersRequest, TransferAction, TransferResult, transfer_action::Action,
};
use rpc::Caller;
use tonic::Code;
use transfer::{
    app::directory::Accounts as _,
    domain::{account::Role, money::Currency},
};

use self::cases::{Accounts, BALANCE, Case, List, Refusal, good, invalid, refused};
use super::{
    server::{Server, user},
    world::{Replica, World, usd},
};

const CREATE: &str = "/kontor.transfer.v1.TransferService/CreateTransfer";
const BATCH: &str = "/kontor.transfer.v1.TransferService/CreateTransfers";

struct Bank {
    world: World,
    server: Server,
    accounts: Accounts,
}

type Tables = BTreeMap<&'static str, String>;

impl Bank {
    /// Users 1 to 3 with money in dollars, user 4 with none in euros.
    async fn open() -> Self {
        let world = World::new().await;
        let replica = world.replica();
        replica.users(3, BALANCE).await;
        let store = &replica.store;
        let main = store.main_accounts(&[1, 2]).await.unwrap();
        let of = |user| main.iter().find(|(owner, _)| *owner == user).unwrap().1;
        let accounts = Accounts {
            own: of(1),
            theirs: of(2),
            euros: euros(&replica).await,
            treasury: store.system_account(Role::Treasury, usd()).await.unwrap(),
        };
        Self {
            server: Server::start(&world),
            accounts,
            world,
        }
    }

    /// All that is kept.
    async fn tables(&self) -> Tables {
        let mut tables = Tables::new();
        for (name, sql) in [
            (
                "accounts",
                "SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t.id), '') FROM accounts t",
            ),
            (
                "journal",
                "SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t.id, t.leg), '') FROM journal t",
            ),
            (
                "batches",
                "SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t.lane, t.number), '') FROM batches t",
            ),
            (
                "holds",
                "SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t.pending_id), '') FROM holds t",
            ),
            (
                "schedules",
                "SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t.id), '') FROM schedules t",
            ),
        ] {
            let text = sqlx::query_scalar(sql)
                .fetch_one(self.world.pool())
                .await
                .unwrap();
            tables.insert(name, text);
        }
        tables
    }

    async fn refuses<Q: Message, A: Message + Default + std::fmt::Debug>(
        &self,
        by: &Caller,
        path: &'static str,
        cases: Vec<Case<Q>>,
    ) {
        for case in cases {
            let answer = self.server.call::<A>(by, path, &case.request).await;
            let Err(status) = answer else {
                panic!("{path}, {}: {answer:?}", case.what)
            };
            assert_eq!(
                Refusal::of(&status),
                case.refusal,
                "{path}, {}: {status:?}",
                case.what
            );
        }
    }

    async fn create(&self, change: impl FnOnce(&mut CreateTransferRequest)) -> String {
        let mut request = good();
        change(&mut request);
        let answer: CreateTransferResponse = self.server.call(&user(1), CREATE, &request).await.unwrap();
        answer.transfer_id
    }

    async fn batch(&self, actions: Vec<TransferAction>) -> Vec<TransferResult> {
        let request = CreateTransfersRequest {
            actions,
            dry_run: false,
        };
        let answer: CreateTransfersResponse = self.server.call(&user(1), BATCH, &request).await.unwrap();
        answer.results
    }
}

async fn euros(replica: &Replica) -> i64 {
    let euro = Currency::from_code("EUR").unwrap();
    replica.store.open_main(4, euro).await.unwrap().0
}

fn action(create: CreateTransferRequest, linked: bool) -> TransferAction {
    TransferAction {
        action: Some(Action::Create(create)),
        linked,
    }
}

fn refusal(result: &TransferResult) -> Refusal {
    let error = result.error.clone().unwrap_or_default();
    Refusal {
        code: Code::from(error.code),
        reason: error.reason,
        fields: error
            .violations
            .into_iter()
            .map(|violation| violation.field)
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_transfers_one_by_one() {
    let bank = Bank::open().await;
    let before = bank.tables().await;
    bank.refuses::<_, CreateTransferResponse>(&user(1), CREATE, cases::transfers(&bank.accounts))
        .await;
    let anonymous = refused(Code::Unauthenticated, "UNAUTHENTICATED");
    let mut nobodys = List::of(good);
    nobodys.add("nobody calls", anonymous, |_| {});
    bank.refuses::<_, CreateTransferResponse>(&Caller::Anonymous, CREATE, nobodys.cases)
        .await;
    assert_eq!(bank.tables().await, before);
    // and this is not because nothing works
    bank.create(|_| {}).await;
    assert_ne!(bank.tables().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_batch() {
    let bank = Bank::open().await;
    let before = bank.tables().await;
    // less than a message may have, though some fields have a megabyte
    for cases in in_groups(cases::transfers(&bank.accounts)) {
        let (requests, refusals): (Vec<_>, Vec<_>) = cases
            .into_iter()
            .map(|case| (action(case.request, false), (case.what, case.refusal)))
            .unzip();
        let results = bank.batch(requests).await;
        assert_eq!(results.len(), refusals.len());
        for (at, (result, (what, expected))) in results.iter().zip(refusals).enumerate() {
            assert_eq!(refusal(result), expected, "{what}");
            assert_eq!(
                (result.index, result.created_at),
                (i64::try_from(at).unwrap(), None)
            );
        }
    }
    assert_eq!(bank.tables().await, before);
}

/// Cases with different ids, as a batch needs them, and not too many long ones.
fn in_groups(cases: Vec<Case<CreateTransferRequest>>) -> Vec<Vec<Case<CreateTransferRequest>>> {
    let mut groups: Vec<Vec<Case<CreateTransferRequest>>> = vec![Vec::new()];
    let mut bytes = 0;
    for case in cases {
        bytes += case.request.encoded_len();
        if bytes > 3_000_000 {
            groups.push(Vec::new());
            bytes = case.request.encoded_len();
        }
        groups.last_mut().unwrap().push(case);
    }
    groups
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_stream() {
    let bank = Bank::open().await;
    let before = bank.tables().await;
    let cases = cases::transfers(&bank.accounts);
    let (requests, refusals): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .map(|case| (case.request, (case.what, case.refusal)))
        .unzip();
    let actions = requests.into_iter().map(|request| StreamTransfersRequest {
        action: Some(action(request, false)),
        dry_run: false,
    });
    let stream = tokio_stream::iter(actions.collect::<Vec<_>>());
    let mut client = bank.server.client(user(1));
    let mut results = client.stream_transfers(stream).await.unwrap().into_inner();
    for (what, expected) in refusals {
        let result = results.message().await.unwrap().unwrap().result.unwrap();
        assert_eq!(refusal(&result), expected, "{what}");
    }
    assert!(results.message().await.unwrap().is_none());
    let nothing = tokio_stream::iter([StreamTransfersRequest::default()]);
    let status = match client.stream_transfers(nothing).await {
        Ok(results) => results.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(Refusal::of(&status), invalid(&["action"]));
    assert_eq!(bank.tables().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_in_a_stream() {
    let bank = Bank::open().await;
    let before = bank.tables().await;
    let all = CreateTransferRequest {
        amount: BALANCE,
        ..good()
    };
    let request = |create: CreateTransferRequest, linked, dry_run| StreamTransfersRequest {
        action: Some(action(create, linked)),
        dry_run,
    };
    let requests = [
        // each could take all that there is, but two of a chain cannot
        request(all.clone(), false, true),
        request(all.clone(), false, true),
        request(all.clone(), true, true),
        request(good(), false, true),
    ];
    let mut client = bank.server.client(user(1));
    let stream = client.stream_transfers(tokio_stream::iter(requests)).await;
    let mut results = stream.unwrap().into_inner();
    for expected in [None, None, Some("LINKED_FAILED"), Some("INSUFFICIENT_BALANCE")] {
        let result = results.message().await.unwrap().unwrap().result.unwrap();
        assert_eq!(result.error.map(|error| error.reason).as_deref(), expected);
    }
    assert!(results.message().await.unwrap().is_none());
    let mixed = tokio_stream::iter([request(good(), true, true), request(good(), false, false)]);
    let status = match client.stream_transfers(mixed).await {
        Ok(results) => results.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(Refusal::of(&status), invalid(&["dry_run"]));
    assert_eq!(bank.tables().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_form_of_a_batch() {
    let bank = Bank::open().await;
    let before = bank.tables().await;
    let mut list = List::of(|| CreateTransfersRequest {
        actions: Vec::new(),
        dry_run: false,
    });
    list.add("an empty batch", invalid(&["actions"]), |_| {});
    list.add("one too many", invalid(&["actions"]), |request| {
        request.actions = (0..8_193).map(|_| action(good(), false)).collect();
    });
    list.add("more than is read", invalid(&["request"]), |request| {
        request.actions = (0..10)
            .map(|_| action(with_description(cases::megabyte()), false))
            .collect();
    });
    bank.refuses::<_, CreateTransfersResponse>(&user(1), BATCH, list.cases)
        .await;

    let linked = refused(Code::FailedPrecondition, "LINKED_FAILED");
    let same = good();
    let again = CreateTransferRequest {
        transfer_id: same.transfer_id.to_uppercase(),
        ..good()
    };
    let dry = CreateTransferRequest {
        dry_run: true,
        ..good()
    };
    let poor = CreateTransferRequest {
        amount: BALANCE + 1,
        ..good()
    };
    let bad = CreateTransferRequest { amount: 0, ..good() };
    let poor_hears = refused(Code::FailedPrecondition, "INSUFFICIENT_BALANCE");
    for (actions, expected) in [
        (
            vec![action(same, false), action(again, false)],
            vec![invalid(&["transfer_id"]); 2],
        ),
        (vec![action(good(), true)], vec![invalid(&["linked"])]),
        (
            vec![action(good(), true), action(good(), true)],
            vec![invalid(&["linked"]); 2],
        ),
        (vec![action(dry, false)], vec![invalid(&["dry_run"])]),
        (vec![TransferAction::default()], vec![invalid(&["action"])]),
        (
            vec![action(good(), true), action(bad, false)],
            vec![linked.clone(), invalid(&["amount"])],
        ),
        (
            vec![action(good(), true), action(poor, true), action(good(), false)],
            vec![linked.clone(), poor_hears, linked],
        ),
    ] {
        let results = bank.batch(actions).await;
        assert_eq!(results.iter().map(refusal).collect::<Vec<_>>(), expected);
    }
    let dry = CreateTransfersRequest {
        actions: longest(),
        dry_run: true,
    };
    let answer: CreateTransfersResponse = bank.server.call(&user(1), BATCH, &dry).await.unwrap();
    assert_eq!(answer.results.len(), 8_192);
    assert_eq!(answer.results.iter().find(|result| result.error.is_some()), None);
    assert_eq!(bank.tables().await, before);
}

fn with_description(description: String) -> CreateTransferRequest {
    CreateTransferRequest {
        description,
        ..good()
    }
}

/// As many actions as a batch may have, each with what people write about a payment.
fn longest() -> Vec<TransferAction> {
    let transfer = |_| CreateTransferRequest {
        amount: 1,
        reference: "r".repeat(64),
        metadata: [("order".to_owned(), "o".repeat(200))].into(),
        ..with_description("d".repeat(256))
    };
    (0..8_192)
        .map(transfer)
        .map(|create| action(create, false))
        .collect()
}
