//! A program with a wrong configuration says everything that is wrong with it at once, shows no secret, and ends with 1.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tests::world::program;
use tls::testing::Authority;

const SECRET: &str = "too-short-a-secret";
const PROGRAMS: [&str; 5] = ["gateway", "auth", "account", "transfer", "chat"];

const KAFKA: &[&str] = &["account", "transfer", "chat"];

/// What is wrong, and which programs read it.
const WRONG: [(&str, &str, &[&str]); 14] = [
    ("KONTOR_LISTEN", "nowhere", &PROGRAMS),
    ("KONTOR_DEADLINE_MS", "-1", &PROGRAMS),
    ("KONTOR_MAX_IN_FLIGHT", "many", &PROGRAMS),
    ("KONTOR_TRACE_SAMPLE_PERCENT", "101", &PROGRAMS),
    ("KONTOR_LOG_FORMAT", "verse", &PROGRAMS),
    ("KONTOR_CALLER_SECRET", SECRET, &PROGRAMS),
    (
        "KONTOR_DATABASE_CONNECTIONS",
        "0",
        &["auth", "account", "transfer", "chat"],
    ),
    ("KONTOR_REDIS_CA_FILE", "/nowhere/ca.crt", &["gateway", "auth"]),
    ("KONTOR_KAFKA_TLS", "perhaps", KAFKA),
    ("KONTOR_KAFKA_SASL_MECHANISM", "GSSAPI", KAFKA),
    ("KONTOR_KAFKA_PASSWORD", SECRET, KAFKA),
    ("KONTOR_SESSION_HOURS", "forever", &["auth"]),
    ("KONTOR_REFLECTION", "perhaps", &["gateway"]),
    ("KONTOR_TRUSTED_PROXIES", "everybody", &["gateway"]),
];

/// What is required and missing.
const MISSING: [(&str, &[&str]); 6] = [
    ("KONTOR_DATABASE_URL", &["auth", "account", "transfer", "chat"]),
    ("KONTOR_REDIS_URL", &["gateway", "auth"]),
    ("KONTOR_KAFKA_BROKERS", &["account", "chat"]),
    ("KONTOR_AUTH_ADDRESSES", &["gateway", "account"]),
    ("KONTOR_TRANSFER_ADDRESSES", &["gateway", "account"]),
    ("KONTOR_CHAT_ADDRESSES", &["gateway"]),
];

struct Outcome {
    code: Option<i32>,
    printed: String,
    errors: String,
}

