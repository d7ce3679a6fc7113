use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use proto::transfer::v1::{
    Entry, GetBalanceRequest, GetStatementCsvRequest, GetStatementRequest, ListEntriesRequest,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tonic::Code;
use transfer::{
    app::order::{Action, Item, Order, Party},
    domain::{
        account::Role,
        command::{Authority, Command, Hold, Note},
    },
};
use uuid::Uuid;

use super::{
    counter::{Client, Counter, refused, refused_field},
    ledger_in_memory::{Known, Leg, Memory, Seen},
    world::{World, amount, order, soon, usd},
};
use transfer::app::directory::Accounts as _;

const USERS: i64 = 4;

/// Random transfers of all kinds, and what they should have done.
struct Past {
    counter: Counter,
    random: StdRng,
    memory: Memory,
    accounts: Vec<i64>,
}

impl Past {
    async fn new(world: &World) -> Self {
        let counter = Counter::open(world).await;
        let mut accounts = Vec::new();
        for user in 1..=USERS {
            accounts.push(counter.replica.ledger.open_main(user, usd()).await.unwrap());
        }
        let treasury = counter
            .replica
            .store
            .system_account(Role::Treasury, usd())
            .await
            .unwrap();
        accounts.push(treasury);
        let seed = super::money_is_conserved_by_replicas::seed();
        let mut past = Self {
            counter,
            random: StdRng::seed_from_u64(seed),
            memory: Memory::default(),
            accounts,
        };
        for user in 1..=USERS {
            let mut deposit = order(0, user, 1_000);
            (deposit.by, deposit.from) = (Authority::Bank, Party::Account(treasury));
            past.run(vec![Action::Transfer(deposit)]).await;
        }
        past
    }

    /// Runs actions as one commit.
    async fn run(&mut self, actions: Vec<Action>) {
        let items = actions.iter().map(|action| Item {
            action: action.clone(),
            linked: false,
        });
        let results = self
            .counter
            .replica
            .ledger
            .run_all(items.collect(), false, soon())
            .await
            .unwrap();
        for (action, result) in actions.iter().zip(results) {
            // what the rules refuse is the business of other tests
            if let Ok(done) = result {
                let (id, known, reference) = self.legs(action);
                self.memory.make(id, known, &reference, done.at, ends(action));
            }
        }
    }

    /// What an action does when it is accepted.
    fn legs(&self, action: &Action) -> (Uuid, Known, String) {
        match action {
            Action::Transfer(order) => {
                let legs = order.to.iter().map(|(to, amount)| Leg {
                    debit: self.account(order.from),
                    credit: self.account(*to),
                    moved: if order.hold.is_some() { 0 } else { amount.minor() },
                    held: if order.hold.is_some() { amount.minor() } else { 0 },
                });
                let reference = order.note.as_ref().and_then(|note| note.reference.clone());
                (order.id, Known::of(legs), reference.unwrap_or_default())
            }
            Action::Direct(command) => (command.id(), self.memory.done_to(command), String::new()),
        }
    }

    fn account(&self, party: Party) -> i64 {
        match party {
            Party::User(user) => self.accounts[usize::try_from(user - 1).unwrap()],
            Party::Account(account) => account,
            Party::Treasury => panic!("the treasury is named by its number"),
        }
    }

    fn some_action(&mut self) -> Action {
        let id = Uuid::now_v7();
        let by = Authority::Bank;
        let kind = self.random.random_range(0..10);
        let Some(earlier) = self.memory.some(&mut self.random).filter(|_| kind >= 6) else {
            return Action::Transfer(self.some_order());
        };
        Action::Direct(match kind {
            6 => Command::Post {
                id,
                by,
                pending: earlier,
                amount: None,
            },
            7 => Command::Post {
                id,
                by,
                pending: earlier,
                amount: Some(amount(self.random.random_range(1..=60))),
            },
            8 => Command::Void {
                id,
                by,
                pending: earlier,
            },
            _ => Command::Reverse {
                id,
                by,
                original: earlier,
                note: None,
            },
        })
    }

    fn some_order(&mut self) -> Order {
        let from = self.random.random_range(1..=USERS);
        let mut made = order(from, from % USERS + 1, self.random.random_range(1..=120));
        made.by = Authority::Bank;
        if self.random.random_ratio(1, 4) {
            let more = (1..=USERS).filter(|user| *user != from && *user != from % USERS + 1);
            let more = more.map(|user| (Party::User(user), amount(self.random.random_range(1..=30))));
            made.to.extend(more.collect::<Vec<_>>());
        }
        if self.random.random_ratio(1, 3) {
            made.hold = Some(Hold {
                until: DateTime::from_timestamp(4_000_000_000, 0).unwrap(),
                named: true,
            });
        }
        let reference = ["", "rent", "rent", "=1+1"][self.random.random_range(0..4)];
        if !reference.is_empty() {
            made.note = Some(Arc::new(Note {
                reference: Some(reference.to_owned()),
                description: Some("a \"text\", with a comma".to_owned()),
                ..Note::default()
            }));
        }
        made
    }

    async fn happen(&mut self, times: usize) {
        for _ in 0..times {
            let together = self.random.random_range(1..=4);
            let actions = (0..together).map(|_| self.some_action()).collect();
            self.run(actions).await;
        }
    }

    fn client(&self) -> Client {
        self.counter.operator(9)
    }

    fn some_account(&mut self) -> i64 {
        self.accounts[self.random.random_range(0..self.accounts.len())]
    }

    /// A moment of an entry, just before, just behind, or long ago.
    fn some_moment(&mut self, account: i64) -> DateTime<Utc> {
        let seen = self.memory.entries(account);
        let at = match self.random.random_range(0..=seen.len()) {
            0 => DateTime::from_timestamp(1_000, 0).unwrap(),
            entry => seen[entry - 1].at,
        };
        at + TimeDelta::microseconds(self.random.random_range(-1..=1))
    }
}

fn ends(action: &Action) -> Option<Uuid> {
    match action {
        Action::Transfer(_) => None,
        Action::Direct(command) => command.original(),
    }
}

fn told(entry: &Entry) -> Seen {
    let at = entry.created_at.unwrap();
    Seen {
        position: entry.position,
        id: entry.transfer_id.parse().unwrap(),
        amount: entry.amount,
        held: entry.held,
        posted_after: entry.posted_after,
        held_after: entry.held_after,
        counterparty: entry.counterparty_account_id,
        reference: entry.reference.clone(),
        at: DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).unwrap()).unwrap(),
    }
}

