//! One pod, as the cluster describes it.

use serde_json::Value;

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Which part of kontor it is: `app.kubernetes.io/name`.
    pub part: String,
    /// Its namespace.
    pub namespace: String,
    /// Its identity: a pod that comes in its place has another one.
    pub uid: String,
    /// Its address; empty as long as it has none.
    pub ip: String,
    /// The node that it runs on, which kind names its container after.
    pub node: String,
    /// The first container, as containerd knows it; empty as long as there is none.
    pub container: String,
    /// How often its containers were started again.
    pub restarts: i64,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Whether one of its containers does not run, not yet or not again, and none runs that comes before it.
    pub waits: bool,
    /// Neither ended nor about to be deleted.
    pub is_meant_to_run: bool,
    /// All of it.
    pub json: Value,
}

impl Pod {
    /// A pod from an item of `kubectl get pods`.
    pub fn read(json: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (metadata, status) = (&json["metadata"], &json["status"]);
        let containers = status["containerStatuses"].as_array();
        let conditions = status["conditions"].as_array();
        let running = |kind: &str| {
            status[kind]
                .as_array()
                .into_iter()
                .flatten()
                .map(|container| !container["state"]["running"].is_null())
        };
        let ended = ["Succeeded", "Failed"]
            .map(Value::from)
            .contains(&status["phase"]);
        Some(Self {
            name: metadata["name"].as_str()?.to_owned(),
            part: text(&metadata["labels"]["app.kubernetes.io/name"]),
            namespace: text(&metadata["namespace"]),
            uid: text(&metadata["uid"]),
            ip: text(&status["podIP"]),
            node: text(&json["spec"]["nodeName"]),
            container: text(&status["containerStatuses"][0]["containerID"])
                .trim_start_matches("containerd://")
                .to_owned(),
            restarts: containers
                .into_iter()
                .flatten()
                .filter_map(|container| container["restartCount"].as_i64())
                .sum(),
            is_ready: conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
            waits: !running("initContainerStatuses").any(|runs| runs)
                && !running("containerStatuses").all(|runs| runs),
            is_meant_to_run: metadata["deletionTimestamp"].is_null() && !ended,
            json: json.clone(),
        })
    }

    /// Its containers and init containers, as they are specified.
    pub fn containers(&self) -> impl Iterator<Item = &Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .filter_map(|kind| self.json["spec"][kind].as_array())
            .flatten()
    }

    /// Its name and the state that it is in, for people.
    pub fn said(&self) -> String {
        let status = &self.json["status"];
        let waiting = status["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|container| container["state"]["waiting"]["reason"].as_str());
        let state = waiting
            .or_else(|| status["phase"].as_str())
            .unwrap_or("not there yet");
        format!("{} ({state})", self.name)
    }
}
