//! The five services, each in one or more instances, on an [`Infra`].

mod environment;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    folder::write_secret,
    infra::Infra,
    ports,
    process::{Probe, Process, Spec},
    progress::Progress,
};

/// Longer than the services' own grace time, so that a clean exit is theirs.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// The topics of kontor, without a prefix.
const TOPICS: [&str; 3] = ["account.users", "transfer.events", "chat.messages"];
/// The file with the key that the journal is signed with, beside that of the caller secret.
const LEDGER_KEY: &str = "ledger-key";

/// A service of kontor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Credentials and sessions.
    Auth,
    /// Users.
    Account,
    /// The ledger.
    Transfer,
    /// Rooms and messages.
    Chat,
    /// The public door.
    Gateway,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Auth,
        Self::Account,
        Self::Transfer,
        Self::Chat,
        Self::Gateway,
    ];

    /// Its name, which is that of its program and its database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Account => "account",
            Self::Transfer => "transfer",
            Self::Chat => "chat",
            Self::Gateway => "gateway",
        }
    }

    /// Whether it has a database.
    pub fn has_database(self) -> bool {
        self != Self::Gateway
    }
}

/// How a world is started. The default is one instance of each service in a namespace of its own, on free ports.
#[derive(Clone, Debug)]
pub struct WorldOptions {
    /// The services that are started; most need the others.
    pub services: Vec<Service>,
    /// Instances of each service.
    pub replicas: usize,
    /// Where the instances of each number find PostgreSQL, as `host:port`, when that is not the [`Infra`]'s own address.
    pub postgres: Vec<String>,
    /// Separates worlds on one [`Infra`]: before the names of databases, topics and Redis keys. Small letters and digits;
    /// empty for none.
    pub namespace: String,
    /// The folder of the five programs; `None` is where cargo puts them in the profile of the running program.
    pub binaries: Option<PathBuf>,
    /// The ports; `None` takes free ones.
    pub ports: Option<WorldPorts>,
    /// The folder of the logs; `None` is a temporary one, removed with the world.
    pub logs: Option<PathBuf>,
    /// A file with the secret that signs caller contexts; `None` makes one beside the logs.
    pub caller_secret_file: Option<PathBuf>,
    /// Where traces and metrics go; `None` exports nothing.
    pub otlp_endpoint: Option<String>,
    /// The gateway's rate limit per caller; `None` is its default.
    pub rate_limit_per_second: Option<u32>,
    /// More settings: for a service, or for all. They win over those of the world.
    pub settings: Vec<(Option<Service>, String, String)>,
    /// How long a service may take to be ready.
    pub ready_within: Duration,
    /// Receives a line for each service that is ready.
    pub progress: Progress,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            services: Service::ALL.to_vec(),
            replicas: 1,
            postgres: Vec::new(),
            namespace: format!("t{:08x}", rand::random::<u32>()),
            binaries: None,
            ports: None,
            logs: None,
            caller_secret_file: None,
            otlp_endpoint: None,
            // a test is one address and a few users: the limit is a test of its own
            rate_limit_per_second: Some(1_000_000),
            settings: Vec::new(),
            ready_within: Duration::from_mins(1),
            progress: Progress::default(),
        }
    }
}

/// Fixed ports, all on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct WorldPorts {
    /// The first gateway's; the next instances follow.
    pub gateway: u16,
    /// The first of auth's; account, transfer and chat have theirs 100, 200 and 300 above.
    pub services: u16,
}

impl WorldPorts {
    /// The port of one instance.
    pub fn of(&self, service: Service, instance: usize) -> Result<u16> {
        let first = match service {
            Service::Gateway => usize::from(self.gateway),
            Service::Auth => usize::from(self.services),
            Service::Account => usize::from(self.services) + 100,
            Service::Transfer => usize::from(self.services) + 200,
            Service::Chat => usize::from(self.services) + 300,
        };
        let Ok(port) = u16::try_from(first + instance) else {
            let name = service.name();
            bail!("A port of {name} is above 65535: choose a lower one.");
        };
        Ok(port)
    }
}

/// One instance of a service.
#[derive(Debug)]
struct Instance {
    service: Service,
    index: usize,
    address: SocketAddr,
    process: Process,
}

/// A running kontor. Dropping it kills its services; the [`Infra`] stays.
#[derive(Debug)]
pub struct World {
    instances: Vec<Instance>,
    infra: Arc<Infra>,
    namespace: String,
    caller_secret: String,
    logs: PathBuf,
    /// Removed after the services have ended: the order of the fields matters.
    _temporary: Option<TempDir>,
}

