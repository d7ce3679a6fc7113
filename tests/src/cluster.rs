//! A kontor in a Kubernetes cluster, as `tests/kind/run` has brought it up with kind.
//!
//! - [`Cluster`]: asks and changes the cluster with kubectl, as its users do.
//! - [`Pod`]: one pod; what it says about itself, and its last words.
//! - [`node`]: from outside of all pods: kills processes, opens connections in a pod's network, counts its bytes.
//! - [`Load`]: users who move money, write and read all the time, and know what they were promised.

pub mod kubectl;
pub mod load;
pub mod node;
pub mod pod;
pub mod release;

pub use kubectl::{Forward, Kubectl};
pub use load::Load;
pub use pod::Pod;

use std::{fmt::Display, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use proto::{
    auth::v1::{GrantRoleRequest, Role, credential_service_client::CredentialServiceClient},
    transfer::v1::{
        LaneHead, VerifyLedgerRequest, VerifyLedgerResponse,
        ledger_admin_service_client::LedgerAdminServiceClient,
    },
};
use rpc::{Caller, caller::Key};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use self::kubectl::{AUTOSCALERS, DEPLOYMENTS, PODS, SECRETS, STATEFUL_SETS};
use crate::{
    eventually::eventually_every,
    grpc::{self, Credentials, Door, door, signed},
    rest::Rest,
    user::User,
};

/// The services, which are Deployments with one container.
pub const SERVICES: [&str; 5] = ["gateway", "auth", "account", "transfer", "chat"];

/// How long a pod may take to be ready on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// What runs all the time: jobs and the drill do not.
const ALL_THE_TIME: &str = "app.kubernetes.io/part-of=kontor,app.kubernetes.io/component!=job";

/// Of a pod: how often it was nudged.
const NUDGES: &str = "kontor/nudges";

/// How often the cluster is looked at: it has the same cores.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Tests that count replicas do so one after the other: the autoscaler's lets all services be measured.
pub static REPLICAS: Mutex<()> = Mutex::const_new(());

/// The port on which Patroni tells whether its PostgreSQL leads.
const PATRONI: u16 = 8008;

/// [`crate::eventually`] for what kubectl tells.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    eventually_every(LOOK_EVERY, what, within, condition).await
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    gateway: String,
    overlay: PathBuf,
}

impl Cluster {
    /// The cluster that `tests/kind/run` tells of. Without one this is an error: a test that needs a cluster never passes
    /// without.
    pub fn connect() -> Result<Self> {
        Ok(Self {
            kubectl: Kubectl::new(&variable("KUBECONFIG")?),
            gateway: variable("KONTOR_KIND_GATEWAY")?,
            overlay: PathBuf::from(variable("KONTOR_KIND_OVERLAY")?),
        })
    }

    /// kubectl in kontor's namespace.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The public door, from outside of the cluster: `http://127.0.0.1:<port>`.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The folder of the overlay that was applied.
    pub fn overlay(&self) -> &str {
        self.overlay.to_str().unwrap_or_default()
    }

    /// Another folder of k8s/.
    pub fn part(&self, path: &str) -> String {
        self.overlay.join("../..").join(path).display().to_string()
    }

    /// A REST client of the public door with connections of its own.
    pub fn rest(&self) -> Result<Rest> {
        Rest::new(&self.gateway)
    }

