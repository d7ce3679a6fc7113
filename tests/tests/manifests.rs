//! The Kubernetes manifests, without a cluster: every overlay and every sensible combination of components is rendered, and held to
//! rules, one `#[test]` for each. `manifests/broken.rs` breaks a manifest for each rule, and the rule must see it.

#[path = "manifests/broken.rs"]
mod broken;
#[path = "manifests/network.rs"]
mod network;
#[path = "manifests/pods.rs"]
mod pods;
#[path = "manifests/references.rs"]
mod references;
#[path = "manifests/rendered.rs"]
mod rendered;
#[path = "manifests/services.rs"]
mod services;
#[path = "manifests/tools.rs"]
mod tools;
#[path = "manifests/workloads.rs"]
mod workloads;
