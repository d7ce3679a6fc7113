//! What processes use of the machine, from /proc.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use local::{Infra, Process, World};
use nix::sys::resource::{UsageWho, getrusage};

/// The kernel counts CPU in hundredths of a second (USER_HZ), on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// Reads the CPU of a fixed set of processes.
#[derive(Clone)]
pub(super) struct Meter(Vec<Process>);

impl Meter {
    /// Of all processes of a world and its servers.
    pub fn new(world: &World, infra: &Infra) -> Self {
        Self(world.processes().into_iter().chain(infra.processes()).collect())
    }

    /// The CPU used so far.
    pub fn read(&self) -> Result<Reading> {
        let mut parts = Vec::new();
        for process in &self.0 {
            if let Some(pid) = process.pid() {
                parts.push((process.name().to_owned(), family_ticks(pid)?));
            }
        }
        Ok(Reading {
            parts,
            own: own(UsageWho::RUSAGE_SELF)?,
            pgbench: own(UsageWho::RUSAGE_CHILDREN)?,
            machine: machine()?,
        })
    }
}

/// The CPU used up to a moment.
pub(super) struct Reading {
    parts: Vec<(String, u64)>,
    own: Duration,
    /// Children of ours that have ended: pgbench, as the servers still run.
    pgbench: Duration,
    machine: Machine,
}

struct Machine {
    busy: u64,
    idle: u64,
}

impl Reading {
    /// The CPU used since an earlier moment.
    pub fn since(&self, before: &Self) -> Usage {
        let ticks = |ticks: u64| TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
        let mut parts: Vec<_> = self
            .parts
            .iter()
            .zip(&before.parts)
            .map(|((name, after), (_, before))| (name.clone(), ticks(after.saturating_sub(*before))))
            .collect();
        parts.push(("generator".to_owned(), self.own.saturating_sub(before.own)));
        parts.push(("pgbench".to_owned(), self.pgbench.saturating_sub(before.pgbench)));
        let known = parts.iter().map(|(_, cpu)| *cpu).sum::<Duration>();
        let busy = ticks(self.machine.busy.saturating_sub(before.machine.busy));
        Usage {
            parts,
            others: busy.saturating_sub(known),
            idle: ticks(self.machine.idle.saturating_sub(before.machine.idle)),
        }
    }
}

/// The CPU used in a measurement.
pub(super) struct Usage {
    /// By process.
    parts: Vec<(String, Duration)>,
    /// Whatever else runs on this machine, the kernel's own threads among it.
    others: Duration,
    idle: Duration,
}

impl Usage {
    /// Microseconds of each process for each of `requests`, `transfer 31.2, PostgreSQL 15 12.0`, and what was left over.
    pub fn per_request(&self, requests: u64) -> String {
        let requests = u128::from(requests.max(1));
        let tenths = |cpu: Duration| {
            let tenths = cpu.as_nanos() / 100 / requests;
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        let shown = self
            .parts
            .iter()
            .filter(|(_, cpu)| cpu.as_nanos() / 100 >= requests);
        let mut shown: Vec<_> = shown
            .map(|(name, cpu)| format!("{name} {}", tenths(*cpu)))
            .collect();
        shown.push(format!("idle {}", tenths(self.idle)));
        shown.push(format!("other work {}", tenths(self.others)));
        format!("{} ({} % of all)", shown.join(", "), self.others_percent())
    }

    /// How much of the machine's CPU other work took.
    pub fn others_percent(&self) -> u64 {
        let all = self.others + self.idle + self.parts.iter().map(|(_, cpu)| *cpu).sum::<Duration>();
        let percent = self.others.as_millis() * 100 / all.as_millis().max(1);
        u64::try_from(percent).unwrap_or(100)
    }
}

/// User and system time of a process and its children, those that ended too.
fn family_ticks(pid: u32) -> Result<u64> {
    let mut ticks = ticks(pid, 4)?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            // it may have ended since
            ticks += self::ticks(child, 2).unwrap_or(0);
        }
    }
    Ok(ticks)
}

/// The first `fields` of user, system, children's user and children's system time.
fn ticks(pid: u32, fields: usize) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // the name in parentheses may have spaces
    let (_, after) = stat.rsplit_once(')').context("a stat without a name")?;
    after
        .split_whitespace()
        .skip(11)
        .take(fields)
        .map(|field| Ok(field.parse::<u64>()?))
        .sum()
}

fn own(who: UsageWho) -> Result<Duration> {
    let usage = getrusage(who)?;
    let time = [usage.user_time(), usage.system_time()];
    let micros = time.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Ok(Duration::from_micros(u64::try_from(micros.iter().sum::<i64>())?))
}

fn machine() -> Result<Machine> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    // user nice system idle iowait irq softirq steal
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let idle = fields.iter().skip(3).take(2).sum();
    Ok(Machine {
        busy: fields.iter().sum::<u64>() - idle,
        idle,
    })
}

/// Resident memory of a process now and at its highest since the last reset, in KiB.
pub(super) fn resident(process: &Process) -> Result<(u64, u64)> {
    let pid = process
        .pid()
        .with_context(|| format!("{} does not run", process.name()))?;
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |label: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        let line = line.with_context(|| format!("no {label}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    Ok((kib("VmRSS:")?, kib("VmHWM:")?))
}
