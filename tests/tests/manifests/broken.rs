//! Each rule sees what it is there for: a region's manifests are broken in one place, and the rule must say so.

use serde_json::{Value, json};

use crate::{
    network, pods, references,
    rendered::{Object, Rendered, at, region},
    services,
    tools::{critical, unknown_to_others, unknown_to_the_api},
    workloads,
};

type Rule = fn(&Rendered) -> Vec<String>;

/// What is broken, the rule that sees it, the place ([`place`]), and what stands there then: null removes it.
type Break = (&'static str, Rule, &'static str, Value);

/// The object of a place, and the JSON pointer into it: `pod…` and `container…` are those of transfer, `settings…` is the first
/// service's ConfigMap, everything else is `Kind name/pointer`.
fn place<'a>(rendered: &'a mut Rendered, place: &str) -> Option<(&'a mut Value, String)> {
    const DEPLOYMENT: &str = "Deployment transfer";
    let (target, rest) = place.split_once('/').unwrap_or((place, ""));
    let (target, pointer) = match target {
        "pod" => (DEPLOYMENT, format!("/spec/template/spec/{rest}")),
        "container" => (DEPLOYMENT, format!("/spec/template/spec/containers/0/{rest}")),
        "settings" => ("", format!("/data/{rest}")),
        _ if rest.is_empty() => (target, String::new()),
        _ => (target, format!("/{rest}")),
    };
    let wanted = |object: &&mut Object| match target.split_once(' ') {
        Some((kind, name)) => object.kind() == kind && object.name() == name,
        None => object.kind() == "ConfigMap" && !at(&object.0, "/data/KONTOR_LISTEN").is_null(),
    };
    let object = rendered.objects.iter_mut().find(wanted)?;
    Some((&mut object.0, pointer))
}

/// Puts a value at a place; says whether the place is there.
fn put(rendered: &mut Rendered, at: &str, value: Value) -> Option<()> {
    let (object, pointer) = place(rendered, at)?;
    let Some((parent, field)) = pointer.rsplit_once('/') else {
        *object = value;
        rendered.objects.retain(|object| !object.0.is_null());
        return Some(());
    };
    let field = field.replace("~1", "/");
    match object.pointer_mut(parent)? {
        Value::Object(fields) if value.is_null() => drop(fields.remove(&field)?),
        Value::Object(fields) => drop(fields.insert(field, value)),
        Value::Array(items) => *items.get_mut(field.parse::<usize>().ok()?)? = value,
        _ => return None,
    }
    Some(())
}

fn broken(at: &str, value: Value) -> Rendered {
    let mut rendered = region().clone();
    assert!(put(&mut rendered, at, value).is_some(), "there is no {at}");
    rendered
}

fn must_be_seen(breaks: impl IntoIterator<Item = Break>) {
    for (what, rule, at, value) in breaks {
        let before = rule(region());
        assert!(before.is_empty(), "before {what}: {before:?}");
        assert!(!rule(&broken(at, value)).is_empty(), "no rule sees {what}");
    }
}

/// Labels that no pod has.
fn nobody() -> Value {
    json!({"app.kubernetes.io/name": "nobody"})
}

#[test]
fn a_pod_that_is_not_restricted_is_seen() {
    let sysctl = json!([{"name": "kernel.shm_rmid_forced", "value": "1"}]);
    let breaks = [
        ("root", "pod/securityContext/runAsUser", json!(0)),
        ("no user", "pod/securityContext/runAsUser", Value::Null),
        ("perhaps root", "pod/securityContext/runAsNonRoot", json!(false)),
        ("no seccomp", "pod/securityContext/seccompProfile", Value::Null),
        ("a sysctl", "pod/securityContext/sysctls", sysctl),
        ("host network", "pod/hostNetwork", json!(true)),
        ("a token", "pod/automountServiceAccountToken", Value::Null),
        (
            "hostPath",
            "pod/volumes/0",
            json!({"name": "secrets", "hostPath": {"path": "/"}}),
        ),
        (
            "an endless emptyDir",
            "pod/volumes/0",
            json!({"name": "secrets", "emptyDir": {}}),
        ),
        (
            "an init container",
            "pod/initContainers",
            json!([{"name": "x", "image": "localhost/kontor/x:1"}]),
        ),
        ("privileged", "container/securityContext/privileged", json!(true)),
        (
            "escalation",
            "container/securityContext/allowPrivilegeEscalation",
            Value::Null,
        ),
        (
            "a writable root",
            "container/securityContext/readOnlyRootFilesystem",
            json!(false),
        ),
        (
            "capabilities",
            "container/securityContext/capabilities",
            Value::Null,
        ),
        (
            "a capability",
            "container/securityContext/capabilities/add",
            json!(["NET_BIND_SERVICE"]),
        ),
        ("a port of the node", "container/ports/0/hostPort", json!(7000)),
    ];
    must_be_seen(breaks.map(|(what, at, value)| (what, pods::restricted as Rule, at, value)));
    let label = "Namespace kontor/metadata/labels/pod-security.kubernetes.io~1enforce";
    let strict = pods::one_strict_namespace as Rule;
    must_be_seen([
        ("a lax namespace", strict, label, json!("baseline")),
        (
            "an object elsewhere",
            strict,
            "Service auth/metadata/namespace",
            json!("default"),
        ),
    ]);
}

