//! One HTTP/1.1 connection that is kept.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a gateway.
pub(super) struct Client {
    address: String,
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes; ends with the client.
    _connection: JoinSet<()>,
}

impl Client {
    pub async fn connect(address: &str) -> Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // an error reaches whoever waits for an answer
            let _ = connection.await;
        });
        Ok(Self {
            address: address.to_owned(),
            sender,
            _connection: tasks,
        })
    }

    /// Posts JSON and returns the answer's status and JSON.
    pub async fn post(
        &mut self,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<(StatusCode, Value)> {
        let mut request = Request::post(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())))?;
        let exchange = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            let bytes = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
        };
        timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("POST {path}: no answer"))?
    }
}
