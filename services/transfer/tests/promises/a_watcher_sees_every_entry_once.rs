use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use proto::transfer::v1::{
    Entry, GetBalanceRequest, ListEntriesRequest, WatchAccountRequest, WatchAccountResponse,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Status, Streaming};
use transfer::{
    app::{
        error::Error,
        order::{Action, Item},
        reads::Reads,
        watch::{Asked, Tail, Tails, Watch},
    },
    domain::command::{Authority, Refusal},
    store::Postgres,
};

use super::{
    counter::{Client, Counter, refused, refused_field},
    money_is_conserved_by_replicas::seed,
    world::{Replica, World, order, soon},
};

/// Long: only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

async fn watch(client: &mut Client, account_id: i64, after_position: i64) -> Streaming<WatchAccountResponse> {
    let request = WatchAccountRequest {
        account_id,
        after_position,
    };
    client.watch_account(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchAccountResponse>) -> Result<Entry, Status> {
    let answer = timeout(PATIENCE, stream.message()).await.unwrap()?;
    Ok(answer.unwrap().entry.unwrap())
}

/// Moves money between users 1 to 3, as one of several who do.
async fn move_money(replica: Replica, seed: u64, times: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..times {
        let from = random.random_range(1..=3);
        match replica
            .pay(order(from, from % 3 + 1, random.random_range(1..=40)))
            .await
        {
            Ok(_) | Err(Error::Refused(Refusal::InsufficientBalance)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn listed(client: &mut Client, account_id: i64) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut request = ListEntriesRequest {
        account_id,
        page_size: 1_000,
        oldest_first: true,
        ..ListEntriesRequest::default()
    };
    loop {
        let page = client.list_entries(request.clone()).await.unwrap().into_inner();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            return entries;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_replica_wrote_it_and_wherever_it_connects() {
    let world = World::new().await;
    let counters = [Counter::open(&world).await, Counter::open(&world).await];
    counters[0].replica.users(3, 500).await;
    let account_id = counters[0].main_account(1).await;
    let seed = seed();
    let mut writers = JoinSet::new();
    for writer in 0..6_u64 {
        let replica = counters[usize::try_from(writer % 2).unwrap()].replica.clone();
        writers.spawn(move_money(replica, seed.wrapping_add(writer), 60));
    }
    let mut random = StdRng::seed_from_u64(seed);
    let (mut read, mut connections) = (Vec::<Entry>::new(), 0);
    let mut last = None;
    while last.is_none_or(|last| read.len() < last) {
        let counter = &counters[random.random_range(0..2)];
        let mut client = counter.user(1);
        let known = read.last().map_or(0, |entry| entry.position);
        let mut stream = watch(&mut client, account_id, known).await;
        connections += 1;
        for _ in 0..random.random_range(1..=30) {
            if last.is_none() && writers.is_empty() {
                last = Some(listed(&mut client, account_id).await.len());
            }
            if last.is_some_and(|last| read.len() >= last) {
                break;
            }
            tokio::select! {
                entry = next(&mut stream) => read.push(entry.unwrap()),
                Some(ended) = writers.join_next() => ended.unwrap(),
            }
        }
    }
    assert!(connections > 2, "it has reconnected");
    let positions: Vec<i64> = read.iter().map(|entry| entry.position).collect();
    assert!(
        positions
            .iter()
            .copied()
            .eq(1..=i64::try_from(read.len()).unwrap()),
        "{positions:?}"
    );
    assert_eq!(read, listed(&mut counters[0].user(1), account_id).await);
    world.assert_sound().await;
}

#[tokio::test]
async fn as_it_is_committed_or_found() {
    let world = World::new().await;
    let counters = [Counter::open(&world).await, Counter::open(&world).await];
    counters[0].replica.users(2, 500).await;
    let account_id = counters[0].main_account(1).await;
    let mut streams = Vec::new();
    for counter in &counters {
        for _ in 0..3 {
            streams.push(watch(&mut counter.user(1), account_id, 1).await);
        }
    }
    for position in 2..=21 {
        counters[0].replica.pay(order(1, 2, 1)).await.unwrap();
        for stream in &mut streams {
            assert_eq!(next(stream).await.unwrap().position, position);
        }
    }
}

#[tokio::test]
async fn however_slowly_it_reads() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(2, 5_000).await;
    let account_id = counter.main_account(1).await;
    let mut client = counter.user(1);
    let mut stream = watch(&mut client, account_id, 0).await;
    let mut written = 1;
    for _ in 0..2 {
        let items = (0..2_000).map(|_| Item {
            action: Action::Transfer(order(1, 2, 1)),
            linked: false,
        });
        counter
            .replica
            .ledger
            .run_all(items.collect(), false, soon())
            .await
            .unwrap();
        written += 2_000;
        // it has not read yet, and hinders nobody
        let balance = GetBalanceRequest { account_id, at: None };
        let balance = client
            .get_balance(balance)
            .await
            .unwrap()
            .into_inner()
            .balance
            .unwrap();
        assert_eq!(balance.position, written);
    }
    for position in 1..=written {
        assert_eq!(next(&mut stream).await.unwrap().position, position);
    }
}

#[tokio::test]
async fn until_the_instance_drains() {
    let world = World::new().await;
    let counters = [Counter::open(&world).await, Counter::open(&world).await];
    counters[0].replica.users(2, 500).await;
    let account_id = counters[0].main_account(1).await;
    let mut stream = watch(&mut counters[0].user(1), account_id, 0).await;
    let first = next(&mut stream).await.unwrap();
    counters[0].lifecycle.drain();
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(
        (ended.code(), rpc::error::reason(&ended).as_deref()),
        (Code::Unavailable, Some("DRAINING"))
    );
    counters[1].replica.pay(order(1, 2, 1)).await.unwrap();
    let mut stream = watch(&mut counters[1].user(1), account_id, first.position).await;
    assert_eq!(next(&mut stream).await.unwrap().position, first.position + 1);
}

#[tokio::test]
async fn from_a_position_that_is_there_and_while_there_is_room() {
    let world = World::new().await;
    let counter = Counter::open_for(&world, 2).await;
    counter.replica.users(2, 500).await;
    let accounts = [counter.main_account(1).await, counter.main_account(2).await];
    let mut client = counter.user(1);
    let beyond = WatchAccountRequest {
        account_id: accounts[0],
        after_position: 2,
    };
    for _ in 0..3 {
        // a refused watcher takes no place
        assert_eq!(
            refused_field(client.watch_account(beyond).await),
            "after_position"
        );
    }
    let one = watch(&mut client, accounts[0], 1).await;
    let _other = watch(&mut counter.user(2), accounts[1], 1).await;
    let third = WatchAccountRequest {
        after_position: 1,
        ..beyond
    };
    let full = (Code::ResourceExhausted, "TOO_MANY_WATCHERS".to_owned());
    assert_eq!(refused(client.watch_account(third).await), full);
    drop(one);
    let deadline = Instant::now() + PATIENCE;
    while client.watch_account(third).await.is_err() {
        assert!(Instant::now() < deadline, "the place is not free again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_caller_does_not_take_all_places() {
    let world = World::new().await;
    let counter = Counter::open_for(&world, 1_000).await;
    counter.replica.users(2, 500).await;
    let account_id = counter.main_account(1).await;
    let mut client = counter.user(1);
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(watch(&mut client, account_id, 1).await);
    }
    let more = client
        .watch_account(WatchAccountRequest {
            account_id,
            after_position: 1,
        })
        .await;
    assert_eq!(refused(more).0, Code::ResourceExhausted);
    let other = counter.main_account(2).await;
    watch(&mut counter.user(2), other, 1).await;
    counter.replica.pay(order(1, 2, 1)).await.unwrap();
    for stream in &mut streams {
        assert_eq!(next(stream).await.unwrap().position, 2);
    }
}

/// A store that counts what is asked of it.
#[derive(Clone)]
struct Counted {
    store: Postgres,
    /// It does not show what others have committed.
    blind: bool,
    /// How many accounts each look was at, and how many tails each read was of.
    looks: Arc<Mutex<Vec<usize>>>,
    reads: Arc<Mutex<Vec<usize>>>,
}

impl Counted {
    fn of(store: &Postgres, blind: bool) -> Self {
        Self {
            store: store.clone(),
            blind,
            looks: Arc::default(),
            reads: Arc::default(),
        }
    }
}

impl Tails for Counted {
    async fn positions(&self, accounts: &[i64]) -> Result<Vec<(i64, i64)>, Error> {
        self.looks.lock().unwrap().push(accounts.len());
        if self.blind {
            return Ok(Vec::new());
        }
        self.store.positions(accounts).await
    }

    async fn tails(&self, known: &[(i64, i64)], most: i64) -> Result<HashMap<(i64, i64), Tail>, Error> {
        self.reads.lock().unwrap().push(known.len());
        self.store.tails(known, most).await
    }
}

#[tokio::test]
async fn and_all_watchers_take_one_look_together() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(20, 100).await;
    let store = Counted::of(&replica.store, false);
    let board = Watch::start(store.clone(), 100, world.lifecycle());
    let reads = Reads::start(replica.store.clone(), world.lifecycle());
    let mut watchers = Vec::new();
    for user in (1..=20).chain(1..=20) {
        let asked = Asked {
            account: replica.ledger.main_account(user).await.unwrap(),
            after: 1,
            by: Authority::User(user),
            caller: user,
        };
        watchers.push(board.watch(&reads, asked, soon()).await.unwrap());
    }
    store.looks.lock().unwrap().clear();
    let deadline = Instant::now() + PATIENCE;
    while store.looks.lock().unwrap().len() < 3 {
        assert!(Instant::now() < deadline, "nobody looks");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(store.looks.lock().unwrap().iter().all(|accounts| *accounts == 20));
    assert!(store.reads.lock().unwrap().is_empty(), "nothing was new");
    // nobody tells the board of this: it is found
    replica.pay(order(1, 2, 1)).await.unwrap();
    for number in [0, 1, 20, 21] {
        let tail = timeout(PATIENCE, watchers[number].next()).await.unwrap().unwrap();
        assert_eq!((tail.len(), tail[0].position), (1, 2));
    }
    let read: usize = store.reads.lock().unwrap().iter().sum();
    assert!(read <= 4, "{read} tails for two accounts and four watchers");
    // who has gone is looked for no more
    watchers.truncate(1);
    store.looks.lock().unwrap().clear();
    let deadline = Instant::now() + PATIENCE;
    while store.looks.lock().unwrap().last() != Some(&1) {
        assert!(Instant::now() < deadline, "it looks for those who have gone");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn and_what_this_instance_commits_it_need_not_look_for() {
    let world = World::new().await;
    let store = Postgres::new(world.pool().clone(), super::world::signer());
    let board = Watch::start(Counted::of(&store, true), 100, world.lifecycle());
    let told = Arc::clone(&board);
    let replica = world.replica_that_tells(32_768, move |batch| told.committed(&batch.rows));
    replica.users(2, 100).await;
    let reads = Reads::start(store, world.lifecycle());
    let asked = Asked {
        account: replica.ledger.main_account(1).await.unwrap(),
        after: 1,
        by: Authority::User(1),
        caller: 1,
    };
    let mut watcher = board.watch(&reads, asked, soon()).await.unwrap();
    for position in 2..=5 {
        replica.pay(order(1, 2, 1)).await.unwrap();
        let tail = timeout(PATIENCE, watcher.next()).await.unwrap().unwrap();
        assert_eq!((tail.len(), tail[0].position), (1, position));
    }
}
