//! PostgreSQL from Debian's package, with a cluster of our own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::Signal,
    unistd::{Uid, User},
};

use crate::{
    folder::{copy_tree, give},
    ports,
    process::{Owner, Probe, Process, Spec},
    template::{run, template},
};

/// Debian's folder of PostgreSQL versions.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The oldest version that the migrations are tested on.
const OLDEST: u32 = 15;

/// Makes the cluster where there is none, and says how to start it.
pub(super) async fn prepare(data: &Path, port: u16, durable: bool) -> Result<Process> {
    let (version, programs) = installation()?;
    let owner = owner()?;
    let cluster = data.join("postgres");
    if !cluster.join("PG_VERSION").exists() {
        let made = template(&format!("postgres-{version}"), owner, async |fresh: &Path| {
            let target = format!("--pgdata={}", fresh.display());
            let arguments = [
                &target,
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ];
            run(&programs.join("initdb"), &arguments, owner).await
        })
        .await?;
        // a copy that a crash cut short has no PG_VERSION under its last name
        let partial = data.join("postgres.partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial)?;
        }
        copy_tree(&made, &partial, owner)?;
        std::fs::rename(&partial, &cluster)?;
    }
    give(&cluster, owner)?;
    Ok(Process::new(Spec {
        name: format!("PostgreSQL {version}"),
        program: programs.join("postgres"),
        arguments: arguments(&cluster, port, durable)
            .into_iter()
            .map(Into::into)
            .collect(),
        environment: Vec::new(),
        log: super::log_path(data, "postgres"),
        owner,
        probe: Probe::Postgres(format!("postgres://postgres@{}/postgres", ports::loopback(port))),
        ready_within: Duration::from_mins(1), // it may have to replay its log
        stop: Signal::SIGINT,                 // "fast": ends the sessions, then checkpoints
        abandon: if durable { Signal::SIGINT } else { Signal::SIGQUIT },
    }))
}

fn arguments(cluster: &Path, port: u16, durable: bool) -> Vec<String> {
    let (flush, buffers, log) = if durable {
        // as PostgreSQL's manual advises for a server that works: memory is taken when it is used. A checkpoint that comes
        // because 1 GB was written, after half a minute of the ledger's load, stalls commits for some 60 ms
        ("on", "1GB", "4GB")
    } else {
        ("off", "128MB", "1GB")
    };
    let mut arguments = vec![
        "-D".to_owned(),
        cluster.display().to_string(),
        "-p".to_owned(),
        port.to_string(),
    ];
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        // several worlds of several replicas, each with its pools
        "max_connections=600".to_owned(),
        format!("shared_buffers={buffers}"),
        format!("max_wal_size={log}"),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "log_min_messages=warning".to_owned(),
        // no DETAIL lines: they quote rows, e-mail addresses among them
        "log_error_verbosity=terse".to_owned(),
        // without it a power cut loses what was committed, and a killed server nothing: the rest of what makes a commit
        // last (synchronous_commit, full_page_writes) is on by default, and must stay so
        format!("fsync={flush}"),
    ];
    for setting in settings {
        arguments.extend(["-c".to_owned(), setting]);
    }
    arguments
}

/// The version and the programs: the tested version where it is installed, else the newest.
fn installation() -> Result<(u32, PathBuf)> {
    let installed = std::fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let version = entry.ok()?.file_name().to_str()?.parse::<u32>().ok()?;
            let programs = Path::new(VERSIONS).join(version.to_string()).join("bin");
            (version >= OLDEST && programs.join("postgres").exists()).then_some((version, programs))
        });
    installed
        .min_by_key(|(version, _)| if *version == OLDEST { 0 } else { u32::MAX - version })
        .with_context(|| {
            format!("PostgreSQL {OLDEST} or newer is not installed in {VERSIONS}: run ./deploy/up.")
        })
}

/// PostgreSQL refuses to run as root, so root runs it as the user that Debian's package makes.
fn owner() -> Result<Option<Owner>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")?
        .context("The user postgres is missing, which PostgreSQL's package makes.")?;
    Ok(Some(Owner {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    }))
}

/// The folder with PostgreSQL's programs, `pgbench` among them.
pub fn postgres_programs() -> Result<PathBuf> {
    Ok(installation()?.1)
}
