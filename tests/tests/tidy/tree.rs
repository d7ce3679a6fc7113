//! The files of the repository, and how to look into them.

use std::{fmt::Display, fs, path::Path, process::Command, sync::LazyLock};

/// A text file of the repository.
pub struct File {
    /// Its path from the root of the repository.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl File {
    /// The lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// A problem at a line of this file.
    pub fn at(&self, line: usize, problem: impl Display) -> String {
        format!("{}:{line}: {problem}", self.path)
    }

    /// A problem at a byte of this file.
    pub fn at_byte(&self, byte: usize, problem: impl Display) -> String {
        self.at(self.text[..byte].matches('\n').count() + 1, problem)
    }

    /// A problem for each line that contains one of the words.
    pub fn lines_with(&self, words: &[String], why: &str) -> Vec<String> {
        self.lines()
            .flat_map(|(number, line)| {
                words
                    .iter()
                    .filter(|word| line.contains(word.as_str()))
                    .map(move |word| (number, word))
            })
            .map(|(number, word)| self.at(number, format!("`{word}`: {why}")))
            .collect()
    }

    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    pub fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(read);

/// Every text file that is committed, or would be by `git add`.
pub fn files() -> impl Iterator<Item = &'static File> {
    FILES.iter()
}

/// The file at a path from the root.
pub fn file(path: &str) -> Option<&'static File> {
    files().find(|file| file.path == path)
}

/// The folders directly below a folder that hold a Cargo.toml.
pub fn crates_below(folder: &str) -> Vec<String> {
    files()
        .filter_map(|file| {
            file.path
                .strip_prefix(folder)?
                .strip_prefix('/')?
                .strip_suffix("/Cargo.toml")
        })
        .filter(|name| !name.contains('/'))
        .map(|name| format!("{folder}/{name}"))
        .collect()
}

pub fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

/// Fails with all problems that a rule found.
pub fn must_be_clean(problems: impl IntoIterator<Item = String>) {
    let problems: Vec<_> = problems.into_iter().collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn read() -> Vec<File> {
    // from the crate's folder, where tests start: a compiled program may come from another checkout, and look at that one
    let root = Path::new("..");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let mut paths: Vec<_> = String::from_utf8_lossy(&listed)
        .split('\0')
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    let files: Vec<_> = paths
        .into_iter()
        .filter_map(|path| {
            fs::read_to_string(root.join(&path))
                .ok()
                .map(|text| File { path, text })
        })
        .collect();
    assert!(!files.is_empty(), "git lists no file: the rules would all pass");
    files
}

/// Rust source with the insides of comments and literals blanked, byte for byte at the same place.
pub fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n").unwrap_or(bytes.len()),
            b'/' if bytes[at..].starts_with(b"/*") => {
                find(bytes, at, b"*/").map_or(bytes.len(), |end| end + 2)
            }
            b'"' => string_end(bytes, at),
            b'r' if is_raw_string(bytes, at) => raw_string_end(bytes, at),
            b'\'' if bytes.get(at + 1) == Some(&b'\\') => {
                find(bytes, at + 3, b"'").map_or(bytes.len(), |end| end + 1)
            }
            b'\'' if bytes.get(at + 2) == Some(&b'\'') => at + 3,
            _ => {
                at += 1;
                continue;
            }
        };
        let keep_quotes = bytes[at] == b'"';
        for (index, byte) in out.iter_mut().enumerate().take(end).skip(at) {
            let quote = keep_quotes && (index == at || index + 1 == end);
            if *byte != b'\n' && !quote {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    (from..bytes.len()).find(|&at| bytes[at..].starts_with(what))
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn is_raw_string(bytes: &[u8], at: usize) -> bool {
    let starts_a_word =
        at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') || bytes[at - 1] == b'b';
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    starts_a_word && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn raw_string_end(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    find(bytes, at + 2 + hashes, &close).map_or(bytes.len(), |end| end + close.len())
}

/// The places of a word in code: not as a part of a longer name.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_a_name =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).and_then(|before| code.as_bytes().get(before));
        !part_of_a_name(before) && !part_of_a_name(code.as_bytes().get(at + word.len()))
    })
}

/// The program without its test modules: everything before the first `#[cfg(test)]`, nothing of a `tests.rs`.
pub fn without_tests(file: &File) -> &str {
    if file.name() == "tests.rs" || file.path.contains("/tests/") {
        return "";
    }
    file.text.split("#[cfg(test)]").next().unwrap_or_default()
}

#[test]
fn comments_and_literals_are_not_code() {
    let source = "let a = \"tonic\"; // sqlx\nlet b = r#\"redis \" x\"#; let c = '\"'; /* rand */ f('\\'')";
    let stripped = code(source);
    assert_eq!(stripped.len(), source.len());
    for hidden in ["tonic", "sqlx", "redis", "rand"] {
        assert!(!stripped.contains(hidden), "{stripped}");
    }
    assert!(stripped.contains("let b =") && stripped.contains("let c =") && stripped.contains("f("));
    assert_eq!(words("rand::x random rand", "rand").collect::<Vec<_>>(), [0, 15]);
}