#[test]
fn a_careless_container_is_seen() {
    let (needs, images) = (pods::resources as Rule, pods::pinned_images as Rule);
    let (probes, ends) = (workloads::probes as Rule, workloads::time_to_end as Rule);
    must_be_seen([
        (
            "no request",
            needs,
            "container/resources/requests/memory",
            Value::Null,
        ),
        (
            "no limit",
            needs,
            "container/resources/limits/ephemeral-storage",
            Value::Null,
        ),
        (
            "latest",
            images,
            "container/image",
            json!("localhost/kontor/transfer:latest"),
        ),
        (
            "an image that anybody may have",
            images,
            "container/image",
            json!("kontor/transfer:0.1.0"),
        ),
        (
            "no tag",
            images,
            "container/image",
            json!("registry.example:5000/transfer"),
        ),
        (
            "always pulled",
            images,
            "container/imagePullPolicy",
            json!("Always"),
        ),
        ("no startup probe", probes, "container/startupProbe", Value::Null),
        (
            "the same probe",
            probes,
            "container/readinessProbe/grpc/service",
            json!("live"),
        ),
        (
            "a probe of nothing",
            probes,
            "container/livenessProbe/grpc/port",
            json!(1),
        ),
        (
            "a short end",
            ends,
            "pod/terminationGracePeriodSeconds",
            json!(20),
        ),
        ("no pause", ends, "container/lifecycle", Value::Null),
    ]);
}

#[test]
fn an_open_secret_is_seen() {
    let open = pods::no_secret_in_the_environment as Rule;
    let secret = json!({"name": "K", "valueFrom": {"secretKeyRef": {"name": "ledger", "key": "key"}}});
    let password = json!({"name": "K", "value": "redis://:secret@redis:6379"});
    let mode = "pod/volumes/0/secret/defaultMode";
    must_be_seen([
        ("a secret variable", open, "container/env/0", secret),
        (
            "a whole secret",
            open,
            "container/envFrom/0",
            json!({"secretRef": {"name": "ledger"}}),
        ),
        ("a password in a variable", open, "container/env/0", password),
        (
            "a password in a ConfigMap",
            open,
            "settings/KONTOR_OTLP_ENDPOINT",
            json!("http://a:b@c:4317"),
        ),
        ("secrets for all", references::closed_secrets, mode, json!(0o444)),
    ]);
}

#[test]
fn a_workload_that_stands_alone_is_seen() {
    let spread = "pod/topologySpreadConstraints/0/labelSelector";
    let (guarded, placed) = (workloads::guarded as Rule, workloads::placed as Rule);
    let (scaled, selectors) = (
        workloads::no_replicas_beside_an_autoscaler as Rule,
        workloads::selectors as Rule,
    );
    must_be_seen([
        ("no policy", guarded, "NetworkPolicy transfer", Value::Null),
        (
            "one direction",
            guarded,
            "NetworkPolicy collector/spec/policyTypes",
            json!(["Egress"]),
        ),
        ("no budget", guarded, "PodDisruptionBudget transfer", Value::Null),
        (
            "a budget that blocks",
            guarded,
            "PodDisruptionBudget transfer/spec/maxUnavailable",
            json!(0),
        ),
        (
            "no autoscaler",
            guarded,
            "HorizontalPodAutoscaler transfer",
            Value::Null,
        ),
        ("replicas", scaled, "Deployment transfer/spec/replicas", json!(3)),
        (
            "an autoscaler of nothing",
            scaled,
            "Deployment transfer",
            Value::Null,
        ),
        (
            "one pod",
            workloads::more_than_one,
            "HorizontalPodAutoscaler transfer/spec/minReplicas",
            json!(1),
        ),
        ("no priority", placed, "pod/priorityClassName", Value::Null),
        ("no spread", placed, "pod/topologySpreadConstraints", Value::Null),
        ("a wrong spread", placed, spread, json!({"matchLabels": nobody()})),
        (
            "a rollout with a gap",
            placed,
            "Deployment transfer/spec/strategy",
            Value::Null,
        ),
        (
            "other pods",
            selectors,
            "Deployment transfer/spec/selector/matchLabels",
            nobody(),
        ),
        (
            "a budget of nothing",
            selectors,
            "PodDisruptionBudget transfer/spec/selector/matchLabels",
            nobody(),
        ),
        (
            "a policy of nothing",
            selectors,
            "NetworkPolicy transfer/spec/podSelector/matchLabels",
            nobody(),
        ),
    ]);
}

