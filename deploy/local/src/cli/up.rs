//! `local up`: the whole system, until Ctrl-C.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use local::{
    DataFolder, Infra, InfraOptions, InfraPorts, Progress, Service, World, WorldOptions, WorldPorts,
    default_data, demo, keep, ports,
};
use tokio::task::JoinSet;

use super::signals::Signals;

/// Present once the demo data is loaded.
const LOADED: &str = "demo-loaded";
/// Settings that `up` hands on from its own environment to the services.
const HANDED_ON: [&str; 5] = [
    "KONTOR_LOG",
    "KONTOR_LOG_FORMAT",
    "KONTOR_OTLP_ENDPOINT",
    "KONTOR_TRACE_SAMPLE_PERCENT",
    "KONTOR_RATE_LIMIT_PER_SECOND",
];

#[derive(Args)]
pub(super) struct Options {
    /// Instances of each service.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=50))]
    replicas: u16,
    /// The gateway's port on 127.0.0.1; further gateways take the next ones.
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The first of the inner ports: PostgreSQL, Redis and Kafka take the next four, the services those 100 to 499 above.
    #[arg(long, default_value_t = 17_000, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    inner_port: u16,
    /// Empties the data folder first.
    #[arg(long)]
    fresh: bool,
    /// The folder for data and logs [default: one for each checkout, see deploy/README.md].
    #[arg(long)]
    data: Option<PathBuf>,
}

pub(super) async fn run(options: Options) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let since = Instant::now();
    let progress = Progress::print();
    let data = open_data(&options)?;
    let system = tokio::select! {
        system = start(&options, &data, &progress) => system?,
        () = signals.next() => {
            progress.say("stopped before everything was up");
            return Ok(ExitCode::from(130));
        }
    };
    progress.say(&system.summary(&options, &data, since)?);

    let mut keepers = JoinSet::new();
    for process in system
        .infra
        .processes()
        .into_iter()
        .chain(system.world.processes())
    {
        keepers.spawn(keep(process, progress.clone()));
    }
    signals.next().await;
    keepers.shutdown().await;
    progress
        .say("\nstopping the gateway, the services, Kafka, Redis and PostgreSQL (Ctrl-C again kills them)");
    let stopping = Instant::now();
    tokio::select! {
        stopped = system.stop() => stopped?,
        () = signals.next() => {
            progress.say("killed");
            return Ok(ExitCode::from(130));
        }
    }
    progress.done(
        &format!("stopped; the data stays in {}", data.path().display()),
        stopping,
    );
    Ok(ExitCode::SUCCESS)
}

/// Locks the data folder, and checks what must be so before anything starts.
fn open_data(options: &Options) -> Result<DataFolder> {
    let path = match &options.data {
        Some(path) => std::path::absolute(path)?,
        None => default_data(&std::env::current_dir()?)?,
    };
    let data = DataFolder::open(&path)?;
    let (infra, world) = options.ports()?;
    let mut wanted = Vec::new();
    for index in 0..usize::from(options.replicas) {
        wanted.push((world.of(Service::Gateway, index)?, "the gateway", "--port"));
    }
    wanted.extend([
        (infra.postgres, "PostgreSQL", "--inner-port"),
        (infra.redis, "Redis", "--inner-port"),
        (infra.kafka, "Kafka", "--inner-port"),
        (infra.kafka_controller, "Kafka's controller", "--inner-port"),
    ]);
    for service in Service::ALL
        .into_iter()
        .filter(|service| *service != Service::Gateway)
    {
        for index in 0..usize::from(options.replicas) {
            wanted.push((world.of(service, index)?, service.name(), "--inner-port"));
        }
    }
    ports::demand_free(wanted)?;
    if options.fresh {
        data.clear()?;
    }
    data.demand_space()?;
    Ok(data)
}