impl World {
    /// Makes the databases and topics of the namespace, starts all services and waits until all are ready.
    pub async fn start(infra: Arc<Infra>, options: WorldOptions) -> Result<Self> {
        let since = Instant::now();
        let progress = options.progress.clone();
        let world = Self::prepare(infra, &options)?;
        tokio::try_join!(world.create_databases(&options.services), world.create_topics())?;
        progress.done("databases and topics", since);
        try_join_all(world.instances.iter().map(|instance| async {
            let since = Instant::now();
            instance.process.start().await?;
            progress.done(
                &format!("{} on {}", instance.process.name(), instance.address),
                since,
            );
            anyhow::Ok(())
        }))
        .await?;
        Ok(world)
    }

    /// Chooses every address before anything starts, as the services get fixed lists of each other.
    fn prepare(infra: Arc<Infra>, options: &WorldOptions) -> Result<Self> {
        ensure!(
            options.replicas > 0,
            "at least one instance of each service is needed"
        );
        let namespace = &options.namespace;
        ensure!(
            namespace
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
            "a namespace has small letters and digits, not {namespace:?}"
        );
        let temporary = options.logs.is_none().then(tempfile::tempdir).transpose()?;
        let logs = match (&options.logs, &temporary) {
            (Some(logs), _) => logs.clone(),
            (None, Some(folder)) => folder.path().to_owned(),
            (None, None) => anyhow::bail!("no folder for logs"),
        };
        std::fs::create_dir_all(&logs).with_context(|| format!("Cannot create {}", logs.display()))?;
        let secret_file = options
            .caller_secret_file
            .clone()
            .unwrap_or_else(|| logs.join("caller-secret"));
        write_secret(&secret_file)?;
        write_secret(&secret_file.with_file_name(LEDGER_KEY))?;
        let caller_secret = std::fs::read_to_string(&secret_file)?.trim().to_owned();
        let mut world = Self {
            instances: Vec::new(),
            infra,
            namespace: namespace.clone(),
            caller_secret,
            logs,
            _temporary: temporary,
        };
        let mut addresses = Vec::new();
        for service in options.services.iter().copied() {
            for index in 0..options.replicas {
                let port = options
                    .ports
                    .map_or_else(ports::free, |ports| ports.of(service, index))?;
                addresses.push((service, index, SocketAddr::from(([127, 0, 0, 1], port))));
            }
        }
        let binaries = match &options.binaries {
            Some(folder) => folder.clone(),
            None => default_binaries(&options.services)?,
        };
        for placed @ (service, index, address) in &addresses {
            let environment = environment::of(&world, options, &secret_file, *placed, &addresses)?;
            let process = world.process(options, &binaries, *placed, environment);
            world.instances.push(Instance {
                service: *service,
                index: *index,
                address: *address,
                process,
            });
        }
        Ok(world)
    }

    fn process(
        &self,
        options: &WorldOptions,
        binaries: &Path,
        (service, index, address): (Service, usize, SocketAddr),
        environment: Vec<(String, String)>,
    ) -> Process {
        let name = if options.replicas == 1 {
            service.name().to_owned()
        } else {
            format!("{}-{index}", service.name())
        };
        let health = environment.iter().find(|(name, _)| name == environment::HEALTH);
        let probe = match (service, health) {
            (_, Some((_, port))) => Probe::Grpc(port.clone()),
            (Service::Gateway, None) => Probe::Http(address.to_string()),
            (_, None) => Probe::Grpc(address.to_string()),
        };
        Process::new(Spec {
            log: self.logs.join(format!("{name}.log")),
            name,
            program: binaries.join(service.name()),
            arguments: Vec::new(),
            environment,
            owner: None,
            probe,
            ready_within: options.ready_within,
            stop: Signal::SIGTERM,
            abandon: Signal::SIGKILL,
        })
    }

    async fn create_databases(&self, services: &[Service]) -> Result<()> {
        for service in services.iter().filter(|service| service.has_database()) {
            self.infra.create_database(&self.database(*service)).await?;
        }
        Ok(())
    }

    async fn create_topics(&self) -> Result<()> {
        let topics: Vec<String> = TOPICS.iter().map(|topic| self.topic(topic)).collect();
        self.infra.create_topics(&topics).await
    }

    /// The servers below.
    pub fn infra(&self) -> &Arc<Infra> {
        &self.infra
    }

    /// `http://127.0.0.1:PORT` of the first gateway.
    pub fn gateway_url(&self) -> Result<String> {
        Ok(format!("http://{}", self.address(Service::Gateway, 0)?))
    }

    /// Where one instance listens.
    pub fn address(&self, service: Service, index: usize) -> Result<SocketAddr> {
        Ok(self.instance(service, index)?.address)
    }