#[test]
fn a_wrong_way_is_seen() {
    let (ports, wide) = (network::ports_of_policies as Rule, network::no_wide_rules as Rule);
    let (calls, routes) = (network::calls as Rule, network::routes as Rule);
    let redirect = "HTTPRoute gateway/spec/parentRefs/0/sectionName";
    let from = "NetworkPolicy chat/spec/ingress/0/from/0/podSelector/matchLabels";
    let back = "GRPCRoute gateway/spec/rules/0/backendRefs/0/port";
    must_be_seen([
        (
            "an unknown port",
            ports,
            "NetworkPolicy transfer/spec/ingress/0/ports/0/port",
            json!("grcp"),
        ),
        (
            "an unknown number",
            ports,
            "NetworkPolicy gateway/spec/egress/0/ports/0/port",
            json!(7002),
        ),
        ("an unknown peer", ports, from, nobody()),
        (
            "open to all",
            wide,
            "NetworkPolicy chat/spec/ingress/0/from",
            Value::Null,
        ),
        (
            "free to go",
            wide,
            "NetworkPolicy chat/spec/egress/0/to",
            Value::Null,
        ),
        (
            "all ports",
            wide,
            "NetworkPolicy chat/spec/ingress/0/ports",
            Value::Null,
        ),
        (
            "a named port of others",
            wide,
            "NetworkPolicy chat/spec/egress/0/ports/0/port",
            json!("grpc"),
        ),
        (
            "a caller too many",
            calls,
            "NetworkPolicy account/spec/egress/0/to",
            json!([{"podSelector": {}}]),
        ),
        (
            "a service cut off",
            calls,
            "NetworkPolicy chat/spec/ingress",
            json!([]),
        ),
        (
            "a Service of nothing",
            routes,
            "Service auth/spec/ports/0/targetPort",
            json!("http"),
        ),
        ("a route to nothing", routes, back, json!(7001)),
        ("a route on nothing", routes, redirect, json!("tls")),
    ]);
}

#[test]
fn a_name_of_nothing_is_seen() {
    let named = references::references as Rule;
    let map = "container/envFrom/0/configMapRef/name";
    must_be_seen([
        ("no ConfigMap", named, map, json!("transfer")),
        ("no secret", named, "ExternalSecret ledger", Value::Null),
        ("no certificate", named, "Certificate transfer-tls", Value::Null),
        ("no account", named, "ServiceAccount transfer", Value::Null),
        (
            "no volume",
            named,
            "container/volumeMounts/0/name",
            json!("nothing"),
        ),
    ]);
}

#[test]
fn a_wrong_setting_is_seen() {
    let (settings, versions) = (services::settings as Rule, services::versions as Rule);
    let file = "/etc/kontor/secrets/caller/secrets";
    let label = "Deployment transfer/spec/template/metadata/labels/app.kubernetes.io~1version";
    must_be_seen([
        (
            "one too few",
            settings,
            "settings/KONTOR_DEADLINE_MS",
            Value::Null,
        ),
        ("one too many", settings, "settings/KONTOR_DEADLINE", json!("1")),
        (
            "no secret",
            settings,
            "container/env/1/name",
            json!("KONTOR_CALLER_FILE"),
        ),
        (
            "a file that is not there",
            settings,
            "container/env/1/value",
            json!(file),
        ),
        (
            "a value that is refused",
            services::accepted,
            "settings/KONTOR_DEADLINE_MS",
            json!("soon"),
        ),
        (
            "threads of the node",
            services::threads,
            "container/env/0/name",
            json!("THREADS"),
        ),
        (
            "another version",
            versions,
            "container/image",
            json!("localhost/kontor/transfer:0.0.9"),
        ),
        ("a label of another version", versions, label, json!("0.0.9")),
        (
            "no hash",
            services::hashed,
            "container/envFrom/0/configMapRef/name",
            json!("transfer"),
        ),
    ]);
}

#[test]
fn the_tools_see_what_they_are_there_for() {
    for (at, value) in [
        ("pod/containerss", json!([])),
        ("container/livenessProbe/periodSeconds", json!("10")),
        ("NetworkPolicy chat/spec/policyType", json!([])),
        ("Certificate auth-tls/spec/secretNames", json!("auth-tls")),
        ("HTTPRoute gateway/spec/rules/0/backendRefs/0/port", json!("80")),
        ("ServiceMonitor collector/spec/endpoint", json!([])),
        ("ExternalSecret ledger/spec/target", json!({"nme": "ledger"})),
    ] {
        let rendered = broken(at, value);
        let objects: Vec<&Object> = rendered.objects.iter().collect();
        let seen_by_kubeconform = !unknown_to_the_api(&objects).unwrap().is_empty();
        let seen = seen_by_kubeconform || !unknown_to_others(&objects).unwrap().is_empty();
        assert!(seen, "nothing sees {at}");
    }
    let careless = broken("container/resources", Value::Null);
    assert!(
        !critical(&careless).unwrap().is_empty(),
        "kube-score does not see missing limits"
    );
}
