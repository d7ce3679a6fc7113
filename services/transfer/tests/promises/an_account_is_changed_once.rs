use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use proto::transfer::v1::{
    Account, AccountRole, AccountStatus, CloseAccountRequest, CreateAccountRequest,
    CreateSystemAccountRequest, FreezeAccountRequest, ListAccountsRequest, ReopenAccountRequest,
    SetAccountLimitsRequest, UnfreezeAccountRequest,
};
use tonic::{Code, Response};
use transfer::{
    app::{accounts::MAX_ADDITIONAL, error::Error, order::Party},
    domain::command::{Authority, Hold, Refusal},
};
use uuid::Uuid;

use super::{
    counter::{Counter, refused, refused_field},
    world::{World, order},
};

fn opening(label: &str) -> CreateAccountRequest {
    CreateAccountRequest {
        currency: "USD".to_owned(),
        label: label.to_owned(),
        request_id: Uuid::new_v4().to_string(),
    }
}

fn is_replay<T>(response: &Response<T>) -> bool {
    response.metadata().contains_key("idempotent-replayed")
}

async fn opened(counter: &Counter, user: i64, label: &str) -> Account {
    let answer = counter.user(user).create_account(opening(label)).await.unwrap();
    answer.into_inner().account.unwrap()
}

#[tokio::test]
async fn it_is_opened_once_for_an_id() {
    let world = World::new().await;
    let counters = [Counter::open(&world).await, Counter::open(&world).await];
    counters[0].replica.users(2, 100).await;
    let asked = opening("holidays");
    let attempts = counters.iter().cycle().take(8).map(|counter| {
        let (mut client, asked) = (counter.user(1), asked.clone());
        async move { client.create_account(asked).await.unwrap() }
    });
    let answers = join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| !is_replay(answer)).count(), 1);
    let accounts: Vec<Account> = answers
        .into_iter()
        .map(|answer| answer.into_inner().account.unwrap())
        .collect();
    let first = &accounts[0];
    assert!(accounts.iter().all(|account| account == first), "{accounts:?}");
    assert_eq!(
        (first.role(), first.status(), first.user_id, first.label.as_str()),
        (AccountRole::Additional, AccountStatus::Open, 1, "holidays")
    );
    let others = [
        (
            1,
            "currency",
            CreateAccountRequest {
                currency: "EUR".to_owned(),
                ..asked.clone()
            },
        ),
        (
            1,
            "label",
            CreateAccountRequest {
                label: String::new(),
                ..asked.clone()
            },
        ),
        (2, "request_id", asked.clone()),
    ];
    for (user, field, other) in others {
        let mut client = counters[1].user(user);
        let answer = client.create_account(other.clone()).await;
        assert_eq!(
            refused(answer),
            (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned())
        );
        assert_eq!(refused_field(client.create_account(other).await), field);
    }
    assert_eq!(
        world
            .sql("SELECT count(*) FROM accounts WHERE role = 'additional'")
            .await,
        1
    );
    let told = "SELECT count(*)
                  FROM account_changes
                  JOIN accounts ON accounts.id = account_id
                 WHERE role = 'additional' AND change = 'open' AND changed_by = 1";
    assert_eq!(world.sql(told).await, 1);
}

#[tokio::test]
async fn and_only_for_a_user_and_a_hundred_times() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(2, 100).await;
    let stranger = counter.user(99).create_account(opening("")).await;
    assert_eq!(refused(stranger), (Code::NotFound, "USER_NOT_FOUND".to_owned()));
    let first = opening("first");
    counter.user(1).create_account(first.clone()).await.unwrap();
    sqlx::query(
        "INSERT INTO accounts (user_id, role, currency, request_id)
         SELECT 1, 'additional', 'EUR', gen_random_uuid()
           FROM generate_series(3, $1)",
    )
    .bind(MAX_ADDITIONAL)
    .execute(world.pool())
    .await
    .unwrap();
    let attempts = (0..4).map(|_| {
        let mut client = counter.user(1);
        async move { client.create_account(opening("last")).await }
    });
    let (done, late): (Vec<_>, Vec<_>) = join_all(attempts).await.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1, "one place was left");
    for refusal in late {
        assert_eq!(
            refused(refusal),
            (Code::ResourceExhausted, "TOO_MANY_ACCOUNTS".to_owned())
        );
    }
    assert!(is_replay(&counter.user(1).create_account(first).await.unwrap()));
    let all = counter
        .user(1)
        .list_accounts(ListAccountsRequest::default())
        .await;
    let all = all.unwrap().into_inner().accounts;
    assert_eq!(all.len(), 101);
    assert!(all.is_sorted_by(|one, other| one.account_id < other.account_id));
    opened(&counter, 2, "of another user").await;
}

