//! Rules for Rust source.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use crate::tree::{File, code, file, files, has_extension, must_be_clean, words};

fn rust() -> impl Iterator<Item = &'static File> {
    files().filter(|file| file.is_rust())
}

#[test]
fn main_is_a_page() {
    must_be_clean(
        rust()
            .filter(|file| file.path.ends_with("src/main.rs"))
            .filter_map(|file| {
                let lines = file.lines().count();
                (lines > 30).then(|| {
                    file.at(
                        31,
                        format!("{lines} lines: parse, telemetry, run, exit code; the rest is in lib.rs"),
                    )
                })
            }),
    );
}

#[test]
fn a_module_is_a_file_with_its_name() {
    must_be_clean(
        rust()
            .filter(|file| file.name() == "mod.rs")
            .map(|file| file.at(1, "move it beside its folder, as `<folder>.rs`")),
    );
}

#[test]
fn domain_code_sees_no_transport_no_storage_and_no_clock() {
    const OUTSIDE: [&str; 13] = [
        "tonic",
        "prost",
        "sqlx",
        "redis",
        "rdkafka",
        "tokio",
        "hyper",
        "rpc",
        "postgres",
        "SystemTime",
        "Instant",
        "rand",
        "getrandom",
    ];
    must_be_clean(
        rust()
            .filter(|file| file.path.contains("/domain/") || file.name() == "domain.rs")
            .flat_map(|file| {
                let code = code(&file.text);
                let uses = |word| {
                    words(&code, word)
                        .filter(|&at| is_used(&code, at, word))
                        .collect::<Vec<_>>()
                };
                OUTSIDE
                    .into_iter()
                    .flat_map(|word| uses(word).into_iter().map(move |at| (at, word)))
                    .map(|(at, word)| {
                        file.at_byte(
                            at,
                            format!("`{word}` in domain: `app` passes what the rules need to know"),
                        )
                    })
                    .collect::<Vec<_>>()
            }),
    );
}

/// A path or an import, not a field or a variable that happens to have the name.
fn is_used(code: &str, at: usize, word: &str) -> bool {
    let line = code[..at].rsplit('\n').next().unwrap_or_default();
    code[at + word.len()..].starts_with("::") || line.trim_start().starts_with("use ")
}

#[test]
fn money_is_never_a_float() {
    // seconds of a metric are the one thing there that is a float
    let counts_money = |file: &&File| {
        (file.path.starts_with("services/transfer/") && !file.path.ends_with("/metrics.rs"))
            || file.path.contains("/domain/")
    };
    must_be_clean(rust().filter(counts_money).flat_map(|file| {
        let code = code(&file.text);
        ["f32", "f64"]
            .into_iter()
            .flat_map(|kind| words(&code, kind).map(move |at| (at, kind)).collect::<Vec<_>>())
            .map(|(at, kind)| file.at_byte(at, format!("`{kind}`: amounts are i64 minor units")))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn an_exception_is_expected_and_has_a_reason() {
    must_be_clean(rust().flat_map(|file| {
        let code = code(&file.text);
        let attributes = code
            .match_indices("#[")
            .chain(code.match_indices("#!["))
            .map(|(at, _)| at)
            .collect::<Vec<_>>();
        attributes
            .into_iter()
            .filter_map(|at| exception(&file.text, &code, at).map(|problem| file.at_byte(at, problem)))
            .collect::<Vec<_>>()
    }));
}

fn exception(source: &str, code: &str, at: usize) -> Option<&'static str> {
    let end = at + closing(&code[at..], '[', ']')?;
    let (attribute, raw) = (&code[at..end], &source[at..end]);
    let word = |word| words(attribute, word).any(|found| attribute[found + word.len()..].starts_with('('));
    let reasoned = attribute.contains("reason =");
    if word("allow") && !raw.contains("reason = \"generated") {
        return Some("`allow` outlives its cause: #[expect(lint, reason = \"…\")]");
    }
    if word("expect") && !reasoned {
        return Some("say why: #[expect(lint, reason = \"…\")]");
    }
    (words(attribute, "ignore").next().is_some())
        .then_some("a test that is ignored proves nothing: repair or remove it")
}

/// The length up to the bracket that closes the first one.
fn closing(text: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(at + c.len_utf8());
            }
        }
    }
    None
}

#[test]
fn a_log_line_is_lower_case_without_full_stop() {
    must_be_clean(rust().flat_map(|file| {
        let code = code(&file.text);
        ["trace", "debug", "info", "warn", "error"]
            .into_iter()
            .flat_map(|level| messages(&file.text, &code, level))
            .filter_map(|(at, message)| {
                let first = message.chars().next()?;
                // an acronym or a name may begin a sentence: PostgreSQL, SIGTERM
                let capital = first.is_uppercase()
                    && message
                        .chars()
                        .nth(1)
                        .is_some_and(|c| c.is_lowercase() || c == ' ');
                let known = ["PostgreSQL", "Redis", "Kafka"]
                    .iter()
                    .any(|name| message.starts_with(name));
                (capital && !known || message.ends_with('.'))
                    .then(|| file.at_byte(at, format!("log message \"{message}\": lower case, no full stop")))
            })
            .collect::<Vec<_>>()
    }));
}