fn run(name: &str, argument: Option<&str>, settings: &BTreeMap<&str, &str>) -> Result<Outcome> {
    let output = Command::new(program(name)?)
        .args(argument)
        .env_clear()
        .envs(settings)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name} does not run"))?;
    Ok(Outcome {
        code: output.status.code(),
        printed: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[test]
fn every_program_names_everything_that_is_wrong() -> Result<()> {
    for name in PROGRAMS {
        let settings = WRONG
            .iter()
            .map(|(setting, value, _)| (*setting, *value))
            .collect();
        let outcome = run(name, None, &settings)?;
        ensure!(
            outcome.code == Some(1),
            "{name} ended with {:?}: {}",
            outcome.code,
            outcome.errors
        );
        let wrong = WRONG
            .iter()
            .filter(|(_, _, readers)| readers.contains(&name))
            .map(|(setting, ..)| *setting);
        let missing = MISSING
            .iter()
            .filter(|(_, readers)| readers.contains(&name))
            .map(|(setting, _)| *setting);
        for setting in wrong.chain(missing) {
            let lines = outcome
                .errors
                .lines()
                .filter(|line| line.contains(setting))
                .count();
            ensure!(
                lines == 1,
                "{name} names {setting} on {lines} lines:\n{}",
                outcome.errors
            );
        }
        let everything = outcome.printed + &outcome.errors;
        ensure!(
            !everything.contains(SECRET),
            "{name} shows a secret:\n{everything}"
        );
    }
    Ok(())
}

#[test]
fn a_printed_configuration_shows_no_secret() -> Result<()> {
    let secret = "0123456789abcdef0123456789abcdef";
    let settings = BTreeMap::from([
        ("KONTOR_CALLER_SECRET", secret),
        (
            "KONTOR_LEDGER_KEY",
            "hidden-word, and long enough to sign with it",
        ),
        (
            "KONTOR_DATABASE_URL",
            "postgres://someone:hidden-word@127.0.0.1/x",
        ),
        ("KONTOR_REDIS_URL", "redis://:hidden-word@127.0.0.1"),
        ("KONTOR_KAFKA_BROKERS", "127.0.0.1:9092"),
        ("KONTOR_KAFKA_USERNAME", "someone"),
        ("KONTOR_KAFKA_PASSWORD", "hidden-word"),
        ("KONTOR_AUTH_ADDRESSES", "127.0.0.1:7001"),
        ("KONTOR_ACCOUNT_ADDRESSES", "127.0.0.1:7002"),
        ("KONTOR_TRANSFER_ADDRESSES", "127.0.0.1:7003"),
        ("KONTOR_CHAT_ADDRESSES", "127.0.0.1:7004"),
    ]);
    for name in PROGRAMS {
        let outcome = run(name, Some("--print-config"), &settings)?;
        ensure!(
            outcome.code == Some(0),
            "{name} ended with {:?}: {}",
            outcome.code,
            outcome.errors
        );
        for setting in [
            "KONTOR_CALLER_SECRET",
            "KONTOR_LISTEN",
            "KONTOR_GRACE_MS",
            "KONTOR_MAX_IN_FLIGHT",
        ] {
            ensure!(
                outcome.printed.contains(setting),
                "{name} does not print {setting}:\n{}",
                outcome.printed
            );
        }
        let everything = outcome.printed + &outcome.errors;
        ensure!(
            !everything.contains(secret) && !everything.contains("hidden-word"),
            "{name}:\n{everything}"
        );
    }
    Ok(())
}

/// Settings of which none is wrong.
fn good(caller_secret: &str) -> BTreeMap<&'static str, String> {
    [
        ("KONTOR_CALLER_SECRET", caller_secret),
        ("KONTOR_LEDGER_KEY", "long enough to sign the journal with it"),
        ("KONTOR_DATABASE_URL", "postgres://nobody@127.0.0.1:1/x"),
        ("KONTOR_REDIS_URL", "redis://127.0.0.1:1"),
        ("KONTOR_KAFKA_BROKERS", "127.0.0.1:1"),
        ("KONTOR_AUTH_ADDRESSES", "127.0.0.1:1"),
        ("KONTOR_ACCOUNT_ADDRESSES", "127.0.0.1:1"),
        ("KONTOR_TRANSFER_ADDRESSES", "127.0.0.1:1"),
        ("KONTOR_CHAT_ADDRESSES", "127.0.0.1:1"),
        ("KONTOR_LISTEN", "127.0.0.1:0"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

#[test]
fn one_mistake_is_one_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new();
    let (one, other) = (authority.issue("auth"), authority.issue("auth"));
    let tls = one.write(folder.path(), &authority.certificate);
    std::fs::write(folder.path().join("tls.key"), &other.key)?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mistakes: [(&str, Vec<(&str, String)>); 5] = [
        (
            "KONTOR_CALLER_SECRET_FILE: cannot read /nowhere/secret",
            vec![
                ("KONTOR_CALLER_SECRET", String::new()),
                ("KONTOR_CALLER_SECRET_FILE", "/nowhere/secret".to_owned()),
            ],
        ),
        (
            "TOKIO_WORKER_THREADS: invalid digit",
            vec![("TOKIO_WORKER_THREADS", "many".to_owned())],
        ),
        (
            "KONTOR_HEALTH_LISTEN: invalid socket address",
            vec![("KONTOR_HEALTH_LISTEN", "7001".to_owned())],
        ),
        (
            "KONTOR_TLS_CA_FILE: is required where KONTOR_TLS_CERT_FILE is set",
            vec![
                ("KONTOR_TLS_CERT_FILE", path("tls.crt")),
                ("KONTOR_TLS_KEY_FILE", path("tls.key")),
            ],
        ),
        (
            "KONTOR_TLS_KEY_FILE: ",
            tls.iter()
                .map(|(name, value)| (name.as_str(), value.clone()))
                .collect(),
        ),
    ];
    for name in PROGRAMS {
        for (told, mistake) in &mistakes {
            let mut settings = good("0123456789abcdef0123456789abcdef");
            settings.extend(mistake.iter().cloned());
            let settings = settings
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let outcome = run(name, None, &settings)?;
            let lines: Vec<&str> = outcome.errors.lines().collect();
            ensure!(
                outcome.code == Some(1) && matches!(lines[..], [line] if line.starts_with(told)),
                "{name} ended with {:?}: {}{}",
                outcome.code,
                outcome.printed,
                outcome.errors
            );
        }
    }
    Ok(())
}

#[test]
fn help_lists_the_settings_without_any_being_set() -> Result<()> {
    for name in PROGRAMS {
        let outcome = run(name, Some("--help"), &BTreeMap::new())?;
        ensure!(
            outcome.code == Some(0),
            "{name} ended with {:?}: {}",
            outcome.code,
            outcome.errors
        );
        ensure!(
            outcome.printed.contains("KONTOR_CALLER_SECRET"),
            "{name}:\n{}",
            outcome.printed
        );
        let outcome = run(name, Some("--no-such-argument"), &BTreeMap::new())?;
        ensure!(
            outcome.code.is_some_and(|code| code != 0),
            "{name} takes any argument"
        );
    }
    Ok(())
}
