//! The REST door of kontor, as a client without any comfort: every answer is looked at by the test.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;

/// Longer than the gateway's own deadline: an answer always comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of one gateway. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    base: String,
    headers: HeaderMap,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body as JSON; null when it is not.
    pub json: Value,
}

impl Answer {
    /// An error unless the status is this one; returns the JSON body.
    pub fn expect(self, status: u16) -> Result<Value> {
        ensure!(
            self.status == status,
            "{} instead of {status}: {}",
            self.status,
            self.text
        );
        Ok(self.json)
    }

    /// An error unless this is a refusal with the status and the seed's sentence.
    pub fn refused(&self, status: u16, sentence: &str) -> Result<()> {
        ensure!(
            self.status == status,
            "{} instead of {status}: {}",
            self.status,
            self.text
        );
        ensure!(
            self.json["error"] == sentence,
            "{} instead of {sentence:?}",
            self.text
        );
        ensure!(
            self.json["request_id"].as_str().is_some_and(|id| !id.is_empty()),
            "no request id: {}",
            self.text
        );
        Ok(())
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Whether the outcome is unknown, so that the same request is to be sent again.
    pub fn is_unknown(&self) -> bool {
        matches!(self.status, 500 | 502 | 503 | 504)
    }
}

impl Rest {
    /// A client of the gateway at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .build()
            .context("no HTTP client")?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            headers: HeaderMap::new(),
        })
    }

    /// The same client, which sends one more header with each request.
    pub fn with(&self, name: &'static str, value: &str) -> Result<Self> {
        let mut other = self.clone();
        other
            .headers
            .insert(HeaderName::from_static(name), HeaderValue::from_str(value)?);
        Ok(other)
    }

    /// The same client, signed in with a session token.
    pub fn signed_in(&self, token: &str) -> Result<Self> {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// The same client for another gateway.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            ..self.clone()
        }
    }

    /// Where it sends its requests.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &[], String::new()).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    /// Any request. An error means that there was no answer: the outcome is unknown.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .headers(self.headers.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body).send().await.context("no answer")?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.context("the answer broke off")?;
        let json = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer {
            status,
            headers,
            text,
            json,
        })
    }
}