/// The message of each log macro: the first argument that is a literal by itself.
fn messages<'a>(source: &'a str, code: &str, level: &str) -> Vec<(usize, &'a str)> {
    let call = format!("{level}!(");
    let starts = code
        .match_indices(&call)
        .map(|(at, _)| at + call.len() - 1)
        .collect::<Vec<_>>();
    starts
        .into_iter()
        .filter_map(|open| {
            let end = open + closing(&code[open..], '(', ')')?;
            let literal = (open + 1..end).find(|&at| {
                let before = code[..at].trim_end();
                code.as_bytes()[at] == b'"' && (before.ends_with('(') || before.ends_with(','))
            })?;
            let close = literal + 1 + code[literal + 1..end].find('"')?;
            Some((literal, &source[literal + 1..close]))
        })
        .collect()
}

#[test]
fn every_source_file_is_part_of_a_crate() {
    let mut reached = BTreeSet::new();
    for manifest in files().filter(|file| file.path.ends_with("Cargo.toml")) {
        let folder = manifest.path.trim_end_matches("Cargo.toml");
        for root in ["src/lib.rs", "src/main.rs", "build.rs"] {
            follow(&format!("{folder}{root}"), true, &mut reached);
        }
        for path in manifest
            .text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("path = \"")?.strip_suffix('"'))
        {
            follow(&format!("{folder}{path}"), true, &mut reached);
        }
        if !manifest.text.contains("autotests = false") {
            let tests = files().filter_map(|file| file.path.strip_prefix(folder)?.strip_prefix("tests/"));
            let is_root =
                |test: &str| !test.contains('/') && has_extension(test, "rs") || test.ends_with("/main.rs");
            for test in tests.filter(|test| is_root(test)).collect::<Vec<_>>() {
                follow(&format!("{folder}tests/{test}"), true, &mut reached);
            }
        }
    }
    must_be_clean(
        rust()
            .filter(|file| !reached.contains(&file.path))
            .map(|file| file.at(1, "no `mod` leads here: the compiler never sees this file")),
    );
}

/// Follows the `mod` lines of a file; the modules of a crate's root are beside it, of others in the folder with its name.
fn follow(path: &str, is_root: bool, reached: &mut BTreeSet<String>) {
    let Some(found) = file(path) else { return };
    if !found.is_rust() || !reached.insert(path.to_owned()) {
        return;
    }
    let path = Path::new(path);
    let beside = path.parent().unwrap_or(Path::new("")).to_owned();
    let folder = if is_root {
        beside.clone()
    } else {
        path.with_extension("")
    };
    let code = code(&found.text);
    let lines = code.lines().zip(found.text.lines());
    let mut moved: Option<PathBuf> = None;
    for (line, raw) in lines {
        if line.trim().starts_with("#[path") {
            moved = raw.split('"').nth(1).map(|to| plain(&beside.join(to)));
        } else if let Some(name) = module_name(line) {
            let file = moved.take().unwrap_or_else(|| folder.join(format!("{name}.rs")));
            follow(&file.to_string_lossy(), false, reached);
        }
    }
}

/// The name in `mod name;`.
fn module_name(line: &str) -> Option<&str> {
    let declaration = line.trim().strip_suffix(';')?;
    let (before, name) = declaration.rsplit_once("mod ")?;
    (before.is_empty() || before.starts_with("pub")).then_some(name)
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
        plain
    })
}

#[test]
fn the_helpers_of_this_file_see_what_they_should() {
    let log = "warn!(attempt, delay.ms = 5, \"Gone away.\"); info!(target: \"x\", \"fine\");";
    assert_eq!(messages(log, &code(log), "warn")[0].1, "Gone away.");
    assert_eq!(messages(log, &code(log), "info")[0].1, "fine");
    let forbidden = "#[allow(dead_code)]";
    assert!(exception(forbidden, &code(forbidden), 0).is_some());
    let bare = "#[expect(clippy::panic)]";
    assert!(exception(bare, &code(bare), 0).is_some());
    let reasoned = "#[expect(clippy::panic, reason = \"a [bracket]\")]";
    assert!(exception(reasoned, &code(reasoned), 0).is_none());
    assert_eq!(module_name("    pub(crate) mod store;"), Some("store"));
    assert_eq!(module_name("// mod store;").filter(|_| false), None);
}
