use std::collections::BTreeSet;

use proto::transfer::v1::{
    AccountRole, CloseAccountRequest, CreateAccountRequest, CreateSystemAccountRequest, FreezeAccountRequest,
    GetAccountRequest, GetBalanceRequest, GetStatementCsvRequest, GetStatementRequest, ListAccountsRequest,
    ListEntriesRequest, ReopenAccountRequest, SetAccountLimitsRequest, UnfreezeAccountRequest,
    WatchAccountRequest,
};
use tonic::Code;
use uuid::Uuid;

use super::{
    counter::{Client, Counter, refused},
    world::{World, order},
};

/// What everybody may ask of an account, with the account in question: what each of them is answered.
async fn answers(client: &mut Client, account_id: i64) -> Vec<(&'static str, (Code, String))> {
    let ok = || (Code::Ok, String::new());
    macro_rules! ask {
        ($($method:ident: $request:expr),* $(,)?) => {
            vec![$({
                let answer = client.$method($request).await;
                let heard = match answer {
                    Ok(_) => ok(),
                    Err(status) => (status.code(), rpc::error::reason(&status).unwrap_or_default()),
                };
                (stringify!($method), heard)
            }),*]
        };
    }
    ask! {
        get_account: GetAccountRequest { account_id },
        get_balance: GetBalanceRequest { account_id, at: None },
        list_entries: ListEntriesRequest { account_id, ..ListEntriesRequest::default() },
        get_statement: GetStatementRequest { account_id, ..GetStatementRequest::default() },
        get_statement_csv: GetStatementCsvRequest { account_id, ..GetStatementCsvRequest::default() },
        watch_account: WatchAccountRequest { account_id, after_position: 0 },
    }
}

async fn all(client: &mut Client, account_id: i64) -> BTreeSet<(CodeNumber, String)> {
    let answers = answers(client, account_id).await;
    answers
        .into_iter()
        .map(|(_, (code, reason))| (code as CodeNumber, reason))
        .collect()
}

/// The number of a code, which has an order.
type CodeNumber = i32;

#[tokio::test]
async fn to_others_they_do_not_exist() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(2, 100).await;
    counter.replica.pay(order(1, 2, 10)).await.unwrap();
    let own = counter.main_account(1).await;
    let more = CreateAccountRequest {
        currency: "USD".to_owned(),
        label: String::new(),
        request_id: Uuid::new_v4().to_string(),
    };
    let more = counter.user(1).create_account(more).await.unwrap().into_inner();
    let more = more.account.unwrap().account_id;
    let treasury = world.sql("SELECT id FROM accounts WHERE role = 'treasury'").await;
    let ok = BTreeSet::from([(Code::Ok as CodeNumber, String::new())]);
    let unknown = BTreeSet::from([(Code::NotFound as CodeNumber, "ACCOUNT_NOT_FOUND".to_owned())]);
    for account in [own, more] {
        assert_eq!(all(&mut counter.user(1), account).await, ok, "the owner");
        assert_eq!(all(&mut counter.operator(9), account).await, ok, "an operator");
        assert_eq!(all(&mut counter.user(2), account).await, unknown, "another user");
    }
    assert_eq!(all(&mut counter.operator(9), treasury).await, ok);
    assert_eq!(all(&mut counter.user(1), treasury).await, unknown);
    assert_eq!(all(&mut counter.operator(9), 999_999).await, unknown);
    let close = CloseAccountRequest { account_id: more };
    assert_eq!(
        refused(counter.user(2).close_account(close).await),
        (Code::NotFound, "ACCOUNT_NOT_FOUND".to_owned())
    );
    counter.user(1).close_account(close).await.unwrap();
}

#[tokio::test]
async fn what_operators_do_others_may_not() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(2, 1).await;
    let account_id = counter.main_account(1).await;
    let mut owner = counter.user(1);
    let denied = (Code::PermissionDenied, "PERMISSION_DENIED".to_owned());
    let limits = SetAccountLimitsRequest {
        account_id,
        minimum: Some(-1_000),
        maximum: None,
    };
    assert_eq!(refused(owner.set_account_limits(limits).await), denied);
    assert_eq!(
        refused(owner.freeze_account(FreezeAccountRequest { account_id }).await),
        denied
    );
    assert_eq!(
        refused(
            owner
                .unfreeze_account(UnfreezeAccountRequest { account_id })
                .await
        ),
        denied
    );
    assert_eq!(
        refused(owner.reopen_account(ReopenAccountRequest { account_id }).await),
        denied
    );
    let fees = CreateSystemAccountRequest {
        role: AccountRole::Fees.into(),
        currency: "USD".to_owned(),
    };
    assert_eq!(refused(owner.create_system_account(fees).await), denied);
    assert_eq!(
        world
            .sql("SELECT count(*) FROM account_changes WHERE change <> 'open'")
            .await,
        0
    );
}

#[tokio::test]
async fn what_is_everybodys_has_its_limits() {
    let world = World::new().await;
    let counter = Counter::open(&world).await;
    counter.replica.users(2, 1).await;
    let account_id = counter.main_account(1).await;
    let mut owner = counter.user(1);
    let operators_only = (Code::PermissionDenied, "OPERATOR_ONLY".to_owned());
    let close = CloseAccountRequest { account_id };
    assert_eq!(refused(owner.close_account(close).await), operators_only);
    let lists = [
        ListAccountsRequest {
            user_id: 2,
            system: false,
        },
        ListAccountsRequest {
            user_id: 0,
            system: true,
        },
    ];
    for list in lists {
        assert_eq!(refused(owner.list_accounts(list).await), operators_only);
        let listed = counter
            .operator(9)
            .list_accounts(list)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(listed.accounts.len(), 1);
        assert_eq!(listed.accounts[0].user_id, list.user_id);
    }
    let own = ListAccountsRequest {
        user_id: 1,
        system: false,
    };
    assert_eq!(
        owner
            .list_accounts(own)
            .await
            .unwrap()
            .into_inner()
            .accounts
            .len(),
        1
    );
    let nobody = counter
        .user(99)
        .list_accounts(ListAccountsRequest::default())
        .await;
    assert!(nobody.unwrap().into_inner().accounts.is_empty());
}
