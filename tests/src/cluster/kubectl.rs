//! kubectl as a child process: what a platform engineer types is what is tested. What is looked at or changed again and again goes to
//! the API through `kubectl proxy`, as a program that starts each time would take the cores that the cluster needs.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Method, RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::OnceCell,
};

/// Longer than any rollout; a command that hangs must not hang a test.
const LIMIT: Duration = Duration::from_mins(4);

/// kubectl finds out by the API's description how to merge each object, a tenth of a second of the cluster's cores for each, seven seconds
/// for all. It knows the kinds of Kubernetes by itself.
pub const BY_ITSELF: &str = "--openapi-patch=false";

/// kubectl for one cluster and one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    config: String,
    namespace: String,
    api: Arc<OnceCell<Api>>,
}

/// `kubectl proxy`, until it is dropped.
#[derive(Debug)]
struct Api {
    door: Forward,
    client: reqwest::Client,
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Kubectl {
    /// For the cluster of a kubeconfig file, in the namespace `kontor`.
    pub fn new(config: &str) -> Self {
        Self {
            config: config.to_owned(),
            namespace: "kontor".to_owned(),
            api: Arc::default(),
        }
    }

    /// The same for another namespace.
    #[must_use]
    pub fn within(&self, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..self.clone()
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(["--kubeconfig", &self.config, "--namespace", &self.namespace])
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    /// Runs a command, with an input perhaps; whatever it says is no error.
    pub async fn say(&self, arguments: &[&str], input: &str) -> Result<Said> {
        said(self.command(arguments), input)
            .await
            .with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// The output of a command, which must not fail.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// The same with an input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let said = self.say(arguments, input).await?;
        ensure!(
            said.code == 0,
            "kubectl {}: {}",
            arguments.join(" "),
            said.err.trim()
        );
        Ok(said.out)
    }

    /// Objects of one kind, or one of them, as the API tells them. `resource` is what stands in the API's paths.
    pub async fn look(&self, resource: Resource, name: &str, selector: &str) -> Result<Value> {
        let mut rest = String::new();
        if !name.is_empty() {
            rest = format!("/{name}");
        }
        if !selector.is_empty() {
            rest = format!("{rest}?labelSelector={selector}");
        }
        let answer = self.request(Method::GET, resource, &rest).await?.send().await?;
        let answer = answer
            .error_for_status()
            .with_context(|| format!("{} {name}", resource.name))?;
        Ok(answer.json().await?)
    }

    /// Changes some fields of an object, as `kubectl patch --type=merge` does.
    pub async fn merge(&self, resource: Resource, name: &str, fields: &Value) -> Result<()> {
        let request = self.request(Method::PATCH, resource, &format!("/{name}")).await?;
        let request = request.header(CONTENT_TYPE, "application/merge-patch+json");
        let answer = request.body(fields.to_string()).send().await?;
        let status = answer.status();
        let said = answer.text().await?;
        ensure!(status.is_success(), "{} {name}: {status} {said}", resource.name);
        Ok(())
    }

    /// Asks for the eviction of a pod, as `kubectl drain` does: the status of the answer, and its text.
    pub async fn evict(&self, pod: &str) -> Result<(u16, String)> {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        });
        let request = self
            .request(Method::POST, PODS, &format!("/{pod}/eviction"))
            .await?;
        let answer = request.json(&eviction).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// A request about all objects of a kind, or about what the rest of the path names.
    async fn request(&self, method: Method, resource: Resource, rest: &str) -> Result<RequestBuilder> {
        let api = self.api.get_or_try_init(|| self.proxy()).await?;
        let url = format!(
            "http://{}/{}/namespaces/{}/{}{rest}",
            api.door.address, resource.group, self.namespace, resource.name
        );
        Ok(api.client.request(method, url).timeout(Duration::from_secs(10)))
    }

    async fn proxy(&self) -> Result<Api> {
        let door = begun(&mut self.command(&["proxy", "--port", "0"])).await;
        Ok(Api {
            door: door.context("kubectl proxy")?,
            client: reqwest::Client::new(),
        })
    }

    /// `kubectl get … -o json`.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "-o", "json"], arguments].concat()).await?;
        serde_json::from_str(&text).context("kubectl get: not JSON")
    }

    /// `kubectl apply` of a manifest, or of a list of them.
    pub async fn apply(&self, manifest: &Value) -> Result<String> {
        self.apply_all(&manifest.to_string()).await
    }

    /// `kubectl apply` of all that an overlay is rendered to.
    pub async fn apply_all(&self, manifests: &str) -> Result<String> {
        self.run_with(&["apply", BY_ITSELF, "-f", "-"], manifests).await
    }

    /// A way to a port of a pod, until it is dropped.
    pub async fn forward(&self, pod: &str, port: u16) -> Result<Forward> {
        let target = format!("pod/{pod}");
        let mut command = self.command(&[
            "port-forward",
            "--address",
            "127.0.0.1",
            &target,
            &format!(":{port}"),
        ]);
        begun(&mut command)
            .await
            .with_context(|| format!("kubectl port-forward {target}"))
    }
}

/// A kind of object, as it stands in the paths of the API.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    group: &'static str,
    name: &'static str,
}

impl Resource {
    const fn of(group: &'static str, name: &'static str) -> Self {
        Self { group, name }
    }
}

/// Pods.
pub const PODS: Resource = Resource::of("api/v1", "pods");
/// Secrets.
pub const SECRETS: Resource = Resource::of("api/v1", "secrets");
/// Deployments.
pub const DEPLOYMENTS: Resource = Resource::of("apis/apps/v1", "deployments");
/// Stateful sets.
pub const STATEFUL_SETS: Resource = Resource::of("apis/apps/v1", "statefulsets");
/// Jobs.
pub const JOBS: Resource = Resource::of("apis/batch/v1", "jobs");
/// Autoscalers.
pub const AUTOSCALERS: Resource = Resource::of("apis/autoscaling/v2", "horizontalpodautoscalers");

/// Starts a command that stays, and waits until it says where it listens.
async fn begun(command: &mut Command) -> Result<Forward> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("it does not run")?;
    let out = child.stdout.take().context("it has no output")?;
    let mut lines = BufReader::new(out).lines();
    let first = tokio::time::timeout(Duration::from_secs(20), lines.next_line())
        .await
        .context("it does not begin")??
        .unwrap_or_default();
    // Forwarding from 127.0.0.1:43210 -> 7000, or: Starting to serve on 127.0.0.1:43210
    let Some(address) = first.split(' ').find(|word| word.starts_with("127.0.0.1:")) else {
        bail!("{first:?}");
    };
    Ok(Forward {
        address: address.to_owned(),
        _out: lines,
        _child: child,
    })
}

/// A forwarded port. Dropping it ends the way.
#[derive(Debug)]
pub struct Forward {
    /// Where it begins: `127.0.0.1:<port>`.
    pub address: String,
    // kubectl ends when nobody can read what it says
    _out: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

/// Runs a program to its end, within a limit.
pub async fn said(mut command: Command, input: &str) -> Result<Said> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("it does not run")?;
    let mut stdin = child.stdin.take().context("no input")?;
    let talk = async {
        // a program that does not read to the end says itself why
        let written = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await?;
        anyhow::Ok((written, output))
    };
    let (written, output) = tokio::time::timeout(LIMIT, talk)
        .await
        .with_context(|| format!("still not done after {} s", LIMIT.as_secs()))??;
    if output.status.success() {
        written.context("it did not read its input")?;
    }
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