#[tokio::test]
async fn the_banks_own_is_opened_once_for_a_role_and_currency() {
    let world = World::new().await;
    let counters = [Counter::open(&world).await, Counter::open(&world).await];
    let fees = CreateSystemAccountRequest {
        role: AccountRole::Fees.into(),
        currency: "EUR".to_owned(),
    };
    let attempts = counters.iter().cycle().take(6).map(|counter| {
        let (mut client, fees) = (counter.operator(9), fees.clone());
        async move { client.create_system_account(fees).await.unwrap() }
    });
    let answers = join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| !is_replay(answer)).count(), 1);
    let first = answers[0].get_ref().account.clone().unwrap();
    assert_eq!(
        (first.role(), first.user_id, first.minimum),
        (AccountRole::Fees, 0, 0)
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer.get_ref().account.as_ref() == Some(&first))
    );
    let by = "SELECT count(*) FROM account_changes WHERE changed_by = 9 AND change = 'open'";
    assert_eq!(world.sql(by).await, 1);
    let bank = ListAccountsRequest {
        system: true,
        ..ListAccountsRequest::default()
    };
    let listed = counters[0].operator(9).list_accounts(bank).await.unwrap();
    assert_eq!(listed.into_inner().accounts, [first]);
}

#[tokio::test]
async fn what_changes_nothing_is_not_written() {
    let world = World::new().await;
    let counters = [Counter::open(&world).await, Counter::open(&world).await];
    counters[0].replica.users(1, 100).await;
    let account_id = counters[0].main_account(1).await;
    let freezes = counters.iter().cycle().take(8).map(|counter| {
        let mut client = counter.operator(9);
        async move {
            client
                .freeze_account(FreezeAccountRequest { account_id })
                .await
                .unwrap()
        }
    });
    for answer in join_all(freezes).await {
        let account = answer.into_inner().account.unwrap();
        assert_eq!(account.status(), AccountStatus::Frozen);
    }
    let mut operator = counters[0].operator(8);
    for _ in 0..2 {
        operator
            .unfreeze_account(UnfreezeAccountRequest { account_id })
            .await
            .unwrap();
    }
    let limits = |minimum, maximum| SetAccountLimitsRequest {
        account_id,
        minimum,
        maximum,
    };
    for _ in 0..2 {
        operator
            .set_account_limits(limits(Some(-50), None))
            .await
            .unwrap();
    }
    operator.set_account_limits(limits(None, None)).await.unwrap();
    operator
        .reopen_account(ReopenAccountRequest { account_id })
        .await
        .unwrap();
    let crossed = operator.set_account_limits(limits(None, Some(-51))).await;
    assert_eq!(refused(crossed).0, Code::InvalidArgument);
    let changes: Vec<(String, Option<i64>, String, i64)> = sqlx::query_as(
        "SELECT change, changed_by, status, floor FROM account_changes WHERE account_id = $1 ORDER BY id",
    )
    .bind(account_id)
    .fetch_all(world.pool())
    .await
    .unwrap();
    let row = |change: &str, by, status: &str, floor| (change.to_owned(), by, status.to_owned(), floor);
    assert_eq!(
        changes,
        [
            row("open", None, "open", 0),
            row("freeze", Some(9), "frozen", 0),
            row("unfreeze", Some(8), "open", 0),
            row("limits", Some(8), "open", -50),
        ]
    );
}