fn timestamp(at: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap(),
    }
}

#[tokio::test]
async fn at_every_moment() {
    let world = World::new().await;
    let mut past = Past::new(&world).await;
    past.happen(60).await;
    // transfer, pending, post, void, reversal: whatever was refused
    let mut rounds = 0;
    while world.sql("SELECT count(DISTINCT kind) FROM journal").await < 5 {
        rounds += 1;
        assert!(rounds < 100, "something never happens");
        past.happen(5).await;
    }
    let mut client = past.client();
    for _ in 0..300 {
        let account_id = past.some_account();
        let moment = past.some_moment(account_id);
        let at = Some(timestamp(moment));
        let balance = client
            .get_balance(GetBalanceRequest { account_id, at })
            .await
            .unwrap();
        let balance = balance.into_inner().balance.unwrap();
        let (position, posted, held) = past.memory.balance(account_id, moment);
        assert_eq!(
            (balance.position, balance.posted, balance.held, balance.at),
            (position, posted, held, at),
            "account {account_id} at {moment}"
        );
    }
    for account_id in past.accounts.clone() {
        let now = client
            .get_balance(GetBalanceRequest { account_id, at: None })
            .await
            .unwrap();
        let now = now.into_inner().balance.unwrap();
        let last = past.memory.entries(account_id).last().cloned().unwrap();
        assert_eq!(
            (now.position, now.posted, now.held, now.at),
            (
                last.position,
                last.posted_after,
                last.held_after,
                Some(timestamp(last.at))
            )
        );
        let at = Some(timestamp(DateTime::from_timestamp(4_000_000_000, 0).unwrap()));
        let future = client.get_balance(GetBalanceRequest { account_id, at }).await;
        assert_eq!(refused_field(future), "at");
    }
    world.assert_sound().await;
}

/// A random question, and the entries that answer it.
fn some_list(past: &mut Past) -> (ListEntriesRequest, Vec<Seen>) {
    let account_id = past.some_account();
    let mut moments = [past.some_moment(account_id), past.some_moment(account_id)];
    moments.sort_unstable();
    let [from, to] = moments.map(|moment| past.random.random_bool(0.5).then_some(moment));
    let reference = ["", "", "rent", "=1+1", "none"][past.random.random_range(0..5)];
    let oldest_first = past.random.random_bool(0.5);
    let mut expected = past.memory.between(account_id, from, to);
    expected.retain(|seen| reference.is_empty() || seen.reference == reference);
    if !oldest_first {
        expected.reverse();
    }
    let request = ListEntriesRequest {
        account_id,
        page_size: past.random.random_range(1..=20),
        page_token: String::new(),
        oldest_first,
        from_time: from.map(timestamp),
        to_time: to.map(timestamp),
        reference: reference.to_owned(),
    };
    (request, expected)
}

