//! `LedgerAccountService` of a replica behind the server stack, called as the gateway calls it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use channel::{Channel, Stack};
use lifecycle::Lifecycle;
use proto::transfer::v1::{
    ListAccountsRequest, ledger_account_service_client::LedgerAccountServiceClient,
    ledger_account_service_server::LedgerAccountServiceServer,
};
use rpc::{
    Caller,
    caller::Key,
    server::{Routes, serve},
};
use secrecy::SecretString;
use settings::Reader;
use tokio::net::TcpListener;
use tonic::{Code, Response, Status};
use transfer::{
    app::{reads::Reads, watch::Watch},
    rpc::Accounts,
};

use super::world::{Replica, World};

pub type Client = LedgerAccountServiceClient<Stack>;

const SECRET: &str = "a secret for tests, of more than 32 bytes";

/// One replica, as its callers see it.
pub struct Counter {
    pub replica: Replica,
    /// The replica's process.
    pub lifecycle: Lifecycle,
    channel: Channel,
}

impl Counter {
    pub async fn open(world: &World) -> Self {
        Self::open_for(world, 100).await
    }

    /// One with room for so many watchers.
    pub async fn open_for(world: &World, watchers: usize) -> Self {
        let lifecycle = Lifecycle::new(Duration::from_secs(5));
        let store = transfer::store::Postgres::new(world.pool().clone(), super::world::signer());
        let watch = Watch::start(store.clone(), watchers, &lifecycle);
        let told = Arc::clone(&watch);
        let replica = world.replica_that_tells(32_768, move |batch| told.committed(&batch.rows));
        let reads = Arc::new(Reads::start(store.clone(), &lifecycle));
        let accounts = Accounts::new(store, reads, watch, lifecycle.clone());
        let routes = Routes::default().with(LedgerAccountServiceServer::new(accounts));
        let settings = BTreeMap::from([("KONTOR_CALLER_SECRET".to_owned(), SECRET.to_owned())]);
        let mut reader = Reader::from_map(settings);
        let config = rpc::server::Config::read(&mut reader, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let life = lifecycle.clone();
        world.lifecycle().spawn_until_stopping("counter", async move {
            let served = life.finish(serve(listener, routes, &config, &life)).await;
            served.unwrap();
        });
        Self {
            replica,
            lifecycle,
            channel: Channel::new("transfer", vec![address], None, world.lifecycle()),
        }
    }

    pub fn user(&self, user: i64) -> Client {
        self.client(user, false)
    }

    pub fn operator(&self, user: i64) -> Client {
        self.client(user, true)
    }

    fn client(&self, user_id: i64, operator: bool) -> Client {
        let key = Key::new(&SecretString::from(SECRET)).unwrap();
        let caller = Caller::User {
            user_id,
            operator,
            session: None,
        };
        Client::new(Stack::new(self.channel.clone(), key, "gateway").on_behalf_of(caller))
    }

    /// The number of a user's main account.
    pub async fn main_account(&self, user: i64) -> i64 {
        let own = self
            .user(user)
            .list_accounts(ListAccountsRequest::default())
            .await;
        own.unwrap().into_inner().accounts[0].account_id
    }
}

/// The code and the reason of a refusal.
pub fn refused<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), rpc::error::reason(&status).unwrap_or_default())
}

/// The first field that a refusal names.
pub fn refused_field<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> String {
    let status = result.unwrap_err();
    let mut violations = rpc::error::violations(&status).into_iter();
    violations.next().map(|(field, _)| field).unwrap_or_default()
}
