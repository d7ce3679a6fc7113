use std::{io::Write, net::SocketAddr};

use super::*;

fn reader<const N: usize>(variables: [(&str, &str); N]) -> Reader {
    Reader::from_map(
        variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    )
}

#[test]
fn every_problem_is_told_at_once() {
    let mut r = reader([
        ("KONTOR_A", "x"),
        ("KONTOR_B", "7"),
        ("KONTOR_C", ","),
        ("KONTOR_D", "31000"),
    ]);
    assert_eq!(r.or("KONTOR_A", "a", 1u16), Err(Invalid));
    assert_eq!(r.in_range("KONTOR_B", "b", 1..=5u8, 2), Err(Invalid));
    assert_eq!(r.list("KONTOR_C", "c"), Err(Invalid));
    assert_eq!(r.millis("KONTOR_D", "d", 1..=30_000, 5000), Err(Invalid));
    assert_eq!(r.required::<SocketAddr>("KONTOR_E", "e"), Err(Invalid));
    assert!(r.secret("KONTOR_F", "f").is_err());
    assert_eq!(
        r.finish().unwrap_err().to_string(),
        "KONTOR_A: invalid digit found in string (found \"x\")\n\
         KONTOR_B: 7 is not between 1 and 5\n\
         KONTOR_C: has no members\n\
         KONTOR_D: 31000 is not between 1 and 30000\n\
         KONTOR_E: is required\n\
         KONTOR_F: is required (or KONTOR_F_FILE)"
    );
}

#[test]
fn good_settings_are_typed() {
    let mut r = reader([
        ("KONTOR_A", "7"),
        ("KONTOR_B", ""),
        ("KONTOR_C", " a:1, b:2,"),
        ("KONTOR_D", "20"),
    ]);
    assert_eq!(r.or("KONTOR_A", "a", 1u16), Ok(7));
    assert_eq!(r.or("KONTOR_B", "an empty value is an absent one", 3u16), Ok(3));
    assert_eq!(
        r.list("KONTOR_C", "c"),
        Ok(vec!["a:1".to_owned(), "b:2".to_owned()])
    );
    assert_eq!(
        r.millis("KONTOR_D", "d", 1..=30_000, 5000),
        Ok(Duration::from_millis(20))
    );
    assert_eq!(r.optional::<u8>("KONTOR_E", "e"), Ok(None));
    assert_eq!(r.finish(), Ok(()));
}

#[test]
fn a_secret_comes_from_the_variable_or_from_a_file_but_never_from_both() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "from the file").unwrap();
    let path = file.path().to_str().unwrap();
    let mut r = reader([
        ("KONTOR_A", "plain"),
        ("KONTOR_B_FILE", path),
        ("KONTOR_C", "x"),
        ("KONTOR_C_FILE", path),
        ("KONTOR_D_FILE", "/does/not/exist"),
    ]);
    assert_eq!(r.secret("KONTOR_A", "a").unwrap().expose_secret(), "plain");
    assert_eq!(
        r.secret("KONTOR_B", "b").unwrap().expose_secret(),
        "from the file"
    );
    assert!(r.secret("KONTOR_C", "c").is_err());
    assert!(r.secret("KONTOR_D", "d").is_err());
    let errors = r.finish().unwrap_err();
    assert_eq!(
        errors.lines()[0],
        "KONTOR_C: is given twice, also by KONTOR_C_FILE"
    );
    assert!(errors.lines()[1].starts_with("KONTOR_D_FILE: cannot read /does/not/exist"));
    assert!(r.describe().unknown().is_empty(), "the _FILE form is known");
}

#[test]
fn a_secret_that_may_be_absent_may_lack_its_file_but_not_be_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let mut r = reader([
        ("KONTOR_B_FILE", "/does/not/exist"),
        ("KONTOR_C_FILE", folder.path().to_str().unwrap()),
        ("KONTOR_D", "plain"),
    ]);
    assert!(r.optional_secret("KONTOR_A", "a").unwrap().is_none());
    assert!(r.optional_secret("KONTOR_B", "b").unwrap().is_none());
    assert!(r.optional_secret("KONTOR_C", "c").is_err());
    let plain = r.optional_secret("KONTOR_D", "d").unwrap().unwrap();
    assert_eq!(plain.expose_secret(), "plain");
    let errors = r.finish().unwrap_err();
    assert!(matches!(errors.lines(), [line] if line.starts_with("KONTOR_C_FILE: cannot read")));
    let description = r.describe().to_string();
    assert!(
        description.contains("KONTOR_A  a (secret; or a path"),
        "{description}"
    );
}

#[test]
fn a_secret_is_never_shown() {
    let mut r = reader([("KONTOR_KEY", "hunter2")]);
    let result = r.secret_as("KONTOR_KEY", "a key", |secret| {
        if secret.expose_secret().len() < 32 {
            Err("must have at least 32 bytes".to_owned())
        } else {
            Ok(())
        }
    });
    assert!(result.is_err());
    let problems = r.finish().unwrap_err().to_string();
    assert_eq!(problems, "KONTOR_KEY: must have at least 32 bytes");
    let description = r.describe();
    assert_eq!(description.values().to_string(), "KONTOR_KEY=[redacted]\n");
    assert!(!format!("{problems}{description}{description:?}").contains("hunter2"));
}

#[test]
fn a_variable_that_nobody_reads_is_unknown() {
    let mut r = reader([
        ("KONTOR_LISTEM", "x"),
        ("KONTOR_LISTEN", "127.0.0.1:1"),
        ("KONTOR_LISTEN_FILE", "x"),
    ]);
    r.required::<SocketAddr>("KONTOR_LISTEN", "address").unwrap();
    assert_eq!(r.describe().unknown(), ["KONTOR_LISTEM", "KONTOR_LISTEN_FILE"]);
}
