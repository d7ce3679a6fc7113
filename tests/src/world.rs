//! The kontor of one test: processes, databases, topics and Redis keys of its own, on servers that all tests share.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use local::{Addresses, Infra, InfraOptions, Process, Service, World, WorldOptions};
use proto::{
    chat::v1::{
        Message, RoomPosition, SubscribeRequest, SubscribeResponse, chat_service_client::ChatServiceClient,
        subscribe_response::Event,
    },
    transfer::v1::{DepositRequest, transfer_service_client::TransferServiceClient},
};
use rpc::{Caller, caller::Key};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tonic::Streaming;
use uuid::Uuid;

use crate::{
    certificates::Certificates,
    eventually::{eventually, same},
    grpc::{Credentials, Door, door, door_by_tls, signed},
    proxy::Proxy,
    rest::Rest,
    schema,
    user::User,
};

/// How a test's world differs from one instance of each service.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one difference, and has a name of its own"
)]
pub struct Options {
    /// Instances of each service; 0 means 1.
    pub replicas: usize,
    /// The services that are started; none means all.
    pub services: Vec<Service>,
    /// A [`Proxy`] stands before PostgreSQL and one before Redis.
    pub behind_proxies: bool,
    /// Between PostgreSQL and the instances of each number stands a [`Proxy`] of their own.
    pub proxy_each: bool,
    /// The test has servers of its own, and may kill them.
    pub own_servers: bool,
    /// The services talk to each other by TLS.
    pub tls: bool,
    /// Its databases are those of the release before.
    pub older_schema: bool,
    /// Where traces and metrics go.
    pub otlp_endpoint: Option<String>,
    /// More settings: for a service, or for all.
    pub settings: Vec<(Option<Service>, &'static str, String)>,
}

/// The proxies in front of the servers.
pub struct Proxies {
    /// Before PostgreSQL.
    pub postgres: Proxy,
    /// Before Redis.
    pub redis: Proxy,
}

/// A running kontor. Dropping it kills its services.
pub struct TestWorld {
    world: World,
    /// The servers themselves, not through a proxy.
    infra: Arc<Infra>,
    proxies: Option<Proxies>,
    /// One for the instances of each number.
    proxies_of: Vec<Proxy>,
    gateways: Vec<String>,
    key: Key,
    certificates: Option<Certificates>,
}

impl TestWorld {
    /// Starts it and waits until every service is ready.
    pub async fn start(options: Options) -> Result<Self> {
        // on the heap: what starts servers is large, and would be a part of every test
        let infra = Arc::new(Box::pin(servers(options.own_servers)).await?);
        let mut seen = Arc::clone(&infra);
        let mut proxies = None;
        if options.behind_proxies {
            let real = infra.addresses();
            let before = Proxies {
                postgres: Proxy::start(&real.postgres).await?,
                redis: Proxy::start(&real.redis).await?,
            };
            seen = Arc::new(Infra::attach(Addresses {
                postgres: before.postgres.address(),
                redis: before.redis.address(),
                kafka: real.kafka.clone(),
            }));
            proxies = Some(before);
        }
        let mut world_options = world_options(&options);
        let mut proxies_of = Vec::new();
        if options.proxy_each {
            for _ in 0..world_options.replicas {
                proxies_of.push(Proxy::start(&infra.addresses().postgres).await?);
            }
            world_options.postgres = proxies_of.iter().map(Proxy::address).collect();
        }
        let certificates = options.tls.then(Certificates::new).transpose()?;
        if let Some(certificates) = &certificates {
            world_options.settings.extend(certificates.issue());
        }
        if options.older_schema {
            schema::of_the_release_before(&infra, &world_options.namespace).await?;
        }
        let world = Box::pin(World::start(seen, world_options)).await?;
        let key = Key::new(&world.caller_secret().to_owned().into())?;
        let gateways = world
            .addresses(Service::Gateway)
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        Ok(Self {
            world,
            infra,
            proxies,
            proxies_of,
            gateways,
            key,
            certificates,
        })
    }

    /// The first gateway's base URL.
    pub fn gateway(&self) -> &str {
        &self.gateways[0]
    }

