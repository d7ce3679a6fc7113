//! Redis from Debian's package. It holds only what can be rebuilt, so nothing is written to disk.

use std::{path::Path, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::{
    ports,
    process::{Probe, Process, Spec},
};

/// Says how to start it.
pub(super) fn prepare(data: &Path, port: u16) -> Result<Process> {
    let folder = data.join("redis");
    std::fs::create_dir_all(&folder)?;
    let port_text = port.to_string();
    let folder_text = folder.display().to_string();
    let arguments = [
        ["--bind", "127.0.0.1"],
        ["--port", &port_text],
        ["--dir", &folder_text],
        ["--save", ""],
        ["--appendonly", "no"],
        ["--loglevel", "warning"],
    ];
    Ok(Process::new(Spec {
        name: "Redis".to_owned(),
        program: "redis-server".into(),
        arguments: arguments.into_iter().flatten().map(Into::into).collect(),
        environment: Vec::new(),
        log: super::log_path(data, "redis"),
        owner: None,
        probe: Probe::Redis(ports::loopback(port)),
        ready_within: Duration::from_secs(15),
        stop: Signal::SIGTERM,
        abandon: Signal::SIGKILL,
    }))
}
