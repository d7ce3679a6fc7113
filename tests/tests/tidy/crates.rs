//! Rules for crates: manifests, READMEs, settings.

use std::collections::BTreeSet;

use crate::tree::{File, code, crates_below, file, files, has_extension, must_be_clean, without_tests};

/// Those of the workspace; fuzz targets are compiled in workspaces of their own.
fn manifests() -> impl Iterator<Item = &'static File> {
    files().filter(|file| {
        file.name() == "Cargo.toml" && file.path != "Cargo.toml" && !file.path.ends_with("/fuzz/Cargo.toml")
    })
}

/// Services, shared crates, and what else has a manual of its own.
fn documented() -> Vec<String> {
    let mut folders = [crates_below("services"), crates_below("services/shared")].concat();
    folders.extend(["proto", "deploy", "tests", "tests/load"].map(str::to_owned));
    folders
}

/// The program text of a crate, test modules left out.
fn sources(folder: &str) -> impl Iterator<Item = &'static File> {
    let prefix = format!("{folder}/src/");
    files().filter(move |file| file.is_rust() && file.path.starts_with(&prefix))
}

#[test]
fn a_workspace_dependency_says_what_it_is_for() {
    let Some(root) = file("Cargo.toml") else {
        return assert!(file("Cargo.toml").is_some());
    };
    let dependencies = root
        .lines()
        .skip_while(|(_, line)| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['));
    must_be_clean(
        dependencies
            .filter(|(_, line)| line.contains('=') && !line.starts_with('#'))
            .filter(|(_, line)| {
                line.rsplit_once("# ")
                    .is_none_or(|(_, purpose)| purpose.len() < 4)
            })
            .map(|(number, line)| {
                root.at(
                    number,
                    format!(
                        "`{}` needs its purpose as a comment",
                        line.split(' ').next().unwrap_or_default()
                    ),
                )
            }),
    );
}

#[test]
fn every_crate_takes_versions_and_lints_from_the_workspace() {
    must_be_clean(manifests().flat_map(|file| {
        let lints = (!file.text.contains("[lints]\nworkspace = true"))
            .then(|| file.at(1, "add `[lints]` with `workspace = true`"));
        let versions = file
            .lines()
            .skip_while(|(_, line)| !line.contains("dependencies]"))
            .filter(|(_, line)| line.contains(" = \"") || line.contains("version ="))
            .filter(|(_, line)| !line.starts_with("path") && !line.starts_with("name"))
            .map(|(number, _)| {
                file.at(
                    number,
                    "the version belongs into the root Cargo.toml: `….workspace = true`",
                )
            });
        lints.into_iter().chain(versions)
    }));
}

#[test]
fn a_shared_crate_has_two_users_and_one_job() {
    must_be_clean(crates_below("services/shared").into_iter().flat_map(|folder| {
        let name = folder.rsplit('/').next().unwrap_or_default().to_owned();
        let needle = format!("\n{name}.workspace = true");
        let users = manifests()
            .filter(|file| !file.path.starts_with("tests/") && file.text.contains(&needle))
            .count();
        let lines: usize = sources(&folder)
            .map(|file| lines_of_code(without_tests(file)))
            .sum();
        let few = (users < 2)
            .then(|| format!("{folder}/Cargo.toml:1: {users} users: move it into the crate that uses it"));
        let large = (lines > 1500).then(|| {
            format!("{folder}/src/lib.rs:1: {lines} lines: a shared crate has one job and at most 1,500")
        });
        few.into_iter().chain(large)
    }));
}

/// The lines that are neither empty nor a comment alone.
fn lines_of_code(program: &str) -> usize {
    code(program)
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count()
}

#[test]
fn nothing_is_called_common() {
    let attics = [
        "common",
        "utils",
        "util",
        "helpers",
        "helper",
        "misc",
        "shared_utils",
    ];
    must_be_clean(
        files()
            .filter(|file| !file.path.starts_with("proto/google/"))
            .filter_map(|file| {
                let named = file
                    .path
                    .split('/')
                    .any(|part| attics.contains(&part.trim_end_matches(".rs")));
                named.then(|| file.at(1, "name it for its one job"))
            }),
    );
}

#[test]
fn shared_crates_document_what_they_export() {
    let mut folders = crates_below("services/shared");
    folders.push("proto".to_owned());
    must_be_clean(folders.into_iter().filter_map(|folder| {
        let root = format!("{folder}/src/lib.rs");
        let warns = file(&root).is_some_and(|file| file.text.contains("#![warn(missing_docs)]"));
        (!warns).then(|| format!("{root}:1: add `#![warn(missing_docs)]`"))
    }));
}

#[test]
fn every_part_has_a_readme_and_the_way_to_it() {
    let top = file("README.md")
        .map(|file| file.text.as_str())
        .unwrap_or_default();
    must_be_clean(documented().into_iter().flat_map(|folder| {
        let readme = format!("{folder}/README.md");
        let missing = file(&readme).is_none().then(|| format!("{readme}:1: not there"));
        let is_service = folder.starts_with("services/") && !folder.starts_with("services/shared/");
        let unlinked = (is_service && !top.contains(&format!("({folder}")))
            .then(|| format!("README.md:1: no link to {folder}"));
        missing.into_iter().chain(unlinked)
    }));
}

#[test]
fn links_between_pages_lead_somewhere() {
    must_be_clean(
        files()
            .filter(|file| has_extension(&file.path, "md"))
            .flat_map(|page| {
                let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                page.lines()
                    .flat_map(move |(number, line)| line.split("](").skip(1).map(move |rest| (number, rest)))
                    .filter_map(|(number, rest)| Some((number, rest.split(')').next()?.split('#').next()?)))
                    .filter(|(_, target)| {
                        !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")
                    })
                    .filter(|(_, target)| !exists(folder, target))
                    .map(|(number, target)| {
                        page.at(
                            number,
                            format!("the link leads to `{target}`, which is not there"),
                        )
                    })
                    .collect::<Vec<_>>()
            }),
    );
}

/// Whether a file or folder is in the tree, seen from a folder of it.
fn exists(folder: &str, target: &str) -> bool {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    let path = parts.join("/");
    path.is_empty() || files().any(|file| file.path == path || file.path.starts_with(&format!("{path}/")))
}

#[test]
fn settings_are_documented_where_they_are_read() {
    let folders = || [crates_below("services"), crates_below("services/shared")].concat();
    let everywhere: BTreeSet<String> = folders().iter().flat_map(|folder| declared(folder)).collect();
    must_be_clean(folders().into_iter().flat_map(|folder| {
        let path = format!("{folder}/README.md");
        let readme = file(&path).map(|file| file.text.as_str()).unwrap_or_default();
        let documented = settings_in(readme, &everywhere);
        let forgotten = declared(&folder)
            .difference(&documented)
            .map(|name| format!("{path}:1: {name} is read by this crate, but not documented"))
            .collect::<Vec<_>>();
        let invented = documented
            .difference(&everywhere)
            .map(|name| format!("{path}:1: {name} is documented, but nothing reads it"))
            .collect::<Vec<_>>();
        [forgotten, invented].concat()
    }));
}

/// The settings whose names stand as whole literals in the program of a crate.
fn declared(folder: &str) -> BTreeSet<String> {
    sources(folder)
        .map(without_tests)
        .flat_map(|program| {
            let code = code(program);
            let quotes: Vec<_> = code.match_indices('"').map(|(at, _)| at).collect();
            quotes
                .windows(2)
                .filter_map(|pair| setting(&program[pair[0] + 1..pair[1]]))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn setting(literal: &str) -> Option<String> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let complete = literal.len() > "KONTOR_".len() && !literal.ends_with('_');
    (literal.starts_with("KONTOR_") && complete && literal.chars().all(is_name)).then(|| literal.to_owned())
}

/// The settings that a page names. `NAME_FILE` is the path of a file with the secret NAME, unless it is itself one of the
/// settings.
fn settings_in(text: &str, all: &BTreeSet<String>) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter_map(setting)
        .map(|name| match name.strip_suffix("_FILE") {
            Some(secret) if !all.contains(&name) => secret.to_owned(),
            _ => name,
        })
        .collect()
}

#[test]
fn settings_are_found_in_code_and_on_pages() {
    assert_eq!(setting("KONTOR_LISTEN").as_deref(), Some("KONTOR_LISTEN"));
    assert_eq!(setting("KONTOR_{}_ADDRESSES"), None);
    let all = BTreeSet::from(["KONTOR_TLS_KEY_FILE".to_owned()]);
    let page = settings_in(
        "| `KONTOR_LISTEN` | and KONTOR_CALLER_SECRET_FILE, KONTOR_TLS_KEY_FILE, KONTOR_… |",
        &all,
    );
    assert_eq!(
        page.into_iter().collect::<Vec<_>>(),
        ["KONTOR_CALLER_SECRET", "KONTOR_LISTEN", "KONTOR_TLS_KEY_FILE"]
    );
}
