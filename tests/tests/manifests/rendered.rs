//! The manifests as a cluster would get them.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The overlays, by their folders.
pub const OVERLAYS: [&str; 4] = ["kind", "us", "eu", "asia"];

/// As many renderings at one time: each is a process of its own.
const AT_ONCE: usize = 4;

/// Everything that one overlay, or one combination of components, makes.
#[derive(Clone)]
pub struct Rendered {
    /// The overlay, or `base` with the components.
    pub name: String,
    /// The objects, in the order of the output.
    pub objects: Vec<Object>,
}

/// An object of the Kubernetes API.
#[derive(Clone, PartialEq)]
pub struct Object(pub Value);

impl Object {
    /// Its kind.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// The text at a JSON pointer, empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        text(&self.0, pointer)
    }

    /// The value at a JSON pointer, null where there is none.
    pub fn at(&self, pointer: &str) -> &Value {
        at(&self.0, pointer)
    }
}

impl Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind(), self.name())
    }
}

/// The value at a JSON pointer, null where there is none.
pub fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// The text at a JSON pointer, empty where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_default()
}

/// The list at a JSON pointer, empty where there is none.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer)
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

impl Rendered {
    /// The objects of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| object.kind() == kind)
    }

    /// The object of a kind and name.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Object> {
        self.of_kind(kind).find(|object| object.name() == name)
    }

    /// Whether PostgreSQL, Redis and Kafka are among the objects.
    pub fn has_data(&self) -> bool {
        self.find("StatefulSet", "kafka").is_some()
    }

    /// A problem with an object of this rendering.
    pub fn problem(&self, object: impl Display, what: impl Display) -> String {
        format!("{}: {object}: {what}", self.name)
    }
}

/// What is rendered, or why nothing is.
static ALL: LazyLock<Result<Vec<Rendered>>> = LazyLock::new(render_all);

/// What is rendered: every overlay, and `base` with every sensible combination of components.
pub fn all() -> &'static [Rendered] {
    let problem = ALL.as_ref().err().map(|error| format!("{error:#}"));
    assert!(problem.is_none(), "{}", problem.unwrap_or_default());
    ALL.as_ref().map(Vec::as_slice).unwrap_or_default()
}

/// The overlays alone, which are rendered first.
pub fn overlays() -> &'static [Rendered] {
    &all()[..OVERLAYS.len()]
}

/// The overlay of a region: it has every component but `external-data`.
pub fn region() -> &'static Rendered {
    &overlays()[1]
}

/// Holds everything that is rendered to a rule, which says its problems.
pub fn everywhere(rule: fn(&Rendered) -> Vec<String>) {
    let problems: Vec<_> = all().iter().flat_map(rule).collect();
    // the same problem is in many combinations
    let mut shown: BTreeMap<&str, &str> = BTreeMap::new();
    for problem in &problems {
        let (name, what) = problem.split_once(": ").unwrap_or(("", problem));
        shown.entry(what).or_insert(name);
    }
    let lines: Vec<_> = shown
        .iter()
        .map(|(what, name)| format!("{name}: {what}"))
        .collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// The combinations of components with `base`.
fn combinations() -> Vec<Vec<&'static str>> {
    const DATA: [&[&str]; 3] = [&["data"], &["data", "replicated-data"], &["external-data"]];
    // the listeners of `ingress` show a certificate of `tls`
    const EDGE: [&[&str]; 3] = [&[], &["tls"], &["tls", "ingress"]];
    // `autoscaling` needs the metrics
    const WATCH: [&[&str]; 3] = [&[], &["monitoring"], &["monitoring", "autoscaling"]];
    // these two only add objects, so each must do with all others once, and without
    const MORE: [&[&str]; 2] = [&[], &["default-deny", "external-secrets"]];
    let mut all = vec![Vec::new()];
    for choices in [&DATA[..], &EDGE, &WATCH, &MORE] {
        all = all
            .iter()
            .flat_map(|chosen: &Vec<&str>| choices.iter().map(|more| [chosen, *more].concat()))
            .collect();
    }
    for chosen in &mut all {
        // it says more of the data to those who watch
        if chosen.contains(&"data") && chosen.contains(&"monitoring") {
            chosen.push("data-monitoring");
        }
    }
    all
}

fn render_all() -> Result<Vec<Rendered>> {
    let copy = tempfile::tempdir()?;
    let k8s = copy.path().join("k8s");
    // from the crate's folder, where tests start: a compiled program may come from another checkout
    copy_folder(Path::new("../k8s"), &k8s)?;
    let made = Command::new(k8s.join("overlays/kind/generate-secrets")).output()?;
    ensure!(
        made.status.success(),
        "generate-secrets: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut folders: Vec<_> = OVERLAYS
        .iter()
        .map(|name| ((*name).to_owned(), k8s.join("overlays").join(name)))
        .collect();
    for components in combinations() {
        let name = format!("base + {}", components.join(" + "));
        let folder = k8s.join("combinations").join(components.join("-"));
        write_kustomization(&folder, &["base"], &components)?;
        folders.push((name, folder));
    }
    // what is applied beside a running system
    for beside in ["drill", "restore"] {
        let folder = k8s.join("combinations").join(beside);
        let resources = ["base", &format!("components/data/{beside}")];
        write_kustomization(&folder, &resources, &["data"])?;
        folders.push((format!("base + data, {beside}"), folder));
    }
    render_each(&folders)
}

/// Writes a kustomization of folders and components of ours, two folders below the root.
fn write_kustomization(folder: &Path, resources: &[&str], components: &[&str]) -> Result<()> {
    let lines: Vec<_> = ["namespace: kontor".to_owned(), "resources:".to_owned()]
        .into_iter()
        .chain(resources.iter().map(|name| format!("  - ../../{name}")))
        .chain(["components:".to_owned()])
        .chain(
            components
                .iter()
                .map(|name| format!("  - ../../components/{name}")),
        )
        .collect();
    fs::create_dir_all(folder)?;
    Ok(fs::write(folder.join("kustomization.yaml"), lines.join("\n"))?)
}

/// Renders folders, some at a time, in their order.
fn render_each(folders: &[(String, PathBuf)]) -> Result<Vec<Rendered>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, folder)) = folders.get(index) else {
                return done;
            };
            done.push((index, render(name, folder)));
        }
    };
    let mut all: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    ensure!(all.len() == folders.len(), "a renderer broke off");
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, rendered)| rendered).collect()
}

fn render(name: &str, folder: &Path) -> Result<Rendered> {
    let output = Command::new("kustomize")
        .arg("build")
        .arg(folder)
        .output()
        .context("kustomize is not there: tests/run --only manifests installs it")?;
    ensure!(
        output.status.success(),
        "{name} does not render: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{name} is not YAML"))?;
    ensure!(!objects.is_empty(), "{name} renders nothing");
    Ok(Rendered {
        name: name.to_owned(),
        objects: objects.into_iter().map(Object).collect(),
    })
}

/// Copies a folder, but no secrets of a cluster that somebody runs.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("no folder {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            fs::copy(entry.path(), target)?;
        } else if !entry.path().ends_with("kind/secrets") {
            copy_folder(&entry.path(), &target)?;
        }
    }
    Ok(())
}
