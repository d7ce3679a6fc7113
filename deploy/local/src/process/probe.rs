//! Is it ready? One short question in each server's own language.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sqlx::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const PATIENCE: Duration = Duration::from_secs(2);

/// A question whose answer means ready.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    /// The URL of a database to connect to.
    Postgres(String),
    /// The address of a Redis.
    Redis(String),
    /// An address where somebody listens: a Redis that speaks TLS, which has nothing to load.
    Port(String),
    /// The address of a Kafka broker: it listens as soon as the controller has let it in.
    Kafka(String),
    /// The address of a gRPC server with `grpc.health.v1`.
    Grpc(String),
    /// The address of an HTTP server with `GET /readyz`.
    Http(String),
}

impl Probe {
    /// Asks once; an error says why it is not ready.
    pub async fn check(&self) -> Result<()> {
        match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer within {} s", PATIENCE.as_secs()),
        }
    }

    async fn ask(&self) -> Result<()> {
        match self {
            Self::Postgres(url) => Ok(sqlx::PgConnection::connect(url).await?.close().await?),
            Self::Redis(address) => {
                let answer = exchange(address, b"PING\r\n", 7).await?;
                ensure!(
                    answer == b"+PONG\r\n",
                    "Redis answers {:?}",
                    String::from_utf8_lossy(&answer)
                );
                Ok(())
            }
            Self::Port(address) => {
                TcpStream::connect(address).await?;
                Ok(())
            }
            Self::Kafka(address) => {
                // ApiVersions, version 0: length, key 18, version, correlation id 7, no client id
                let answer = exchange(address, &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255], 10).await?;
                ensure!(answer[4..] == [0, 0, 0, 7, 0, 0], "Kafka answers {answer:?}");
                Ok(())
            }
            Self::Grpc(address) => {
                let channel = Endpoint::from_shared(format!("http://{address}"))?
                    .connect()
                    .await?;
                let request = HealthCheckRequest {
                    service: String::new(),
                };
                let answer = HealthClient::new(channel).check(request).await?.into_inner();
                ensure!(
                    answer.status() == ServingStatus::Serving,
                    "its health is {:?}",
                    answer.status()
                );
                Ok(())
            }
            Self::Http(address) => {
                let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
                let answer = exchange(address, request.as_bytes(), 12).await?;
                ensure!(
                    answer == b"HTTP/1.1 200",
                    "GET /readyz: {}",
                    String::from_utf8_lossy(&answer)
                );
                Ok(())
            }
        }
    }
}

/// Sends a question, and reads the first `length` bytes of the answer.
async fn exchange(address: &str, question: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    socket.write_all(question).await?;
    let mut answer = vec![0; length];
    socket.read_exact(&mut answer).await?;
    Ok(answer)
}
