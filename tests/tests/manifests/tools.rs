//! What tools that everybody knows say: kubeconform (the fields of the API), the compiler of TypeScript (the same for kinds of
//! others, such as certificates) and kube-score (what goes wrong in operation).

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::rendered::{Object, Rendered, all, everywhere};

/// The API that the schemas are of.
const KUBERNETES: &str = "1.34.0";

/// The kinds of others, which have no schemas in a package, but types of TypeScript: the version of their API, and the package.
const OTHERS: [(&str, &str); 4] = [
    ("cert-manager.io/v1", "cert-manager"),
    ("external-secrets.io/v1", "external-secrets"),
    ("gateway.networking.k8s.io/v1", "gateway-api"),
    ("monitoring.coreos.com/v1", "prometheus-operator"),
];

/// What kube-score counts as critical, and we do not: the check, and why.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "container-image-pull-policy",
    "tags never move (a rule of ours), so what a node has is right; kind has no registry to ask",
)];

fn write(folder: &Path, objects: &[&Object]) -> Result<PathBuf> {
    let file = folder.join("objects.yaml");
    // JSON is YAML
    let documents: Vec<_> = objects.iter().map(|object| object.0.to_string()).collect();
    fs::write(&file, documents.join("\n---\n"))?;
    Ok(file)
}

/// The lines of a tool's output that tell a problem.
fn run(command: &mut Command, is_problem: fn(&str) -> bool) -> Result<Vec<String>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("{name} is not there: tests/run --only manifests installs it"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut problems: Vec<_> = said
        .lines()
        .filter(|line| is_problem(line))
        .map(str::to_owned)
        .collect();
    if !output.status.success() && problems.is_empty() {
        problems.push(format!(
            "{name}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(problems)
}

/// A folder that `tests/run` hands on.
fn given(name: &str) -> Result<String> {
    #[expect(clippy::disallowed_methods, reason = "a test has no settings::Reader")]
    let folder = std::env::var(name);
    folder.with_context(|| format!("{name} is set by tests/run --only manifests"))
}

/// Objects that are not what the API takes: unknown fields count.
pub fn unknown_to_the_api(objects: &[&Object]) -> Result<Vec<String>> {
    let schemas = given("KONTOR_SCHEMAS")?;
    let folder = tempfile::tempdir()?;
    let own: Vec<_> = objects
        .iter()
        .copied()
        .filter(|object| other(object).is_none())
        .collect();
    let file = write(folder.path(), &own)?;
    let mut command = Command::new("kubeconform");
    command
        .args(["-strict", "-kubernetes-version", KUBERNETES])
        .arg("-schema-location")
        .arg(format!(
            "{schemas}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
        ))
        .arg(file);
    run(&mut command, |line| !line.is_empty())
}

/// The package with the type of an object that is of no kind of Kubernetes itself.
fn other(object: &Object) -> Option<&'static str> {
    OTHERS
        .into_iter()
        .find(|(version, _)| object.text("/apiVersion") == *version)
        .map(|(_, package)| package)
}

/// Objects of others that are not of their types: unknown fields count.
pub fn unknown_to_others(objects: &[&Object]) -> Result<Vec<String>> {
    let modules = given("KONTOR_NODE_MODULES")?;
    let folder = tempfile::tempdir()?;
    symlink(&modules, folder.path().join("node_modules"))?;
    let lines: Vec<_> = objects
        .iter()
        .filter_map(|object| Some((object, other(object)?)))
        .enumerate()
        .map(|(number, (object, package))| {
            let (kind, version) = (object.kind(), object.text("/apiVersion"));
            let module = format!("@kubernetes-models/{package}/{version}");
            format!("import type {{ I{kind} as T{number} }} from '{module}'; export const o{number}: T{number} = {};", object.0)
        })
        .collect();
    fs::write(folder.path().join("others.mts"), lines.join("\n"))?;
    let mut command = Command::new("node");
    command
        .arg(format!("{modules}/typescript/bin/tsc"))
        .args(["--noEmit", "--strict", "--skipLibCheck", "--pretty", "false"])
        .args(["--module", "nodenext", "--target", "es2022", "others.mts"])
        .current_dir(folder.path());
    run(&mut command, |line| line.contains("error TS"))
}

/// What kube-score calls critical.
pub fn critical(rendered: &Rendered) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), &rendered.objects.iter().collect::<Vec<_>>())?;
    let mut command = Command::new("kube-score");
    command.args(["score", "--output-format", "ci"]);
    for (check, _) in EXCEPTIONS {
        command.args(["--ignore-test", check]);
    }
    let problems = run(command.arg(file), |line| line.starts_with("[CRITICAL]"))?;
    Ok(problems
        .into_iter()
        .map(|line| rendered.problem("kube-score", line))
        .collect())
}

#[test]
fn the_api_knows_every_field() {
    let mut seen = BTreeSet::new();
    let objects: Vec<_> = all()
        .iter()
        .flat_map(|rendered| &rendered.objects)
        .filter(|object| seen.insert(object.0.to_string()))
        .collect();
    let mut problems = unknown_to_the_api(&objects).unwrap();
    problems.extend(unknown_to_others(&objects).unwrap());
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn kube_score_finds_nothing_critical() {
    everywhere(|rendered| critical(rendered).unwrap());
}