#[tokio::test]
async fn limits_bind_the_next_transfer() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(2, 100).await;
    let limits = async |user: i64, minimum, maximum| {
        let request = SetAccountLimitsRequest {
            account_id: counter.main_account(user).await,
            minimum,
            maximum,
        };
        let answer = counter.operator(9).set_account_limits(request).await.unwrap();
        answer.into_inner().account.unwrap().balance.unwrap().available
    };
    assert_eq!(limits(1, Some(-50), None).await, 150);
    assert_eq!(limits(2, None, Some(200)).await, 100);
    let pay = async |minor| counter.replica.pay(order(1, 2, minor)).await;
    assert!(matches!(
        pay(101).await,
        Err(Error::Refused(Refusal::MaximumExceeded))
    ));
    limits(2, None, Some(300)).await;
    assert!(matches!(
        pay(151).await,
        Err(Error::Refused(Refusal::InsufficientBalance))
    ));
    pay(150).await.unwrap();
    assert_eq!(
        limits(1, Some(0), None).await,
        -50,
        "what is beyond a new limit stays"
    );
    assert!(matches!(
        pay(1).await,
        Err(Error::Refused(Refusal::InsufficientBalance))
    ));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_freeze_is_before_a_transfer_or_behind_it() {
    let world = World::new().await;
    let counters = [Counter::open(&world).await, Counter::open(&world).await];
    counters[0].replica.users(2, 100_000).await;
    let account_id = counters[0].main_account(1).await;
    let frozen = AtomicUsize::new(0);
    // until a freeze has come between the transfers, and at least some times
    let mut rounds = 0;
    while rounds < 5 || frozen.load(Ordering::Relaxed) == 0 {
        rounds += 1;
        assert!(rounds < 100, "no transfer comes behind a freeze");
        let transfers = counters.iter().cycle().take(40).map(async |counter| {
            // in a row, so that some are behind the freeze
            for _ in 0..5 {
                match counter.replica.pay(order(1, 2, 1)).await {
                    Ok(_) => {}
                    Err(Error::Refused(Refusal::AccountFrozen)) => {
                        frozen.fetch_add(1, Ordering::Relaxed);
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        let freeze = async {
            let request = FreezeAccountRequest { account_id };
            let answer = counters[1].operator(9).freeze_account(request).await.unwrap();
            answer.into_inner().account.unwrap().balance.unwrap().position
        };
        let (position, _) = futures_util::join!(freeze, join_all(transfers));
        assert_eq!(
            world.sql("SELECT position FROM accounts WHERE user_id = 1").await,
            position,
            "a frozen account has moved"
        );
        let request = UnfreezeAccountRequest { account_id };
        counters[0].operator(9).unfreeze_account(request).await.unwrap();
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn it_is_closed_when_nothing_is_on_it_or_on_its_way() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(1, 100).await;
    let account_id = opened(&counter, 1, "savings").await.account_id;
    let close = async || {
        counter
            .user(1)
            .close_account(CloseAccountRequest { account_id })
            .await
    };
    let mut pending = order(1, 1, 10);
    pending.to[0].0 = Party::Account(account_id);
    pending.hold = Some(Hold {
        until: chrono::DateTime::from_timestamp(4_000_000_000, 0).unwrap(),
        named: true,
    });
    counter.replica.pay(pending.clone()).await.unwrap();
    let not_empty = (Code::FailedPrecondition, "ACCOUNT_NOT_EMPTY".to_owned());
    assert_eq!(refused(close().await), not_empty);
    let post = transfer::domain::command::Command::Post {
        id: Uuid::now_v7(),
        by: Authority::Bank,
        pending: pending.id,
        amount: None,
    };
    counter.replica.direct(post).await.unwrap();
    assert_eq!(refused(close().await), not_empty);
    let mut back = order(1, 1, 10);
    back.from = Party::Account(account_id);
    counter.replica.pay(back).await.unwrap();
    close().await.unwrap();
    world.assert_sound().await;
}

#[tokio::test]
async fn and_opened_again_as_it_was() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(1, 100).await;
    let account_id = opened(&counter, 1, "savings").await.account_id;
    let close = async || {
        counter
            .user(1)
            .close_account(CloseAccountRequest { account_id })
            .await
    };
    let mut operator = counter.operator(9);
    let limits = SetAccountLimitsRequest {
        account_id,
        minimum: Some(-5),
        maximum: Some(500),
    };
    counter.operator(9).set_account_limits(limits).await.unwrap();
    operator
        .freeze_account(FreezeAccountRequest { account_id })
        .await
        .unwrap();
    assert_eq!(
        refused(close().await),
        (Code::FailedPrecondition, "ACCOUNT_FROZEN".to_owned())
    );
    operator
        .unfreeze_account(UnfreezeAccountRequest { account_id })
        .await
        .unwrap();
    for _ in 0..2 {
        let closed = close().await.unwrap().into_inner().account.unwrap();
        assert_eq!(closed.status(), AccountStatus::Closed);
    }
    let frozen = operator.freeze_account(FreezeAccountRequest { account_id }).await;
    assert_eq!(
        refused(frozen),
        (Code::FailedPrecondition, "ACCOUNT_CLOSED".to_owned())
    );
    let mut again = order(1, 1, 10);
    again.to[0].0 = Party::Account(account_id);
    let paid = counter.replica.pay(again).await;
    assert!(matches!(paid, Err(Error::Refused(Refusal::AccountClosed))));
    let reopened = operator
        .reopen_account(ReopenAccountRequest { account_id })
        .await
        .unwrap();
    let reopened = reopened.into_inner().account.unwrap();
    assert_eq!(
        (reopened.status(), reopened.minimum, reopened.maximum),
        (AccountStatus::Open, -5, 500)
    );
    world.assert_sound().await;
}
