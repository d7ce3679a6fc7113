//! What every Deployment and StatefulSet has beside it.

use serde_json::Value;

use crate::{
    network::{SOLVER, selects},
    pods::{Pod, each_pod, pods},
    rendered::{Object, Rendered, at, everywhere, list, text},
};

/// From the end of the grace time to the end of the process: background tasks, and the last telemetry.
const AFTER_GRACE_S: i64 = 5;

/// The autoscaler of a workload.
fn autoscaler<'a>(rendered: &'a Rendered, owner: &Object) -> Option<&'a Object> {
    rendered.of_kind("HorizontalPodAutoscaler").find(|it| {
        it.text("/spec/scaleTargetRef/kind") == owner.kind()
            && it.text("/spec/scaleTargetRef/name") == owner.name()
    })
}

/// Deployments and StatefulSets that stay: a drill's is a job, as it goes again.
fn is_server(pod: &Pod<'_>) -> bool {
    matches!(pod.owner.kind(), "Deployment" | "StatefulSet") && pod.component() != "job"
}

/// Every pod has a policy in both directions; every server a budget that lets one go; every Deployment an autoscaler.
pub fn guarded(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        let mut missing = Vec::new();
        for direction in ["Ingress", "Egress"] {
            let covered = rendered.of_kind("NetworkPolicy").any(|policy| {
                policy.name() != "default-deny"
                    && selects(policy.at("/spec/podSelector"), pod.labels)
                    && list(&policy.0, "/spec/policyTypes")
                        .iter()
                        .any(|known| known == direction)
            });
            if !covered {
                missing.push(format!("no NetworkPolicy for {direction}"));
            }
        }
        let budgets: Vec<_> = rendered
            .of_kind("PodDisruptionBudget")
            .filter(|budget| selects(budget.at("/spec/selector"), pod.labels))
            .collect();
        if is_server(pod) && budgets.len() != 1 {
            missing.push(format!("{} PodDisruptionBudgets, not one", budgets.len()));
        }
        if budgets
            .iter()
            .any(|budget| *budget.at("/spec/maxUnavailable") != 1)
        {
            missing.push(
                "its budget is not `maxUnavailable: 1`, which neither blocks a drain nor empties a service"
                    .to_owned(),
            );
        }
        if pod.owner.kind() == "Deployment" && autoscaler(rendered, pod.owner).is_none() {
            missing.push("no HorizontalPodAutoscaler".to_owned());
        }
        missing
    })
}

/// Who applies manifests with `replicas` undoes what the autoscaler did.
pub fn no_replicas_beside_an_autoscaler(rendered: &Rendered) -> Vec<String> {
    let targets = rendered
        .objects
        .iter()
        .filter(|object| autoscaler(rendered, object).is_some() && !object.at("/spec/replicas").is_null());
    let fixed = targets.map(|object| rendered.problem(object, "has `replicas` beside an autoscaler"));
    let aimless = rendered
        .of_kind("HorizontalPodAutoscaler")
        .filter(|it| {
            let (kind, name) = (
                it.text("/spec/scaleTargetRef/kind"),
                it.text("/spec/scaleTargetRef/name"),
            );
            rendered.find(kind, name).is_none()
        })
        .map(|it| rendered.problem(it, "scales nothing that is there"));
    fixed.chain(aimless).collect()
}

/// More than one of each, so that the loss of a node is not the loss of a service; `kind` has one node and one of each.
pub fn more_than_one(rendered: &Rendered) -> Vec<String> {
    rendered
        .of_kind("HorizontalPodAutoscaler")
        .filter(|it| rendered.name != "kind" && it.at("/spec/minReplicas").as_i64() < Some(2))
        .map(|it| rendered.problem(it, "lets its pods become one"))
        .collect()
}

/// Servers are asked whether they have started, whether they can answer and whether they live; the last two are not the same.
/// What serves no port says whether it works, or has done its work.
pub fn probes(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        if !is_server(pod) {
            return Vec::new();
        }
        list(pod.spec, "/containers")
            .iter()
            .flat_map(|container| probes_of(pod, container))
            .collect()
    })
}

fn probes_of(pod: &Pod<'_>, container: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let serves = !list(container, "/ports").is_empty();
    for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let probe = &container[kind];
        let says_it_otherwise = !serves && (kind != "readinessProbe" || !container["startupProbe"].is_null());
        if probe.is_null() && !says_it_otherwise {
            problems.push(format!("no {kind}"));
        }
        for pointer in ["/grpc/port", "/httpGet/port", "/tcpSocket/port"] {
            let port = at(probe, pointer);
            if !port.is_null() && !pod.listens_on(port) {
                problems.push(format!("{kind} asks port {port}, where nothing listens"));
            }
        }
    }
    let question =
        |kind: &str| ["grpc", "httpGet", "tcpSocket", "exec"].map(|how| container[kind][how].clone());
    if !container["readinessProbe"].is_null() && question("readinessProbe") == question("livenessProbe") {
        problems.push("readiness and liveness ask the same: what cannot answer would be killed".to_owned());
    }
    problems
}

