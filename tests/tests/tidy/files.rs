//! Rules for every file.

use crate::tree::{File, files, has_extension, must_be_clean};

/// Written by others, or by a tool.
fn is_ours(file: &File) -> bool {
    !file.path.starts_with("proto/google/")
        && !file.path.starts_with("tests/seed/")
        && !["lock", "json", "xml"]
            .iter()
            .any(|extension| has_extension(&file.path, extension))
}

#[test]
fn a_file_has_at_most_500_lines() {
    must_be_clean(
        files()
            .filter(|file| is_ours(file))
            .filter(|file| !has_extension(&file.path, "md"))
            .filter_map(|file| {
                let lines = file.lines().count();
                (lines > 500)
                    .then(|| file.at(501, format!("{lines} lines: split the file by what it is about")))
            }),
    );
}

#[test]
fn a_page_of_documentation_has_at_most_120_lines() {
    must_be_clean(
        files()
            .filter(|file| has_extension(&file.path, "md"))
            .filter_map(|file| {
                let lines = file.lines().count();
                (lines > 120).then(|| file.at(121, format!("{lines} lines: say it shorter, or elsewhere")))
            }),
    );
}

#[test]
fn nothing_is_left_for_later() {
    // in two parts, so that this file passes its own rule
    let markers = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["HA", "CK"],
        ["todo", "!("],
        ["unimplemented", "!("],
    ]
    .map(|parts| parts.concat());
    must_be_clean(
        files()
            .filter(|file| is_ours(file))
            .flat_map(|file| file.lines_with(&markers, "do it now, or open an issue and name it")),
    );
}

#[test]
fn no_line_names_a_machine_or_a_registry() {
    let foreign = [
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["/wo", "rk/"],
        ["registry.", "npmjs.org"],
        ["index.", "crates.io"],
        ["static.", "crates.io"],
        ["py", "pi.org"],
        ["python", "hosted.org"],
        ["proxy.", "golang.org"],
        ["repo1.", "maven.org"],
        ["repo.maven.", "apache.org"],
        ["deb.", "debian.org"],
    ]
    .map(|parts| parts.concat());
    must_be_clean(
        files()
            .filter(|file| !file.path.starts_with("proto/google/"))
            .flat_map(|file| file.lines_with(&foreign, "true on one machine or network only")),
    );
}

#[test]
fn lines_end_cleanly() {
    must_be_clean(files().filter(|file| is_ours(file)).flat_map(|file| {
        let unfinished = (!file.text.is_empty() && !file.text.ends_with('\n'))
            .then(|| file.at(file.lines().count(), "the last line needs a line break"));
        let trailing = file
            .lines()
            .filter(|(_, line)| line.ends_with([' ', '\t', '\r']))
            .map(|(number, _)| file.at(number, "white space at the end"));
        unfinished.into_iter().chain(trailing)
    }));
}