    /// The base URLs of all gateways.
    pub fn gateways(&self) -> Vec<String> {
        self.gateways.clone()
    }

    /// A REST client of the first gateway, not signed in.
    pub fn rest(&self) -> Result<Rest> {
        Rest::new(self.gateway())
    }

    /// One instance of a service, to kill, stop and start.
    pub fn instance(&self, service: Service, index: usize) -> Result<&Process> {
        self.world.instance_process(service, index)
    }

    /// The processes and their names, addresses and logs.
    pub fn local(&self) -> &World {
        &self.world
    }

    /// PostgreSQL, Redis and Kafka, not through a proxy.
    pub fn infra(&self) -> &Infra {
        &self.infra
    }

    /// The proxies of a world that stands behind some.
    pub fn proxies(&self) -> Result<&Proxies> {
        self.proxies
            .as_ref()
            .context("the world was not started with `behind_proxies`")
    }

    /// The proxies of a world with one before PostgreSQL for the instances of each number.
    pub fn proxies_of(&self) -> &[Proxy] {
        &self.proxies_of
    }

    /// The key that signs caller contexts.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The certificates of a world that was started with `tls`.
    pub fn certificates(&self) -> Result<&Certificates> {
        self.certificates
            .as_ref()
            .context("the world was not started with `tls`")
    }

    /// A gRPC door of the first gateway.
    pub fn public_door(&self, credentials: Credentials) -> Result<Door> {
        door(self.gateway(), credentials)
    }

    /// A gRPC door of one instance, past the gateway, in the name of `caller`.
    pub fn inner_door(&self, service: Service, index: usize, caller: &Caller) -> Result<Door> {
        let (address, credentials) = (self.world.address(service, index)?, signed(&self.key, caller)?);
        match &self.certificates {
            None => door(&address.to_string(), credentials),
            Some(certificates) => door_by_tls(address, service.name(), &certificates.own()?, credentials),
        }
    }

    /// A service's database.
    pub async fn database(&self, service: Service) -> Result<PgPool> {
        let url = self.world.database_url(service);
        let name = url.rsplit('/').next().unwrap_or_default();
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect(&self.infra.postgres_url(name))
            .await;
        pool.with_context(|| format!("cannot connect to the database of {}", service.name()))
    }

    /// Signs a user up, with money.
    pub async fn user(&self, name: &str, balance: i64) -> Result<User> {
        let user = User::sign_up(&self.rest()?, name).await?;
        if balance > 0 {
            self.deposit(user.id, balance).await?;
        }
        Ok(user)
    }

    /// Gives a user money, as an operator does.
    pub async fn deposit(&self, user_id: i64, amount: i64) -> Result<()> {
        let operator = Caller::User {
            user_id: 1,
            operator: true,
            session: None,
        };
        let mut ledger = TransferServiceClient::new(self.inner_door(Service::Transfer, 0, &operator)?);
        let transfer_id = Uuid::new_v4().to_string();
        let deposit = DepositRequest {
            to_user_id: user_id,
            amount,
            currency: String::new(),
            transfer_id,
            ..Default::default()
        };
        ledger.deposit(deposit).await.context("deposit")?;
        Ok(())
    }

    /// An error unless each user has this balance now.
    pub async fn balances(&self, expected: &[(&User, i64)]) -> Result<()> {
        for (user, balance) in expected {
            same(&user.balance().await?, balance).with_context(|| format!("the balance of {}", user.name))?;
        }
        Ok(())
    }

    /// Chat through the first gateway.
    pub fn chat(&self, user: &User) -> Result<ChatServiceClient<Door>> {
        Ok(ChatServiceClient::new(
            self.public_door(Credentials::Bearer(user.token.clone()))?,
        ))
    }

    /// Chat at one of its instances, in the name of a user.
    pub fn chat_at(&self, index: usize, user_id: i64) -> Result<ChatServiceClient<Door>> {
        let caller = Caller::User {
            user_id,
            operator: false,
            session: None,
        };
        Ok(ChatServiceClient::new(self.inner_door(
            Service::Chat,
            index,
            &caller,
        )?))
    }

    /// A live subscription through the first gateway.
    pub async fn subscribe(&self, user: &User, positions: Vec<RoomPosition>) -> Result<Subscription> {
        Subscription::begin(self.chat(user)?, positions).await
    }