    /// Where all instances of a service listen.
    pub fn addresses(&self, service: Service) -> Vec<SocketAddr> {
        let instances = self
            .instances
            .iter()
            .filter(|instance| instance.service == service);
        instances.map(|instance| instance.address).collect()
    }

    /// The process of one instance: to kill, stop, start again, or read its log.
    pub fn instance_process(&self, service: Service, index: usize) -> Result<&Process> {
        Ok(&self.instance(service, index)?.process)
    }

    /// The processes of all instances.
    pub fn processes(&self) -> Vec<Process> {
        self.instances
            .iter()
            .map(|instance| instance.process.clone())
            .collect()
    }

    /// The process number of an instance, while it runs.
    pub fn pid(&self, service: Service, index: usize) -> Option<u32> {
        self.instance(service, index).ok()?.process.pid()
    }

    /// Kills an instance (`kill -9`) and waits until it is gone.
    pub async fn kill(&self, service: Service, index: usize) -> Result<()> {
        self.instance(service, index)?.process.kill().await?;
        Ok(())
    }

    /// Asks an instance to end (SIGTERM), and returns how it ended.
    pub async fn terminate(&self, service: Service, index: usize) -> Result<ExitStatus> {
        self.instance(service, index)?.process.stop(STOP_WITHIN).await
    }

    /// Starts an instance that was ended, on its old address, and waits until it is ready.
    pub async fn start_instance(&self, service: Service, index: usize) -> Result<()> {
        self.instance(service, index)?.process.start().await
    }

    /// The log of an instance.
    pub fn log_path(&self, service: Service, index: usize) -> Result<PathBuf> {
        Ok(self.instance(service, index)?.process.log_path().to_owned())
    }

    /// The folder of all logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// The secret that signs caller contexts.
    pub fn caller_secret(&self) -> &str {
        &self.caller_secret
    }

    /// The URL of a service's database.
    pub fn database_url(&self, service: Service) -> String {
        self.infra.postgres_url(&self.database(service))
    }

    /// The full name of a topic, such as `chat.messages`.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix())
    }

    /// What stands before each topic.
    pub fn topic_prefix(&self) -> String {
        prefix(&self.namespace, '.')
    }

    /// What stands before each Redis key.
    pub fn redis_prefix(&self) -> String {
        prefix(&self.namespace, ':')
    }

    /// The bootstrap list of the Kafka cluster.
    pub fn kafka_brokers(&self) -> &str {
        self.infra.kafka_brokers()
    }

    fn database(&self, service: Service) -> String {
        format!("{}{}", prefix(&self.namespace, '_'), service.name())
    }

    fn instance(&self, service: Service, index: usize) -> Result<&Instance> {
        self.instances
            .iter()
            .find(|instance| instance.service == service && instance.index == index)
            .with_context(|| format!("there is no instance {index} of {}", service.name()))
    }

    /// Stops the gateways, then all other services, and waits until they have ended. Says which did not end cleanly.
    pub async fn stop(&self) -> Result<()> {
        let (gateways, others): (Vec<_>, Vec<_>) = self
            .instances
            .iter()
            .partition(|instance| instance.service == Service::Gateway);
        for group in [gateways, others] {
            try_join_all(group.into_iter().map(|instance| async {
                if instance.process.pid().is_none() {
                    return Ok(());
                }
                let status = instance.process.stop(STOP_WITHIN).await?;
                ensure!(
                    status.success(),
                    "{} did not end cleanly: {status}",
                    instance.process.name()
                );
                Ok(())
            }))
            .await?;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // side by side; each process is then waited for when its last handle goes
        for instance in &self.instances {
            instance.process.abandon();
        }
    }
}

fn prefix(namespace: &str, separator: char) -> String {
    if namespace.is_empty() {
        String::new()
    } else {
        format!("{namespace}{separator}")
    }
}

/// Cargo puts programs into the folder of the profile, and tests into `deps` below it.
fn default_binaries(services: &[Service]) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program has no folder")?;
    let folder = if folder.ends_with("deps") {
        folder.parent().context("deps has no parent")?
    } else {
        folder
    };
    for service in services {
        let program = folder.join(service.name());
        ensure!(
            program.exists(),
            "{} is missing: run cargo build --workspace --bins",
            program.display()
        );
    }
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_too_high_is_one_sentence() {
        let ports = WorldPorts {
            gateway: 65_535,
            services: 17_100,
        };
        assert_eq!(ports.of(Service::Gateway, 0).unwrap(), 65_535);
        assert_eq!(
            format!("{:#}", ports.of(Service::Gateway, 1).unwrap_err()),
            "A port of gateway is above 65535: choose a lower one."
        );
    }
}
