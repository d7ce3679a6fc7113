//! The node that pods run on: with kind it is a container of Docker, so that what happens outside of all pods can be done there.
//!
//! To ask there takes a program or two each time, of the cores that the cluster needs: what is asked of many pods is asked at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::{Pod, kubectl::said};

/// Seconds after which a connection that nobody answered counts as not possible.
const REACH_S: u32 = 2;
/// Pods that try all targets at once.
const REACH_AT_ONCE: usize = 7;

/// What the kernel says of a pod.
#[derive(Debug)]
pub struct Facts {
    /// Of the first process, what it may do, by the names of `/proc/<pid>/status`: of several values the first.
    pub status: BTreeMap<String, String>,
    /// Whether the first process sees its root as read-only.
    pub root_is_read_only: bool,
    /// The resident memory of the first process, in KiB.
    pub resident_kib: u64,
    /// The memory of all processes in KiB, as the control group counts it, without the files that could be dropped.
    pub working_set_kib: u64,
}

/// Runs a script of bash on a node.
async fn on(node: &str, script: &str) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(["exec", "--interactive", node, "bash", "-s"]);
    let said = said(command, script).await.context("docker exec")?;
    ensure!(said.code == 0, "on {node}: {}{}", said.out, said.err);
    Ok(said.out)
}