/// A service has time to leave: the pause before the signal, the requests in flight, and what comes after them.
pub fn time_to_end(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        if pod.component() != "service" {
            return Vec::new();
        }
        let all: i64 = pod.spec["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or_default();
        let pause = list(pod.spec, "/containers")
            .iter()
            .filter_map(|container| at(container, "/lifecycle/preStop/sleep/seconds").as_i64())
            .max()
            .unwrap_or_default();
        let grace = list(pod.spec, "/containers")
            .iter()
            .flat_map(|container| list(container, "/envFrom"))
            .filter_map(|source| rendered.find("ConfigMap", text(source, "/configMapRef/name")))
            .find_map(|map| map.text("/data/KONTOR_GRACE_MS").parse::<i64>().ok())
            .unwrap_or_default();
        let mut problems = Vec::new();
        if !(3..=10).contains(&pause) {
            problems.push(format!(
                "preStop pauses {pause} s: callers need 3 to 10 s to forget it"
            ));
        }
        if grace == 0 || all * 1_000 <= pause * 1_000 + grace + AFTER_GRACE_S * 1_000 {
            problems.push(format!(
                "{all} s to end are too few for {pause} s of pause, {grace} ms of grace and {AFTER_GRACE_S} s after it"
            ));
        }
        problems
    })
}

/// A pod has a priority; a Deployment spreads its own over zones and nodes, and rolls without going below its number.
pub fn placed(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        let mut problems = Vec::new();
        let class = text(pod.spec, "/priorityClassName");
        if rendered.find("PriorityClass", class).is_none() {
            problems.push(format!("there is no PriorityClass `{class}`"));
        }
        if pod.owner.kind() != "Deployment" {
            return problems;
        }
        let spread = list(pod.spec, "/topologySpreadConstraints");
        let apart = list(
            pod.spec,
            "/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution",
        );
        let selectors = spread
            .iter()
            .map(|it| &it["labelSelector"])
            .chain(apart.iter().map(|it| at(it, "/podAffinityTerm/labelSelector")));
        if spread.is_empty() || apart.is_empty() {
            problems.push("is not spread over zones and nodes".to_owned());
        }
        if selectors
            .into_iter()
            .any(|selector| !selects(selector, pod.labels))
        {
            problems.push("is spread by labels that it does not have".to_owned());
        }
        if *pod.owner.at("/spec/strategy/rollingUpdate/maxUnavailable") != 0 {
            problems.push("a rollout may go below the number of pods".to_owned());
        }
        problems
    })
}

/// What selects its pods by labels finds them, and nobody else's.
pub fn selectors(rendered: &Rendered) -> Vec<String> {
    let all = pods(rendered);
    let mut problems: Vec<_> = all
        .iter()
        .filter(|pod| is_server(pod))
        .filter(|pod| !selects(pod.owner.at("/spec/selector"), pod.labels))
        .map(|pod| rendered.problem(pod, "does not select its own pods"))
        .collect();
    for (kind, pointer) in [
        ("PodDisruptionBudget", "/spec/selector"),
        ("NetworkPolicy", "/spec/podSelector"),
    ] {
        let idle = rendered
            .of_kind(kind)
            .filter(|object| object.name() != SOLVER)
            .filter(|object| !all.iter().any(|pod| selects(object.at(pointer), pod.labels)))
            .map(|object| rendered.problem(object, "selects no pod"));
        problems.extend(idle);
    }
    problems
}

#[test]
fn every_deployment_has_a_policy_a_budget_and_an_autoscaler() {
    everywhere(guarded);
}

#[test]
fn no_workload_has_replicas_beside_an_autoscaler() {
    everywhere(no_replicas_beside_an_autoscaler);
}

#[test]
fn no_service_is_one_pod() {
    everywhere(more_than_one);
}

#[test]
fn every_server_is_probed() {
    everywhere(probes);
}

#[test]
fn every_service_has_time_to_end() {
    everywhere(time_to_end);
}

#[test]
fn every_deployment_is_spread() {
    everywhere(placed);
}

#[test]
fn every_selector_selects() {
    everywhere(selectors);
}
