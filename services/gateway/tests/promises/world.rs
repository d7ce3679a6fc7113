//! A gateway with a bank behind it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::FutureExt as _;
use gateway::Config;
use lifecycle::{Failure, Lifecycle};
use reqwest::{Method, RequestBuilder};
use rpc::{caller::Key, process::Config as _};
use settings::Reader;
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};

use crate::bank::Bank;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub struct World {
    pub bank: Bank,
    pub address: SocketAddr,
    pub lifecycle: Lifecycle,
    http: reqwest::Client,
    gateway: Mutex<Option<JoinHandle<Result<(), Failure>>>>,
    /// Of the bank, which outlives the gateway.
    behind: Lifecycle,
}

impl World {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A gateway with some settings of its own, once it is ready.
    pub async fn with(own: &[(&str, &str)]) -> Self {
        let world = Self::unready(own).await;
        world
            .eventually("ready", || {
                world.get("/readyz").send().map(|it| it.unwrap().status() == 200)
            })
            .await;
        world
    }

    pub async fn unready(own: &[(&str, &str)]) -> Self {
        let behind = Lifecycle::new(Duration::from_secs(1));
        let key = Key::new(&SECRET.into()).unwrap();
        let (bank, upstream) = Bank::start(key, &behind).await;
        let upstream = upstream.to_string();
        let mut settings: BTreeMap<String, String> = [
            ("KONTOR_REDIS_URL", "redis://127.0.0.1:1"),
            ("KONTOR_CALLER_SECRET", SECRET),
            ("KONTOR_AUTH_ADDRESSES", &upstream),
            ("KONTOR_ACCOUNT_ADDRESSES", &upstream),
            ("KONTOR_TRANSFER_ADDRESSES", &upstream),
            ("KONTOR_CHAT_ADDRESSES", &upstream),
            ("KONTOR_REFLECTION", "true"),
            ("KONTOR_RATE_LIMIT_PER_SECOND", "10000"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        settings.extend(
            own.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let config = Config::read(&mut Reader::from_map(settings))
            .map_err(|errors| errors.to_string())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::new(config.server.grace);
        let running = gateway::run(config, listener, lifecycle.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "the gateway is what the lifecycle owns, not its task"
        )]
        let running = tokio::spawn(running);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            bank,
            address,
            lifecycle,
            http,
            gateway: Mutex::new(Some(running)),
            behind,
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
            .timeout(Duration::from_secs(20))
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// A gRPC connection to the gateway.
    pub async fn grpc(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// A gRPC connection whose streams may receive so many bytes before they are read.
    pub async fn grpc_with_window(&self, bytes: u32) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .initial_stream_window_size(bytes)
            .connect()
            .await
            .unwrap()
    }

    /// Begins the shutdown.
    pub fn drain(&self) {
        self.lifecycle.drain();
    }

    /// Waits for the gateway's end.
    pub async fn ended(&self) -> Result<(), Failure> {
        let running = self.gateway.lock().await.take().unwrap();
        timeout(Duration::from_secs(20), running).await.unwrap().unwrap()
    }

    /// Waits until something holds.
    pub async fn eventually<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let start = Instant::now();
        while !holds().await {
            assert!(start.elapsed() < Duration::from_secs(10), "not in time: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.lifecycle.drain();
        self.behind.drain();
    }
}

/// Adds a session to a gRPC request.
pub fn signed_in<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}