#[tokio::test]
async fn and_lists_of_entries_in_both_directions() {
    let world = World::new().await;
    let mut past = Past::new(&world).await;
    past.happen(60).await;
    let mut client = past.client();
    for _ in 0..40 {
        let (mut request, expected) = some_list(&mut past);
        let mut pages = Vec::new();
        let mut back = loop {
            let page = client.list_entries(request.clone()).await.unwrap().into_inner();
            assert_eq!(
                page.previous_page_token.is_empty(),
                pages.is_empty(),
                "{request:?}"
            );
            assert!(
                pages.is_empty() || !page.entries.is_empty(),
                "an empty page behind another one"
            );
            pages.push(page.entries.iter().map(told).collect::<Vec<_>>());
            if page.next_page_token.is_empty() {
                break page.previous_page_token;
            }
            request.page_token = page.next_page_token;
        };
        assert_eq!(pages.concat(), expected, "{request:?}");
        for page in pages.iter().rev().skip(1) {
            request.page_token = back;
            let answer = client.list_entries(request.clone()).await.unwrap().into_inner();
            assert_eq!(
                &answer.entries.iter().map(told).collect::<Vec<_>>(),
                page,
                "{request:?}"
            );
            assert!(!answer.next_page_token.is_empty());
            back = answer.previous_page_token;
        }
        assert_eq!(back, "", "before the first page there is none");
    }
}

#[tokio::test]
async fn and_statements() {
    let world = World::new().await;
    let mut past = Past::new(&world).await;
    past.happen(40).await;
    let mut client = past.client();
    for _ in 0..20 {
        let account_id = past.some_account();
        let mut moments = [past.some_moment(account_id), past.some_moment(account_id)];
        moments.sort_unstable();
        let [from, to] = moments.map(|moment| past.random.random_bool(0.7).then_some(moment));
        let expected = past.memory.between(account_id, from, to);
        let mut balance = from.map_or((0, 0, 0), |from| {
            past.memory.balance(account_id, from - TimeDelta::microseconds(1))
        });
        let mut request = GetStatementRequest {
            account_id,
            from_time: from.map(timestamp),
            to_time: to.map(timestamp),
            page_size: past.random.random_range(1..=15),
            page_token: String::new(),
        };
        let csv = GetStatementCsvRequest {
            account_id,
            from_time: request.from_time,
            to_time: request.to_time,
        };
        let csv = client.get_statement_csv(csv).await.unwrap().into_inner();
        let rows: Vec<csv::StringRecord> = csv::Reader::from_reader(&*csv.data)
            .records()
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            rows.iter()
                .map(|row| (
                    row[0].parse().unwrap(),
                    row[8].parse().unwrap(),
                    row[10].to_owned()
                ))
                .collect::<Vec<_>>(),
            expected
                .iter()
                .map(|seen| (seen.position, seen.posted_after, seen.reference.clone()))
                .collect::<Vec<(i64, i64, String)>>()
        );
        let mut entries = Vec::new();
        loop {
            let page = client.get_statement(request.clone()).await.unwrap().into_inner();
            let [opening, closing] = [page.opening, page.closing].map(|balance| {
                let balance = balance.unwrap();
                (balance.position, balance.posted, balance.held)
            });
            assert_eq!(opening, balance, "{request:?}");
            entries.extend(page.entries.iter().map(told));
            if let Some(last) = entries.last().filter(|_| !page.entries.is_empty()) {
                balance = (last.position, last.posted_after, last.held_after);
            }
            assert_eq!(closing, balance, "{request:?}");
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
            // what comes while somebody reads is not a part of it
            past.happen(1).await;
        }
        assert_eq!(entries, expected, "{request:?}");
    }
}

#[tokio::test]
async fn but_a_statement_in_one_piece_has_an_end() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(2, 1_000).await;
    let item = || Item {
        action: Action::Transfer(order(1, 2, 1)),
        linked: false,
    };
    let mut deposit = order(0, 1, 100_000);
    (deposit.by, deposit.from) = (Authority::Bank, Party::Treasury);
    counter.replica.pay(deposit).await.unwrap();
    for _ in 0..4 {
        let items = (0..2_500).map(|_| item()).collect();
        counter
            .replica
            .ledger
            .run_all(items, false, soon())
            .await
            .unwrap();
    }
    let csv = GetStatementCsvRequest {
        account_id: counter.main_account(2).await,
        ..GetStatementCsvRequest::default()
    };
    let too_long = (Code::FailedPrecondition, "STATEMENT_TOO_LONG".to_owned());
    assert_eq!(refused(counter.user(2).get_statement_csv(csv).await), too_long);
    let first = ListEntriesRequest {
        account_id: csv.account_id,
        oldest_first: true,
        page_size: 2,
        ..ListEntriesRequest::default()
    };
    let first = counter
        .user(2)
        .list_entries(first)
        .await
        .unwrap()
        .into_inner()
        .entries;
    let without_the_first = GetStatementCsvRequest {
        from_time: first[1].created_at,
        ..csv
    };
    let body = counter
        .user(2)
        .get_statement_csv(without_the_first)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(csv::Reader::from_reader(&*body.data).records().count(), 10_000);
}