    /// The pods that are to be there: those that have ended or are about to are left out.
    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        let list = self.kubectl.look(PODS, "", selector).await?;
        let mut pods: Vec<_> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Pod::read)
            .filter(|pod| pod.is_meant_to_run)
            .collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(pods)
    }

    /// The pods of one part: a service or a server.
    pub async fn pods_of(&self, part: &str) -> Result<Vec<Pod>> {
        self.pods(&format!("app.kubernetes.io/name={part}")).await
    }

    /// All pods of kontor that run all the time.
    pub async fn all_pods(&self) -> Result<Vec<Pod>> {
        let mut pods = self.pods(ALL_THE_TIME).await?;
        // a job that somebody makes from a CronJob is labelled like the data
        pods.retain(|pod| pod.json["metadata"]["ownerReferences"][0]["kind"] != "Job");
        Ok(pods)
    }

    /// Waits until a part has exactly so many pods, all of them ready.
    pub async fn ready(&self, part: &str, replicas: usize) -> Result<Vec<Pod>> {
        eventually(&format!("{replicas} × {part}"), PATIENCE, async || {
            let pods = self.pods_of(part).await?;
            let ready = pods.iter().filter(|pod| pod.is_ready).count();
            ensure!(
                pods.len() == replicas && ready == replicas,
                "{ready} of {} are ready",
                pods.len()
            );
            Ok(pods)
        })
        .await
    }

    /// Waits until everything is there and ready as it is specified, and nothing of before is left.
    pub async fn whole(&self) -> Result<()> {
        eventually("the whole kontor is ready", PATIENCE, async || {
            let pods = self.all_pods().await?;
            let missing: Vec<_> = pods.iter().filter(|pod| !pod.is_ready).map(Pod::said).collect();
            ensure!(!pods.is_empty() && missing.is_empty(), "{}", missing.join(", "));
            for kind in [DEPLOYMENTS, STATEFUL_SETS] {
                let list = self.kubectl.look(kind, "", ALL_THE_TIME).await?;
                for item in list["items"].as_array().into_iter().flatten() {
                    is_as_specified(item)?;
                }
            }
            self.rest()?.get("/readyz").await?.expect(200)?;
            Ok(())
        })
        .await
    }

    /// Of the pods of PostgreSQL the one that leads, when one does.
    pub async fn leader<'a>(&self, pods: &'a [Pod]) -> Result<Option<&'a Pod>> {
        let answers = node::asks_itself(pods, PATRONI, "/primary").await?;
        Ok(pods.iter().find(|pod| answers.get(&pod.name) == Some(&200)))
    }

    /// One value of a Secret.
    pub async fn secret(&self, name: &str, key: &str) -> Result<String> {
        let secret = self.kubectl.look(SECRETS, name, "").await?;
        let value = secret["data"][key].as_str();
        let value = value.with_context(|| format!("the secret {name} has no {key}"))?;
        Ok(String::from_utf8(BASE64_STANDARD.decode(value)?)?)
    }

    /// A user who may do what operators may: verify the ledger, pay money from the treasury.
    ///
    /// Nobody is one at first, so we vouch for the role with the services' own key, at the door of auth.
    pub async fn operator(&self) -> Result<User> {
        let rest = self.rest()?;
        let user = User::sign_up(&rest, "Operator").await?;
        let key = Key::new(&self.secret("caller", "secret").await?.into())?;
        let account = Caller::Service {
            name: "account".to_owned(),
        };
        let pods = self.pods_of("auth").await?;
        let auth = pods.iter().find(|pod| pod.is_ready).context("no auth is ready")?;
        let forward = self.kubectl.forward(&auth.name, 7000).await?;
        let mut credentials = CredentialServiceClient::new(door(&forward.address, signed(&key, &account)?)?);
        let grant = GrantRoleRequest {
            user_id: user.id,
            role: Role::Operator.into(),
        };
        credentials.grant_role(grant).await.context("grant a role")?;
        User::sign_in(&rest, user.id, "Operator", &user.email).await
    }

    /// A new user with money, in minor units, who has connections of their own.
    pub async fn user(&self, operator: &User, name: &str, balance: i64) -> Result<User> {
        let user = User::sign_up(&self.rest()?, name).await?;
        if balance > 0 {
            let body = json!({"to": user.id, "amount": balance, "transfer_id": Uuid::new_v4()});
            let answer = operator.rest.post("/api/deposits", &body).await?;
            answer.expect(201).context("deposit")?;
        }
        Ok(user)
    }

    /// Has a service run with so many replicas, which its autoscaler then keeps at least; waits until they are ready.
    pub async fn scale(&self, service: &str, replicas: usize) -> Result<Vec<Pod>> {
        let least = json!({"spec": {"minReplicas": replicas}});
        self.kubectl.merge(AUTOSCALERS, service, &least).await?;
        // an autoscaler takes its time to remove replicas, above all where it cannot measure
        let now = json!({"spec": {"replicas": replicas}});
        self.kubectl.merge(DEPLOYMENTS, service, &now).await?;
        self.ready(service, replicas).await
    }

    /// Has the kubelet look at a pod now, if something does not run in it. After a failure, even of a moment, it comes back to a pod by itself only
    /// ten to fifteen seconds later, but on every change at once: to a volume that it was not yet allowed to see, and to a container that
    /// ended twice in ten minutes, however short its back-off is.
    pub async fn nudge(&self, pod: &Pod) -> Result<()> {
        if !pod.waits {
            return Ok(());
        }
        let nudges = pod.json["metadata"]["annotations"][NUDGES].as_str();
        let nudges = nudges.map_or(Ok(0), str::parse::<u32>)?;
        let one_more = json!({"metadata": {"annotations": {NUDGES: (nudges + 1).to_string()}}});
        self.kubectl.merge(PODS, &pod.name, &one_more).await
    }

    /// The names of all nodes.
    pub async fn nodes(&self) -> Result<Vec<String>> {
        let list = self.kubectl.run(&["get", "nodes", "-o", "name"]).await?;
        Ok(list
            .lines()
            .map(|line| line.trim_start_matches("node/").to_owned())
            .collect())
    }

    /// Has the ledger verify itself; an error unless it is sound. What it said last.
    pub async fn verify_ledger(&self, operator: &User) -> Result<VerifyLedgerResponse> {
        verify(self.door(operator)?, Vec::new()).await
    }

    /// A gRPC door of the gateway, from outside.
    pub fn door(&self, user: &User) -> Result<Door> {
        grpc::door(&self.gateway, Credentials::Bearer(user.token.clone()))
    }
}