/// Runs a script of bash for each pod, on its node and side by side; `$pid` is the pod's first process. What it printed, by the
/// names of the pods: not much, so that the lines of one do not get into those of another.
async fn for_each(pods: &[Pod], script: &str) -> Result<BTreeMap<String, String>> {
    let mut printed: BTreeMap<String, String> = BTreeMap::new();
    let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    for node in nodes {
        let mut all = format!(
            "tasks=$(ctr --namespace k8s.io tasks ls)
of() {{
    pid=$(awk -v container=\"$2\" '$1 == container {{ print $2 }}' <<<\"$tasks\")
    {{ [ -n \"$pid\" ] && echo \"pid $pid\"
{script}
    }} | sed \"s/^/$1 /\"
}}
"
        );
        for pod in pods.iter().filter(|pod| pod.node == node) {
            ensure!(!pod.container.is_empty(), "{} has no container", pod.said());
            writeln!(all, "of {} {} &", pod.name, pod.container)?;
        }
        all.push_str("wait\n");
        for line in on(node, &all).await?.lines() {
            let (pod, line) = line.split_once(' ').context("a line of no pod")?;
            let lines = printed.entry(pod.to_owned()).or_default();
            writeln!(lines, "{line}")?;
        }
    }
    for pod in pods {
        let lines = printed.get(&pod.name).map_or("", String::as_str);
        ensure!(lines.starts_with("pid "), "{} has no process", pod.said());
    }
    Ok(printed)
}

/// `kill -9` of the first process of a pod, which takes all others of its container with it.
pub async fn kill(pod: &Pod) -> Result<()> {
    let container = &pod.container;
    ensure!(!container.is_empty(), "{} has no container", pod.said());
    on(
        &pod.node,
        &format!("ctr --namespace k8s.io tasks kill --signal SIGKILL {container}\n"),
    )
    .await?;
    Ok(())
}

/// An address and a port.
pub type Target = (String, u16);

/// From inside the network of each pod: the targets to which a TCP connection is possible.
pub async fn reaches(pods: &[Pod], targets: &[Target]) -> Result<BTreeMap<String, BTreeSet<Target>>> {
    let mut script = "nsenter --target $pid --net bash -s <<'TRY'\n".to_owned();
    for (ip, port) in targets {
        writeln!(
            script,
            "{{ timeout {REACH_S} bash -c '</dev/tcp/{ip}/{port}' 2>/dev/null && echo open {ip} {port}; }} &"
        )?;
    }
    script.push_str("wait\nTRY");
    let mut printed = BTreeMap::new();
    // all at once, they would take longer to start than an answer may take
    for some in pods.chunks(REACH_AT_ONCE) {
        printed.append(&mut for_each(some, &script).await?);
    }
    printed
        .into_iter()
        .map(|(pod, lines)| {
            let mut open = BTreeSet::new();
            for line in lines.lines().filter_map(|line| line.strip_prefix("open ")) {
                let (ip, port) = line.split_once(' ').context("a target without a port")?;
                open.insert((ip.to_owned(), port.parse()?));
            }
            Ok((pod, open))
        })
        .collect()
}

/// The status of an HTTP request that each pod makes to itself; nothing where nobody answers.
pub async fn asks_itself(pods: &[Pod], port: u16, path: &str) -> Result<BTreeMap<String, u16>> {
    let script = format!(
        "nsenter --target $pid --net timeout {REACH_S} bash -c '
            exec 3<>/dev/tcp/127.0.0.1/{port}
            printf \"GET {path} HTTP/1.0\\r\\n\\r\\n\" >&3
            read -r _ status _ <&3
            echo \"status $status\"' 2>/dev/null"
    );
    let printed = for_each(pods, &script).await?;
    let status = |lines: &str| {
        let status = lines.lines().find_map(|line| line.strip_prefix("status "))?;
        status.trim().parse().ok()
    };
    Ok(printed
        .into_iter()
        .filter_map(|(pod, lines)| Some((pod, status(&lines)?)))
        .collect())
}

/// How many bytes each pod has received since it began.
pub async fn received(pods: &[Pod]) -> Result<BTreeMap<String, u64>> {
    let script = "nsenter --target $pid --net cat /proc/net/dev | sed -n 's/^ *eth0: */eth0 /p'";
    let printed = for_each(pods, script).await?;
    printed
        .into_iter()
        .map(|(pod, lines)| {
            let line = lines.lines().find_map(|line| line.strip_prefix("eth0 "));
            let bytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            let bytes = bytes.with_context(|| format!("{pod} has no network: {lines}"))?;
            Ok((pod, bytes))
        })
        .collect()
}

/// What the kernel says of each pod.
pub async fn facts(pods: &[Pod]) -> Result<BTreeMap<String, Facts>> {
    // the same for both versions of control groups, by what the container's own processes see of it
    let script =
        "v2=$(sed -n 's/^0:://p' /proc/$pid/cgroup) v1=$(sed -n 's/^[0-9]*:memory://p' /proc/$pid/cgroup)
if [ -n \"$v1\" ]; then dir=/sys/fs/cgroup/memory$v1 use=memory.usage_in_bytes cold=total_inactive_file
else dir=/sys/fs/cgroup$v2 use=memory.current cold=inactive_file; fi
echo set $(( ($(cat \"$dir/$use\") - $(awk -v k=$cold '$1 == k { print $2 }' \"$dir/memory.stat\")) / 1024 ))
awk '$2 == \"/\" { options = $4 } END { print \"root \" options }' /proc/$pid/mounts
sed -nE 's/^(CapEff|NoNewPrivs|Seccomp|Uid|VmRSS):/status &/p' /proc/$pid/status";
    let printed = for_each(pods, script).await?;
    printed
        .into_iter()
        .map(|(pod, lines)| {
            let facts = Facts::read(&lines).with_context(|| format!("{pod}: {lines}"))?;
            Ok((pod, facts))
        })
        .collect()
}

impl Facts {
    fn read(lines: &str) -> Option<Self> {
        let one = |label: &str| lines.lines().find_map(|line| line.strip_prefix(label));
        let status: BTreeMap<_, _> = lines
            .lines()
            .filter_map(|line| line.strip_prefix("status ")?.split_once(':'))
            .map(|(name, value)| {
                let first = value.split_whitespace().next().unwrap_or_default();
                (name.to_owned(), first.to_owned())
            })
            .collect();
        Some(Self {
            root_is_read_only: one("root ")?.split(',').any(|option| option == "ro"),
            resident_kib: status.get("VmRSS")?.parse().ok()?,
            working_set_kib: one("set ")?.parse().ok()?,
            status,
        })
    }
}