impl Options {
    fn ports(&self) -> Result<(InfraPorts, WorldPorts)> {
        let first = self.inner_port;
        ensure!(first <= 65_000, "--inner-port must be at most 65000");
        let infra = InfraPorts {
            postgres: first + 1,
            redis: first + 2,
            kafka: first + 3,
            kafka_controller: first + 4,
        };
        Ok((
            infra,
            WorldPorts {
                gateway: self.port,
                services: first + 100,
            },
        ))
    }
}

struct System {
    // first the services, then what they use: dropped in this order
    world: World,
    infra: Arc<Infra>,
}

async fn start(options: &Options, data: &DataFolder, progress: &Progress) -> Result<System> {
    let (infra_ports, world_ports) = options.ports()?;
    let infra = InfraOptions {
        data: Some(data.path().to_owned()),
        durable: true,
        ports: Some(infra_ports),
        progress: progress.clone(),
    };
    let infra = Arc::new(Infra::start(infra).await?);
    let world = World::start(
        Arc::clone(&infra),
        WorldOptions {
            replicas: options.replicas.into(),
            namespace: String::new(),
            ports: Some(world_ports),
            logs: Some(data.path().join("logs")),
            caller_secret_file: Some(data.path().join("caller-secret")),
            rate_limit_per_second: None,
            settings: handed_on(),
            progress: progress.clone(),
            ..WorldOptions::default()
        },
    )
    .await?;
    let loaded = data.path().join(LOADED);
    if !loaded.exists() {
        let since = Instant::now();
        demo::load(&world).await.context("Cannot load the demo data")?;
        std::fs::write(&loaded, "").with_context(|| format!("Cannot write {}", loaded.display()))?;
        progress.done("demo data", since);
    }
    Ok(System { world, infra })
}

fn handed_on() -> Vec<(Option<Service>, String, String)> {
    let given = HANDED_ON
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?.into_string().ok()?)));
    given
        .map(|(name, value)| {
            // only the gateway knows rate limits
            let only = (name == "KONTOR_RATE_LIMIT_PER_SECOND").then_some(Service::Gateway);
            (only, name.to_owned(), value)
        })
        .collect()
}

impl System {
    async fn stop(&self) -> Result<()> {
        let services = self.world.stop().await;
        self.infra.stop().await?;
        services
    }

    fn summary(&self, options: &Options, data: &DataFolder, since: Instant) -> Result<String> {
        let url = self.world.gateway_url()?;
        let mut lines = vec![format!(
            "\nkontor is up after {}: {url}\n",
            seconds(since.elapsed())
        )];
        let mut place = |name: &str, place: String| lines.push(format!("  {name:<11} {place}"));
        for service in Service::ALL.into_iter().rev() {
            let addresses: Vec<_> = self
                .world
                .addresses(service)
                .iter()
                .map(ToString::to_string)
                .collect();
            place(service.name(), addresses.join(" "));
        }
        place(
            "PostgreSQL",
            self.infra.postgres_url("{auth,account,transfer,chat}"),
        );
        place("Redis", self.infra.redis_url());
        place("Kafka", self.infra.kafka_brokers().to_owned());
        place("logs", self.world.logs().display().to_string());
        lines.push(format!(
            "\nUsers: 1 Alice (alice@example.com), 2 Bob (bob@example.com), password {}.\nTry:",
            demo::PASSWORD
        ));
        let gateway = format!("localhost:{}", options.port);
        lines.push(format!(
            "  curl -c /tmp/alice -d '{{\"email\":\"alice@example.com\",\"password\":\"{}\"}}' -H content-type:application/json {gateway}/api/login",
            demo::PASSWORD
        ));
        lines.push(format!(
            "  curl -b /tmp/alice -d '{{\"from\":1,\"to\":2,\"amount\":100}}' -H content-type:application/json {gateway}/api/transfer"
        ));
        lines.push(format!("  curl -b /tmp/alice {gateway}/api/users/1"));
        lines.push(format!(
            "\nCtrl-C stops everything; the data stays in {}.",
            data.path().display()
        ));
        Ok(lines.join("\n"))
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f32())
}
