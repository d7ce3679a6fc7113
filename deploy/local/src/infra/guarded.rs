//! Redis and Kafka as a provider runs them: reached by TLS, and with a password.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{InfraPorts, kafka, log_path};
use crate::{
    ports,
    process::{Probe, Process, Spec},
    template::public_tempdir,
};

/// A server that is reached by TLS, and with a password. Dropping it ends it.
#[derive(Debug)]
pub struct Guarded {
    port: u16,
    /// Before the folder, which is removed after the server has ended.
    _process: Process,
    _folder: TempDir,
}

/// What the server shows and asks for.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    /// Its certificate (PEM).
    pub certificate: &'a str,
    /// The key of that (PEM, PKCS 8).
    pub key: &'a str,
    /// Who is let in. Redis knows no other than `default`.
    pub user: &'a str,
    /// The password of that user.
    pub password: &'a str,
}

impl Guarded {
    /// A Redis; its only port speaks TLS.
    pub async fn redis(guard: Guard<'_>) -> Result<Self> {
        let (folder, port) = (public_tempdir("kontor-guarded-")?, ports::free()?);
        let data = folder.path();
        let (certificate, key) = (data.join("tls.crt"), data.join("tls.key"));
        std::fs::write(&certificate, guard.certificate)?;
        std::fs::write(&key, guard.key)?;
        let arguments = [
            ["--bind", "127.0.0.1"],
            ["--port", "0"],
            ["--tls-port", &port.to_string()],
            ["--tls-cert-file", &certificate.display().to_string()],
            ["--tls-key-file", &key.display().to_string()],
            // clients show a password instead of a certificate
            ["--tls-auth-clients", "no"],
            ["--requirepass", guard.password],
            ["--dir", &data.display().to_string()],
            ["--save", ""],
            ["--appendonly", "no"],
            ["--loglevel", "warning"],
        ];
        let process = Process::new(Spec {
            name: "Redis".to_owned(),
            program: "redis-server".into(),
            arguments: arguments.into_iter().flatten().map(Into::into).collect(),
            environment: Vec::new(),
            log: log_path(data, "redis"),
            owner: None,
            probe: Probe::Port(ports::loopback(port)),
            ready_within: Duration::from_secs(15),
            stop: Signal::SIGTERM,
            abandon: Signal::SIGKILL,
        });
        Self::start(process, port, folder).await
    }

    /// A Kafka broker; another port, in clear text, is for its own controller.
    pub async fn kafka(guard: Guard<'_>) -> Result<Self> {
        let (folder, port) = (public_tempdir("kontor-guarded-")?, ports::free()?);
        let data = folder.path();
        let inner = InfraPorts {
            postgres: 0,
            redis: 0,
            kafka: ports::free()?,
            kafka_controller: ports::free()?,
        };
        let file = kafka::write_logging(data)?.join("server.properties");
        let identity = data.join("identity.pem");
        std::fs::write(&identity, format!("{}{}", guard.key, guard.certificate))?;
        let mut text = kafka::properties(&data.join("data"), inner, false);
        text.push_str(&listener(guard, inner, port, &identity));
        std::fs::write(&file, text)?;
        let jars = kafka::jars()?;
        // the names and passwords of SCRAM are part of the cluster's metadata
        let users = ["256", "512"].map(|bits| {
            let (user, password) = (guard.user, guard.password);
            format!("SCRAM-SHA-{bits}=[name={user},password={password}]")
        });
        let users: Vec<_> = users
            .iter()
            .flat_map(|user| ["--add-scram", user.as_str()])
            .collect();
        kafka::format(&jars, data, &file, &users).await?;
        let process = kafka::broker(&jars, data, log_path(data, "kafka"), inner.kafka);
        Self::start(process, port, folder).await
    }

    async fn start(process: Process, port: u16, folder: TempDir) -> Result<Self> {
        process.start().await?;
        Ok(Self {
            port,
            _process: process,
            _folder: folder,
        })
    }

    /// The port on 127.0.0.1 that speaks TLS.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The guarded listener beside the two of [`kafka::properties`], whose list it replaces.
fn listener(guard: Guard<'_>, inner: InfraPorts, port: u16, identity: &Path) -> String {
    let mut text = String::new();
    let mut put = |name: &str, value: &str| {
        // writing to a String cannot fail
        let _ = writeln!(text, "{name}={value}");
    };
    let [open, controller, guarded] = [inner.kafka, inner.kafka_controller, port].map(ports::loopback);
    put(
        "listeners",
        &format!("PLAINTEXT://{open},CONTROLLER://{controller},GUARDED://{guarded}"),
    );
    put(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL",
    );
    let modules = "org.apache.kafka.common.security";
    let scram = format!("{modules}.scram.ScramLoginModule required;");
    let Guard { user, password, .. } = guard;
    let plain = format!("{modules}.plain.PlainLoginModule required user_{user}=\"{password}\";");
    let identity = identity.display().to_string();
    for (name, value) in [
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.location", identity.as_str()),
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
        ("plain.sasl.jaas.config", plain.as_str()),
        ("scram-sha-256.sasl.jaas.config", scram.as_str()),
        ("scram-sha-512.sasl.jaas.config", scram.as_str()),
    ] {
        put(&format!("listener.name.guarded.{name}"), value);
    }
    text
}
