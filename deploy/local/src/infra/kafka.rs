//! A Kafka broker that is its own controller (KRaft), from the jars that `kafka/pom.xml` pins.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use super::InfraPorts;
use crate::{
    folder::{cache, copy_tree, hex},
    ports,
    process::{Probe, Process, Spec},
    template::{run, template},
};

const POM: &[u8] = include_bytes!("../../kafka/pom.xml");
const LOGGING: &str = include_str!("../../kafka/log4j2.properties");
/// Any id will do: a broker and its own controller only have to agree.
const CLUSTER_ID: &str = "a29udG9yLWxvY2FsLW9uZQ";

/// Formats the log folder where there is none, and says how to start the broker.
pub(super) async fn prepare(data: &Path, ports: InfraPorts, durable: bool) -> Result<Process> {
    let jars = jars()?;
    let folder = write_logging(&data.join("kafka"))?.to_owned();
    let log_folder = folder.join("data");
    std::fs::write(
        folder.join("server.properties"),
        properties(&log_folder, ports, durable),
    )?;
    if !log_folder.exists() {
        let formatted = template(&format!("kafka-{}", stamp()), None, async |fresh: &Path| {
            format_template(&jars, &folder, fresh).await
        })
        .await?;
        let partial = folder.join("data.partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial)?;
        }
        copy_tree(&formatted, &partial, None)?;
        std::fs::rename(&partial, &log_folder)?;
    }
    Ok(broker(
        &jars,
        &folder,
        super::log_path(data, "kafka"),
        ports.kafka,
    ))
}

/// Makes the folder, and says there how the broker logs.
pub(super) fn write_logging(folder: &Path) -> Result<&Path> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("log4j2.properties"), LOGGING)?;
    Ok(folder)
}

/// Says how to start the broker of the `server.properties` in the folder. The port is one in clear text.
pub(super) fn broker(jars: &Path, folder: &Path, log: PathBuf, port: u16) -> Process {
    let mut arguments = java_options(jars, folder);
    arguments.push("kafka.Kafka".to_owned());
    arguments.push(folder.join("server.properties").display().to_string());
    Process::new(Spec {
        name: "Kafka".to_owned(),
        program: "java".into(),
        arguments: arguments.into_iter().map(Into::into).collect(),
        environment: Vec::new(),
        log,
        owner: None,
        probe: Probe::Kafka(ports::loopback(port)),
        ready_within: Duration::from_mins(1),
        stop: Signal::SIGTERM,
        abandon: Signal::SIGKILL,
    })
}

/// The pom's hash names the folder of its jars, as in `need_kafka` of `deploy/lib/install.sh`.
fn stamp() -> String {
    hex(&Sha256::digest(POM))[..12].to_owned()
}

pub(super) fn jars() -> Result<PathBuf> {
    let jars = cache()?.join(format!("kafka-{}", stamp()));
    ensure!(
        jars.is_dir(),
        "Kafka's jars are missing in {}: run ./deploy/up or ./tests/run, which fetch them.",
        jars.display()
    );
    Ok(jars)
}

fn java_options(jars: &Path, folder: &Path) -> Vec<String> {
    vec![
        // small and quick to start: it carries a few hundred messages a second here, not a cluster's load
        "-Xmx256m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        "-XX:+ExitOnOutOfMemoryError".to_owned(),
        "-Djava.awt.headless=true".to_owned(),
        format!(
            "-Dlog4j2.configurationFile={}",
            folder.join("log4j2.properties").display()
        ),
        "-cp".to_owned(),
        format!("{}/*", jars.display()),
    ]
}

async fn format_template(jars: &Path, folder: &Path, target: &Path) -> Result<()> {
    // the tool reads the folder to format from a properties file
    let ports = InfraPorts {
        postgres: 0,
        redis: 0,
        kafka: 1,
        kafka_controller: 2,
    };
    let file = target.with_extension("properties");
    std::fs::write(&file, properties(target, ports, true))?;
    format(jars, folder, &file, &[]).await
}

/// Formats the log folder that a file of properties names.
pub(super) async fn format(jars: &Path, folder: &Path, file: &Path, more: &[&str]) -> Result<()> {
    let mut arguments = java_options(jars, folder);
    arguments.extend(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"].map(str::to_owned));
    arguments.push(file.display().to_string());
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    run(Path::new("java"), &arguments, None)
        .await
        .context("Cannot format Kafka's folder")
}

pub(super) fn properties(log_folder: &Path, ports: InfraPorts, durable: bool) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: &str| {
        // writing to a String cannot fail
        let _ = writeln!(text, "{name}={value}");
    };
    let (broker, controller) = (
        ports::loopback(ports.kafka),
        ports::loopback(ports.kafka_controller),
    );
    put("process.roles", "broker,controller");
    put("node.id", "1");
    put("controller.quorum.voters", &format!("1@{controller}"));
    put("controller.listener.names", "CONTROLLER");
    put(
        "listeners",
        &format!("PLAINTEXT://{broker},CONTROLLER://{controller}"),
    );
    put("log.dirs", &log_folder.display().to_string());
    // topics are made on purpose, so that a misspelt name is an error
    put("auto.create.topics.enable", "false");
    for topic in ["offsets", "transaction.state.log", "share.coordinator.state"] {
        let infix = if topic == "transaction.state.log" {
            ""
        } else {
            ".topic"
        };
        put(&format!("{topic}{infix}.replication.factor"), "1");
    }
    put("offsets.topic.num.partitions", "4");
    put("transaction.state.log.min.isr", "1");
    put("share.coordinator.state.topic.min.isr", "1");
    // one broker and few members: nobody to wait for
    put("group.initial.rebalance.delay.ms", "0");
    put("group.consumer.assignment.interval.ms", "0");
    put("group.consumer.heartbeat.interval.ms", "200");
    put("group.consumer.min.heartbeat.interval.ms", "200");
    // a broker that comes back after a kill is let in when its old session has ended
    put("broker.heartbeat.interval.ms", "500");
    put("broker.session.timeout.ms", "3000");
    put("log.segment.bytes", "67108864");
    put("log.retention.hours", if durable { "168" } else { "1" });
    text
}
