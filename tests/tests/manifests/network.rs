//! Who may talk to whom: what the policies allow is what the design says, and what they name is there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    pods::{Pod, pods},
    rendered::{Rendered, at, everywhere, list, text},
};

/// The calls between services, and from services to the data: from, to, all that may be.
const CALLS: [(&str, &[&str]); 5] = [
    ("gateway", &["account", "auth", "chat", "redis", "transfer"]),
    ("auth", &["postgres-router", "redis"]),
    ("account", &["auth", "kafka", "postgres-router", "transfer"]),
    ("transfer", &["kafka", "postgres-router"]),
    ("chat", &["account", "kafka", "postgres-router"]),
];

/// The policy for pods that cert-manager makes when a certificate is due: they are in no manifest, and all the world asks them.
pub const SOLVER: &str = "acme-solver";

/// Whether a label selector selects a pod with these labels. An empty one selects all, a missing one none.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(selector_fields) = selector.as_object() else {
        return false;
    };
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let by_labels = at(selector, "/matchLabels")
        .as_object()
        .into_iter()
        .flatten()
        .all(|(key, value)| label(key) == value.as_str());
    let by_expressions = list(selector, "/matchExpressions").iter().all(|expression| {
        let value = label(text(expression, "/key"));
        let among = || {
            list(expression, "/values")
                .iter()
                .any(|known| known.as_str() == value)
        };
        match text(expression, "/operator") {
            "In" => value.is_some() && among(),
            "NotIn" => !among(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    let known = selector_fields
        .keys()
        .all(|field| field == "matchLabels" || field == "matchExpressions");
    known && by_labels && by_expressions
}

/// Every port that a policy names is one where the pods listen; every peer that it names is there.
pub fn ports_of_policies(rendered: &Rendered) -> Vec<String> {
    let all = pods(rendered);
    rendered
        .of_kind("NetworkPolicy")
        .filter(|policy| policy.name() != SOLVER)
        .flat_map(|policy| {
            let own = |pod: &&Pod<'_>| selects(policy.at("/spec/podSelector"), pod.labels);
            let own: Vec<_> = all.iter().filter(own).collect();
            let ingress = list(&policy.0, "/spec/ingress").iter().flat_map(|rule| {
                let unknown = unknown_ports(rule, &own);
                unknown
                    .into_iter()
                    .chain(missing_peers(rendered, rule, "from", &all))
            });
            let egress = list(&policy.0, "/spec/egress").iter().flat_map(|rule| {
                let peers = peers_of(rule, "to", &all);
                let unknown = if peers.is_empty() {
                    Vec::new()
                } else {
                    unknown_ports(rule, &peers)
                };
                unknown
                    .into_iter()
                    .chain(missing_peers(rendered, rule, "to", &all))
            });
            ingress
                .chain(egress)
                .map(|what| rendered.problem(policy, what))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn unknown_ports(rule: &Value, pods: &[&Pod<'_>]) -> Vec<String> {
    list(rule, "/ports")
        .iter()
        .map(|port| &port["port"])
        .filter(|port| !pods.iter().any(|pod| pod.listens_on(port)))
        .map(|port| format!("nothing listens on port {port}"))
        .collect()
}

/// The pods of our namespace that a rule names.
fn peers_of<'a, 'b>(rule: &Value, side: &str, all: &'a [Pod<'b>]) -> Vec<&'a Pod<'b>> {
    let ours = list(rule, &format!("/{side}"))
        .iter()
        .filter(|peer| peer["namespaceSelector"].is_null());
    ours.flat_map(|peer| {
        all.iter()
            .filter(move |pod| selects(&peer["podSelector"], pod.labels))
    })
    .collect()
}

fn missing_peers(rendered: &Rendered, rule: &Value, side: &str, all: &[Pod<'_>]) -> Vec<String> {
    const DATA: [&str; 3] = ["kafka", "postgres-router", "redis"];
    list(rule, &format!("/{side}"))
        .iter()
        .filter(|peer| peer["namespaceSelector"].is_null() && !peer["podSelector"].is_null())
        .filter(|peer| !all.iter().any(|pod| selects(&peer["podSelector"], pod.labels)))
        .map(|peer| text(&peer["podSelector"], "/matchLabels/app.kubernetes.io~1name"))
        // with the data elsewhere, `base` still names what it would be here
        .filter(|name| rendered.has_data() || !DATA.contains(name))
        .map(|name| format!("there is no pod `{name}`"))
        .collect()
}

/// A policy is never wider than it looks: only the public door is open to all, only the data of others is outside.
pub fn no_wide_rules(rendered: &Rendered) -> Vec<String> {
    rendered
        .of_kind("NetworkPolicy")
        .flat_map(|policy| {
            let open_in = list(&policy.0, "/spec/ingress")
                .iter()
                .any(|rule| list(rule, "/from").is_empty());
            let open_out = list(&policy.0, "/spec/egress")
                .iter()
                .any(|rule| list(rule, "/to").is_empty());
            let all_ports = ["/spec/ingress", "/spec/egress"]
                .into_iter()
                .flat_map(|side| list(&policy.0, side))
                .any(|rule| list(rule, "/ports").is_empty());
            let addresses = list(&policy.0, "/spec/egress")
                .iter()
                .flat_map(|rule| list(rule, "/to"))
                .any(|peer| !peer["ipBlock"].is_null());
            let named = list(&policy.0, "/spec/egress")
                .iter()
                .flat_map(|rule| list(rule, "/ports"))
                .any(|port| port["port"].is_string());
            [
                (
                    named,
                    "names a port of others, which not every network resolves: give its number",
                ),
                (
                    open_in && !["gateway", SOLVER].contains(&policy.name()),
                    "lets everybody in",
                ),
                (open_out, "lets its pods go everywhere"),
                (all_ports, "has a rule for all ports"),
                (
                    addresses && !policy.name().starts_with("to-external-"),
                    "names addresses, which change",
                ),
            ]
            .into_iter()
            .filter(|(wrong, _)| *wrong)
            .map(|(_, what)| rendered.problem(policy, what))
            .collect::<Vec<_>>()
        })
        .collect()
}

/// The calls that the policies allow, on each side and together, are those of the design: no service reaches another one's
/// database, none is cut off.
pub fn calls(rendered: &Rendered) -> Vec<String> {
    let all = pods(rendered);
    let expected: BTreeSet<(&str, &str)> = CALLS
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| (*from, *to)))
        .filter(|(_, to)| all.iter().any(|pod| pod.name() == *to))
        .collect();
    let mut sides: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for from in all.iter().filter(|pod| pod.component() == "service") {
        for to in all.iter().filter(|to| is_called(to)) {
            for side in sides_that_allow(rendered, from, to) {
                sides.entry(side).or_default().insert((from.name(), to.name()));
            }
        }
    }
    ["the caller's side", "the called side", "both sides together"]
        .into_iter()
        .flat_map(|side| {
            let found = sides.remove(side).unwrap_or_default();
            let wrong: Vec<_> = found.symmetric_difference(&expected).copied().collect();
            wrong
                .into_iter()
                .map(|(from, to)| {
                    let what = if expected.contains(&(from, to)) {
                        "refuses"
                    } else {
                        "allows"
                    };
                    rendered.problem(side, format!("{what} calls from {from} to {to}"))
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// What services call: not the public door, which is open to all, and not the collector.
fn is_called(pod: &Pod<'_>) -> bool {
    matches!(pod.owner.kind(), "Deployment" | "StatefulSet")
        && !["collector", "gateway"].contains(&pod.name())
}

/// The sides whose policies let one pod open a connection to the other.
fn sides_that_allow(rendered: &Rendered, from: &Pod<'_>, to: &Pod<'_>) -> Vec<&'static str> {
    let ports = |of: &Pod<'_>, rules: &str, side: &str, peer: &Pod<'_>| -> BTreeSet<i64> {
        rendered
            .of_kind("NetworkPolicy")
            .filter(|policy| selects(policy.at("/spec/podSelector"), of.labels))
            .flat_map(|policy| list(&policy.0, rules))
            .filter(|rule| names(rule, side, peer))
            .flat_map(|rule| list(rule, "/ports"))
            .filter_map(|port| number_of(to, &port["port"]))
            .collect()
    };
    let out = ports(from, "/spec/egress", "/to", to);
    let into = ports(to, "/spec/ingress", "/from", from);
    let both = out.intersection(&into).next().is_some();
    [
        (!out.is_empty(), "the caller's side"),
        (!into.is_empty(), "the called side"),
        (both, "both sides together"),
    ]
    .into_iter()
    .filter_map(|(allows, side)| allows.then_some(side))
    .collect()
}

/// Whether one side of a rule names a pod of our namespace.
fn names(rule: &Value, side: &str, pod: &Pod<'_>) -> bool {
    list(rule, side)
        .iter()
        .any(|peer| peer["namespaceSelector"].is_null() && selects(&peer["podSelector"], pod.labels))
}

/// The number of a port where a pod listens, which a rule may name.
fn number_of(pod: &Pod<'_>, wanted: &Value) -> Option<i64> {
    pod.containers()
        .flat_map(|container| list(container, "/ports"))
        .find(|port| port["name"] == *wanted || port["containerPort"] == *wanted)
        .and_then(|port| port["containerPort"].as_i64())
}

/// Services and routes lead to pods that listen.
pub fn routes(rendered: &Rendered) -> Vec<String> {
    let all = pods(rendered);
    let mut problems = Vec::new();
    for service in rendered.of_kind("Service") {
        let labels = service.at("/spec/selector");
        let selector = serde_json::json!({ "matchLabels": labels });
        let behind: Vec<_> = all.iter().filter(|pod| selects(&selector, pod.labels)).collect();
        for port in list(&service.0, "/spec/ports") {
            let target = if port["targetPort"].is_null() {
                &port["port"]
            } else {
                &port["targetPort"]
            };
            if behind.is_empty() || !behind.iter().all(|pod| pod.listens_on(target)) {
                problems.push(rendered.problem(service, format!("no pod listens on {target}")));
            }
        }
    }
    for route in rendered
        .objects
        .iter()
        .filter(|object| object.kind().ends_with("Route"))
    {
        let backends = list(&route.0, "/spec/rules")
            .iter()
            .flat_map(|rule| list(rule, "/backendRefs"));
        for backend in backends {
            let service = rendered.find("Service", text(backend, "/name"));
            let known = service.is_some_and(|service| {
                list(&service.0, "/spec/ports")
                    .iter()
                    .any(|port| port["port"] == backend["port"])
            });
            if !known {
                problems.push(rendered.problem(route, format!("leads to {backend}, which is not there")));
            }
        }
        let listeners: Vec<_> = rendered
            .of_kind("Gateway")
            .flat_map(|gateway| list(&gateway.0, "/spec/listeners"))
            .map(|listener| text(listener, "/name"))
            .collect();
        for parent in list(&route.0, "/spec/parentRefs") {
            if !listeners.contains(&text(parent, "/sectionName")) {
                problems.push(rendered.problem(route, "hangs on a listener that is not there"));
            }
        }
    }
    problems
}

#[test]
fn every_port_of_a_policy_exists() {
    everywhere(ports_of_policies);
}

#[test]
fn no_policy_is_wider_than_it_looks() {
    everywhere(no_wide_rules);
}

#[test]
fn the_policies_allow_the_calls_of_the_design() {
    everywhere(calls);
}

#[test]
fn every_route_leads_somewhere() {
    everywhere(routes);
}