    /// Waits until the ledger has at least so many transfers.
    pub async fn eventually_posted(&self, transfers: i64) -> Result<()> {
        let ledger = self.database(Service::Transfer).await?;
        eventually("transfers are posted", Duration::from_mins(2), async || {
            let posted: i64 = sqlx::query_scalar("SELECT count(*) FROM journal")
                .fetch_one(&ledger)
                .await?;
            ensure!(posted >= transfers, "{posted} of {transfers}");
            Ok(())
        })
        .await
    }
}

fn world_options(options: &Options) -> WorldOptions {
    let settings = options
        .settings
        .iter()
        .map(|(service, name, value)| (*service, (*name).to_owned(), value.clone()));
    WorldOptions {
        logs: logs(),
        services: match options.services.as_slice() {
            [] => Service::ALL.to_vec(),
            some => some.to_vec(),
        },
        replicas: options.replicas.max(1),
        otlp_endpoint: options.otlp_endpoint.clone(),
        settings: settings.collect(),
        ..WorldOptions::default()
    }
}

/// Where `tests/run` wants the logs of the services: a folder for each world, named after its test.
fn logs() -> Option<PathBuf> {
    // a folder of the test run, not a setting of a program
    #[expect(clippy::disallowed_methods, reason = "a test has no settings::Reader")]
    let all = std::env::var("KONTOR_TEST_LOGS").ok()?;
    let test = std::thread::current()
        .name()
        .unwrap_or("a test")
        .replace("::", ".");
    Some(
        PathBuf::from(all)
            .join(test)
            .join(Uuid::new_v4().simple().to_string()),
    )
}

/// The servers that `tests/run` has started for all tests; without it, some for this test.
async fn servers(own: bool) -> Result<Infra> {
    if !own && let Some(shared) = Infra::from_env()? {
        return Ok(shared);
    }
    Infra::start(InfraOptions::default()).await
}

/// The program of a service, as it was built together with this test.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own
        .parent()
        .and_then(|deps| deps.parent())
        .context("this test has no folder")?;
    let program = folder.join(name);
    ensure!(
        program.exists(),
        "{} is missing: run tests/run --only build",
        program.display()
    );
    Ok(program)
}

/// A live subscription.
pub struct Subscription {
    stream: Streaming<SubscribeResponse>,
    /// Where the caller's rooms stood when it began.
    pub positions: Vec<RoomPosition>,
}

impl Subscription {
    /// Subscribes, and waits until it is live.
    pub async fn begin(mut chat: ChatServiceClient<Door>, positions: Vec<RoomPosition>) -> Result<Self> {
        let mut stream = chat.subscribe(SubscribeRequest { positions }).await?.into_inner();
        let first = tokio::time::timeout(Duration::from_secs(15), stream.message()).await;
        match first
            .context("the subscription does not begin")??
            .and_then(|response| response.event)
        {
            Some(Event::Subscribed(begun)) => Ok(Self {
                stream,
                positions: begun.positions,
            }),
            other => bail!("the first answer is {other:?}"),
        }
    }

    /// The next message; `None` when the stream has ended, an error when nothing comes.
    pub async fn step(&mut self, within: Duration) -> Result<Option<Message>> {
        let next = tokio::time::timeout(within, self.stream.message()).await;
        match next.with_context(|| format!("no message within {} s", within.as_secs()))? {
            Ok(Some(SubscribeResponse {
                event: Some(Event::Message(message)),
            })) => Ok(Some(message)),
            Ok(Some(other)) => bail!("not a message: {other:?}"),
            Ok(None) | Err(_) => Ok(None),
        }
    }

    /// The next message; the end of the stream is an error.
    pub async fn next(&mut self, within: Duration) -> Result<Message> {
        self.step(within).await?.context("the subscription ended")
    }

    /// How the stream ends: waits for it, and passes over what still comes.
    pub async fn end(mut self, within: Duration) -> Result<tonic::Status> {
        let end = async {
            loop {
                match self.stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return tonic::Status::ok("the stream ended"),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(within, end)
            .await
            .context("the subscription does not end")
    }
}
