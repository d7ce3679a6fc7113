//! What the ledger promises, against a real PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use postgres::testing::Database;
use transfer::{
    MIGRATOR,
    app::{Error, Ledger, Order, Party},
    domain::{
        money::{Amount, Currency},
        posting::Refusal,
    },
    store::Postgres,
};
use uuid::Uuid;

struct World {
    database: Database,
    ledger: Arc<Ledger<Postgres>>,
}

impl World {
    /// Users 1 to `users` with `each` minor units.
    async fn new(users: i64, each: i64) -> Self {
        let database = Database::create(&MIGRATOR).await;
        let ledger = Arc::new(Ledger::new(Postgres::new(database.pool.clone())));
        for user in 1..=users {
            ledger.open(user, usd()).await.unwrap();
            let order = Order {
                from: Party::Treasury,
                ..order(0, user, each)
            };
            ledger.deposit(&order).await.unwrap();
        }
        Self { database, ledger }
    }

    async fn balance(&self, user: i64) -> i64 {
        self.ledger.account(user).await.unwrap().posted
    }

    async fn sql(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement)
            .fetch_one(&self.database.pool)
            .await
            .unwrap()
    }
}

fn usd() -> Currency {
    Currency::from_code("USD").unwrap()
}

fn order(from: i64, to: i64, amount: i64) -> Order {
    Order {
        id: Uuid::now_v7(),
        from: Party::User(from),
        to: Party::User(to),
        amount: Amount::new(amount).unwrap(),
        currency: None,
    }
}

#[tokio::test]
async fn a_retry_finds_the_first_result() {
    let world = World::new(2, 1_000).await;
    let order = order(1, 2, 100);
    let attempts = (0..16).map(|_| world.ledger.transfer(1, &order));
    let answers = futures_util::future::join_all(attempts).await;
    let first = answers[0].as_ref().unwrap();
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap() == first));
    assert_eq!((world.balance(1).await, world.balance(2).await), (900, 1_100));
    let other = Order {
        amount: Amount::new(101).unwrap(),
        ..order.clone()
    };
    assert!(matches!(
        world.ledger.transfer(1, &other).await,
        Err(Error::IdReused)
    ));
    // the same id between other users, which locks other accounts
    let other = Order {
        from: Party::User(2),
        to: Party::User(1),
        ..order
    };
    assert!(matches!(
        world.ledger.transfer(2, &other).await,
        Err(Error::IdReused)
    ));
    assert_eq!((world.balance(1).await, world.balance(2).await), (900, 1_100));
}

#[tokio::test]
async fn one_id_for_two_transfers_at_once_posts_one_of_them() {
    let world = World::new(4, 1_000).await;
    for _ in 0..20 {
        let one = order(1, 2, 10);
        let other = Order {
            from: Party::User(3),
            to: Party::User(4),
            ..one.clone()
        };
        let (one, other) = tokio::join!(world.ledger.transfer(1, &one), world.ledger.transfer(3, &other));
        let reused = [&one, &other]
            .into_iter()
            .filter(|it| matches!(it, Err(Error::IdReused)))
            .count();
        assert_eq!((reused, one.is_ok() ^ other.is_ok()), (1, true));
    }
}

#[tokio::test]
async fn concurrent_transfers_conserve_money_and_never_overspend() {
    let world = World::new(4, 100).await;
    // both directions between all pairs at once: locks in any other order than by id would deadlock
    let orders: Vec<Order> = (0i64..400)
        .map(|n| order(n % 4 + 1, (n + n / 4 % 3 + 1) % 4 + 1, n % 60 + 1))
        .collect();
    let attempts = orders.iter().map(|order| {
        let Party::User(caller) = order.from else {
            unreachable!("all orders are users'")
        };
        world.ledger.transfer(caller, order)
    });
    let answers = futures_util::future::join_all(attempts).await;
    let posted = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(posted > 0);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(_) | Err(Error::Refused(Refusal::InsufficientBalance))))
    );
    assert_eq!(world.sql("SELECT sum(posted)::bigint FROM accounts").await, 0);
    assert_eq!(
        world
            .sql("SELECT sum(posted)::bigint FROM accounts WHERE role = 'main'")
            .await,
        400
    );
    assert_eq!(
        world
            .sql("SELECT count(*) FROM accounts WHERE posted < floor")
            .await,
        0
    );
    let odd = "SELECT count(*) FROM (SELECT 1 FROM postings GROUP BY transfer_id
                                     HAVING sum(amount) <> 0 OR count(*) <> 2) AS odd";
    assert_eq!(world.sql(odd).await, 0);
    let drift = "SELECT count(*) FROM accounts a
                  WHERE posted <> (SELECT coalesce(sum(amount), 0) FROM postings p WHERE p.account_id = a.id)";
    assert_eq!(world.sql(drift).await, 0);
    let transfers = world.sql("SELECT count(*) FROM transfers").await;
    assert_eq!(
        usize::try_from(transfers).unwrap(),
        posted + 4,
        "the deposits and what was answered"
    );
}

#[tokio::test]
async fn a_refusal_writes_nothing() {
    let world = World::new(2, 100).await;
    let euro = Order {
        currency: Currency::from_code("EUR"),
        ..order(1, 2, 10)
    };
    assert!(matches!(
        world.ledger.transfer(1, &euro).await,
        Err(Error::Refused(Refusal::CurrencyMismatch))
    ));
    assert!(matches!(
        world.ledger.transfer(1, &order(1, 99, 10)).await,
        Err(Error::UserNotFound)
    ));
    assert!(matches!(
        world.ledger.transfer(1, &order(2, 1, 10)).await,
        Err(Error::NotYourAccount)
    ));
    assert_eq!(
        world.sql("SELECT count(*) FROM transfers").await,
        2,
        "the two deposits"
    );
}

#[tokio::test]
async fn opening_twice_finds_the_account() {
    let world = World::new(1, 100).await;
    let (one, other) = tokio::join!(world.ledger.open(5, usd()), world.ledger.open(5, usd()));
    assert_eq!(one.unwrap().id, other.unwrap().id);
    let euro = Currency::from_code("EUR").unwrap();
    assert!(matches!(
        world.ledger.open(5, euro).await,
        Err(Error::AccountExists)
    ));
}

#[tokio::test]
async fn the_database_itself_refuses_to_rewrite_the_journal() {
    let world = World::new(1, 100).await;
    for statement in [
        "UPDATE transfers SET amount = 1",
        "DELETE FROM postings",
        "TRUNCATE transfers CASCADE",
        "UPDATE accounts SET posted = -1 WHERE role = 'main'",
    ] {
        assert!(
            sqlx::query(statement)
                .execute(&world.database.pool)
                .await
                .is_err(),
            "{statement}"
        );
    }
}

#[tokio::test]
async fn a_transfer_is_shown_to_its_two_users_only() {
    let world = World::new(3, 100).await;
    let order = order(1, 2, 10);
    world.ledger.transfer(1, &order).await.unwrap();
    assert_eq!(world.ledger.find(2, order.id).await.unwrap().amount, 10);
    assert!(matches!(
        world.ledger.find(3, order.id).await,
        Err(Error::TransferNotFound)
    ));
}
