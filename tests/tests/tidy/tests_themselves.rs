//! Rules for the tests.

use crate::tree::{File, code, file, files, must_be_clean, words};

/// The promises: what they wait for is a condition, never a time.
fn promises() -> impl Iterator<Item = &'static File> {
    files().filter(|file| {
        file.is_rust() && file.path.starts_with("tests/tests/") && !file.path.contains("/tidy")
    })
}

#[test]
fn no_promise_sleeps() {
    must_be_clean(promises().flat_map(|file| {
        words(&code(&file.text), "sleep")
            .map(|at| file.at_byte(at, "wait for a condition: `tests::eventually`"))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn every_promise_is_explained() {
    let page = file("tests/README.md")
        .map(|file| file.text.as_str())
        .unwrap_or_default();
    must_be_clean(
        promises()
            .filter(|file| file.name() != "promises.rs")
            .flat_map(|file| {
                let name = file.name().trim_end_matches(".rs");
                // a file in a folder is a part of the promise that the folder is named after
                let is_part = file.path.matches('/').count() > 2;
                let listed = is_part || page.contains(&format!("`{name}`"));
                let opened = file.text.starts_with("//! ");
                let unlisted = (!listed).then(|| file.at(1, "tests/README.md does not say what it proves"));
                let unopened = (!opened).then(|| {
                    file.at(
                        1,
                        "open with `//!`: which promise, and how it is broken on purpose",
                    )
                });
                unlisted.into_iter().chain(unopened)
            }),
    );
}

#[test]
fn nothing_is_mocked() {
    let stand_ins =
        ["mockall", "wiremock", "mockito", "httpmock", "testcontainers"].map(|name| format!("{name} ="));
    must_be_clean(
        files()
            .filter(|file| file.name() == "Cargo.toml")
            .flat_map(|file| file.lines_with(&stand_ins, "tests use the real servers")),
    );
}
