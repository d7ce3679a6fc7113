//! The node that pods run on: with kind it is a container of Docker, so that what happens outside of all pods can be done there.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::{Pod, kubectl::said};

/// Seconds after which a connection that nobody answered counts as not possible.
const REACH_S: u32 = 2;

/// Runs a script of bash on a node.
async fn on(node: &str, script: &str) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(["exec", "--interactive", node, "bash", "-s"]);
    let said = said(command, script).await.context("docker exec")?;
    ensure!(said.code == 0, "on {node}: {}{}", said.out, said.err);
    Ok(said.out)
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

/// The process number of a pod's first process on the node.
async fn process(pod: &Pod) -> Result<u32> {
    let list = on(&pod.node, "ctr --namespace k8s.io tasks ls\n").await?;
    let line = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first() == Some(&pod.container.as_str()));
    let number = line.and_then(|words| words.get(1)?.parse().ok());
    number.with_context(|| format!("{} has no process", pod.said()))
}

/// An address and a port.
pub type Target = (String, u16);

/// From inside the network of a pod: whether a TCP connection to each target is possible.
pub async fn reaches(pod: &Pod, targets: &[Target]) -> Result<BTreeMap<Target, bool>> {
    let inside = format!("nsenter --target {} --net", process(pod).await?);
    let mut script = String::new();
    for (ip, port) in targets {
        writeln!(
            script,
            "{{ {inside} timeout {REACH_S} bash -c '</dev/tcp/{ip}/{port}' 2>/dev/null && echo {ip} {port}; }} &"
        )?;
    }
    script.push_str("wait\n");
    let open = on(&pod.node, &script).await?;
    Ok(targets
        .iter()
        .map(|target| {
            let line = format!("{} {}", target.0, target.1);
            (target.clone(), open.lines().any(|open| open == line))
        })
        .collect())
}

/// The status of an HTTP request that a pod makes to itself; 0 when nobody answers.
pub async fn asks_itself(pod: &Pod, port: u16, path: &str) -> Result<u16> {
    let script = format!(
        "nsenter --target {} --net timeout {REACH_S} bash -c '
            exec 3<>/dev/tcp/127.0.0.1/{port}
            printf \"GET {path} HTTP/1.0\\r\\n\\r\\n\" >&3
            read -r _ status _ <&3
            echo \"$status\"' 2>/dev/null || true\n",
        process(pod).await?
    );
    Ok(on(&pod.node, &script).await?.trim().parse().unwrap_or_default())
}

/// How many bytes a pod has received since it began.
pub async fn received(pod: &Pod) -> Result<u64> {
    let script = format!(
        "nsenter --target {} --net cat /proc/net/dev\n",
        process(pod).await?
    );
    let table = on(&pod.node, &script).await?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{} has no network: {table}", pod.name))
}

/// What the kernel says of a pod's first process, by the names of `/proc/<pid>/status`: of several values the first.
pub async fn status(pod: &Pod) -> Result<BTreeMap<String, String>> {
    let table = on(&pod.node, &format!("cat /proc/{}/status\n", process(pod).await?)).await?;
    Ok(table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            let first = value.split_whitespace().next().unwrap_or_default();
            (name.to_owned(), first.to_owned())
        })
        .collect())
}

/// The resident memory of a pod's first process, in KiB.
pub async fn memory_kib(pod: &Pod) -> Result<u64> {
    let status = status(pod).await?;
    let resident = status
        .get("VmRSS")
        .with_context(|| format!("{} has no memory", pod.name))?;
    Ok(resident.parse()?)
}

/// The memory of all processes of a pod in KiB, as its control group counts it, without the files that could be dropped.
pub async fn working_set_kib(pod: &Pod) -> Result<u64> {
    // the same for both versions of control groups, by what the container's own processes see of it
    let script = format!(
        "pid={}
v2=$(sed -n 's/^0:://p' /proc/$pid/cgroup) v1=$(sed -n 's/^[0-9]*:memory://p' /proc/$pid/cgroup)
if [ -n \"$v1\" ]; then dir=/sys/fs/cgroup/memory$v1 use=memory.usage_in_bytes cold=total_inactive_file
else dir=/sys/fs/cgroup$v2 use=memory.current cold=inactive_file; fi
echo $(( ($(cat \"$dir/$use\") - $(awk -v k=$cold '$1 == k {{ print $2 }}' \"$dir/memory.stat\")) / 1024 ))
",
        process(pod).await?
    );
    Ok(on(&pod.node, &script).await?.trim().parse()?)
}

/// Whether the first process of a pod sees its root as read-only.
pub async fn root_is_read_only(pod: &Pod) -> Result<bool> {
    let mounts = on(&pod.node, &format!("cat /proc/{}/mounts\n", process(pod).await?)).await?;
    let root = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .rfind(|words| words.get(1) == Some(&"/"));
    let options = root.and_then(|words| words.get(3).copied());
    let options = options.with_context(|| format!("{} has no root", pod.name))?;
    Ok(options.split(',').any(|option| option == "ro"))
}