/// Whether what runs of a Deployment or a StatefulSet is what is specified now, and nothing else.
fn is_as_specified(item: &Value) -> Result<()> {
    let (name, wanted, status) = (
        &item["metadata"]["name"],
        &item["spec"]["replicas"],
        &item["status"],
    );
    let (seen, generation) = (&status["observedGeneration"], &item["metadata"]["generation"]);
    ensure!(seen == generation, "{name} has changed");
    for count in ["replicas", "readyReplicas", "updatedReplicas"] {
        let there = &status[count];
        ensure!(there == wanted, "{name}: {count} are {there} of {wanted}");
    }
    Ok(())
}

/// Has a ledger verify itself, which must still have the ends of lanes that are known; an error unless it is sound.
pub async fn verify(ledger: Door, known_heads: Vec<LaneHead>) -> Result<VerifyLedgerResponse> {
    let mut ledger = LedgerAdminServiceClient::new(ledger);
    let request = VerifyLedgerRequest { known_heads };
    let mut answers = ledger.verify_ledger(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.done {
            ensure!(
                answer.bad_row.is_none(),
                "the ledger is not sound: {:?}",
                answer.bad_row
            );
            return Ok(answer);
        }
    }
    bail!("the verification broke off")
}

/// A line for the summary of `tests/kind/run`: what was measured, or could not be tried.
pub fn tell(line: impl Display) {
    #[expect(clippy::print_stdout, reason = "the output of a test")]
    {
        println!("{line}");
    }
}

/// What `tests/kind/run` hands on to the tests.
pub fn variable(name: &str) -> Result<String> {
    #[expect(clippy::disallowed_methods, reason = "a test has no settings::Reader")]
    let value = std::env::var(name);
    value
        .ok()
        .filter(|value| !value.is_empty())
        .with_context(|| format!("{name} is not set: these tests are run by tests/kind/run"))
}
