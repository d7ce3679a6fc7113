//! The manifests of releases: this one's, and another one to upgrade from.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::{Cluster, SERVICES, kubectl::said, variable};

/// What the overlay renders to.
pub async fn current(cluster: &Cluster) -> Result<String> {
    cluster.kubectl().run(&["kustomize", cluster.overlay()]).await
}

/// The manifests of another release: those in the file that `KONTOR_KIND_PREVIOUS` names, whose images the cluster must have; else this
/// release's under other tags of the images.
pub async fn previous(cluster: &Cluster, now: &str) -> Result<String> {
    if let Ok(file) = variable("KONTOR_KIND_PREVIOUS") {
        return std::fs::read_to_string(Path::new(&file)).with_context(|| file.clone());
    }
    let mut other = now.to_owned();
    for service in SERVICES {
        let image = format!("localhost/kontor/{service}:");
        let version: String = now
            .split_once(&image)
            .with_context(|| format!("the overlay has no image {image}"))?
            .1
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c))
            .collect();
        let (this, that) = (format!("{image}{version}"), format!("{image}{version}-other"));
        if let Some(pod) = cluster.pods_of(service).await?.first() {
            let mut tag = Command::new("docker");
            tag.args([
                "exec",
                &pod.node,
                "ctr",
                "--namespace",
                "k8s.io",
                "images",
                "tag",
                "--force",
            ])
            .args([&this, &that]);
            let said = said(tag, "").await?;
            ensure!(said.code == 0, "ctr images tag {this} {that}: {}", said.err);
        }
        other = other.replace(&this, &that);
    }
    Ok(other)
}
