//! Rules for SQL migrations.

use crate::tree::{File, files, has_extension, must_be_clean};

fn migrations() -> impl Iterator<Item = &'static File> {
    files().filter(|file| file.path.contains("/migrations/") && has_extension(&file.path, "sql"))
}

#[test]
fn a_migration_is_named_by_time_and_purpose() {
    must_be_clean(migrations().filter_map(|file| {
        let (time, purpose) = file.name().split_once('_')?;
        let timed = time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit());
        (!timed || purpose.len() < 8).then(|| file.at(1, "name it YYYYMMDDhhmmss_what_it_does.sql"))
    }));
}

#[test]
fn a_migration_opens_with_why() {
    must_be_clean(migrations().filter_map(|file| {
        let mut lines = file
            .text
            .lines()
            .filter(|line| !line.starts_with("-- no-transaction"));
        let why = lines
            .next()
            .is_some_and(|line| line.starts_with("-- ") && line.len() > 20);
        (!why).then(|| {
            file.at(
                1,
                "the first line is a comment that says why the migration is there",
            )
        })
    }));
}

#[test]
fn every_constraint_has_a_name() {
    must_be_clean(migrations().flat_map(|file| {
        unnamed(&file.text).into_iter().map(move |(byte, kind)| {
            file.at_byte(
                byte,
                format!("an unnamed {kind}: write `CONSTRAINT table_what {kind} …`, the code maps the name"),
            )
        })
    }));
}

#[test]
fn a_concurrent_index_stands_alone() {
    must_be_clean(migrations().filter_map(|file| {
        let tokens = tokens(&file.text);
        let concurrent = tokens.iter().any(|(_, token)| token == "CONCURRENTLY");
        let statements = tokens.iter().filter(|(_, token)| token == ";").count();
        let alone = statements == 1 && file.text.starts_with("-- no-transaction");
        (concurrent && !alone).then(|| {
            file.at(
                1,
                "CONCURRENTLY needs a file of its own that opens with `-- no-transaction`",
            )
        })
    }));
}

/// Migrations up to this one are the first release's: they could take away what nobody had used yet.
const FIRST_RELEASE: &str = "20261127235959";

#[test]
fn a_migration_that_takes_away_says_since_when_nobody_needs_it() {
    must_be_clean(
        migrations()
            .filter(|file| file.name() > FIRST_RELEASE && !file.text.contains("-- contract: "))
            .flat_map(|file| {
                taken_away(&file.text).into_iter().map(move |(byte, what)| {
                    file.at_byte(
                        byte,
                        format!("{what} breaks the version before: first `-- contract: unused since …` (services/shared/postgres)"),
                    )
                })
            }),
    );
}

/// What an older version may still need, and where it is taken away.
fn taken_away(sql: &str) -> Vec<(usize, String)> {
    const TAKING: [[&str; 2]; 5] = [
        ["DROP", "TABLE"],
        ["DROP", "COLUMN"],
        ["RENAME", "TO"],
        ["RENAME", "COLUMN"],
        ["SET", "NOT"],
    ];
    let tokens = tokens(sql);
    let pairs = tokens.iter().zip(tokens.iter().skip(1));
    pairs
        .filter(|((_, first), (_, second))| TAKING.contains(&[first.as_str(), second.as_str()]))
        .map(|((byte, first), (_, second))| (*byte, format!("`{first} {second}`")))
        .collect()
}

#[test]
fn what_is_taken_away_is_found() {
    let taken = |sql| taken_away(sql).len();
    assert_eq!(taken("ALTER TABLE a DROP COLUMN b, RENAME COLUMN c TO d;"), 2);
    assert_eq!(
        taken("ALTER TABLE a ALTER COLUMN b SET NOT NULL; DROP TABLE c;"),
        2
    );
    assert_eq!(
        taken("ALTER TABLE a ADD COLUMN b text, DROP CONSTRAINT c; DROP INDEX d;"),
        0
    );
}

/// The constraints without a name, and where they stand.
fn unnamed(sql: &str) -> Vec<(usize, &'static str)> {
    const KINDS: [&str; 6] = ["PRIMARY", "UNIQUE", "CHECK", "REFERENCES", "FOREIGN", "EXCLUDE"];
    let tokens = tokens(sql);
    let mut found = Vec::new();
    let mut in_foreign_key = false;
    for (index, (byte, token)) in tokens.iter().enumerate() {
        if token == ";"
            || token == ","
                && tokens
                    .get(index + 1)
                    .is_some_and(|(_, next)| next == "CONSTRAINT")
        {
            in_foreign_key = false;
        }
        let Some(kind) = KINDS.iter().find(|kind| *kind == token) else {
            continue;
        };
        let before = |steps: usize| index.checked_sub(steps).map_or("", |at| tokens[at].1.as_str());
        let named = before(2) == "CONSTRAINT";
        let part_of_a_statement =
            *kind == "UNIQUE" && before(1) == "CREATE" || *kind == "REFERENCES" && in_foreign_key;
        in_foreign_key |= *kind == "FOREIGN";
        if !named && !part_of_a_statement {
            found.push((*byte, *kind));
        }
    }
    found
}

/// The words and signs of SQL in upper case, without comments, strings and function bodies.
fn tokens(sql: &str) -> Vec<(usize, String)> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &sql[at..];
        let skipped = if rest.starts_with("--") {
            rest.find('\n')
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|end| end + 2)
        } else if let Some(string) = rest.strip_prefix('\'') {
            string.find('\'').map(|end| end + 2)
        } else if let Some(tag) = dollar_tag(rest) {
            rest[tag.len()..].find(tag).map(|end| end + 2 * tag.len())
        } else {
            Some(0)
        };
        let Some(skipped) = skipped else { break };
        if skipped > 0 {
            at += skipped;
            continue;
        }
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '"' || c == '.';
        let word = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let length = if word == 0 {
            rest.chars().next().map_or(1, char::len_utf8)
        } else {
            word
        };
        if !rest[..length].trim().is_empty() {
            tokens.push((at, rest[..length].to_uppercase()));
        }
        at += length;
    }
    tokens
}

/// `$$` or `$tag$` at the start of the text.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text.strip_prefix('$')?.find('$')? + 2;
    let name = &text[1..end - 1];
    name.chars()
        .all(|c| c.is_alphanumeric() || c == '_')
        .then_some(&text[..end])
}

#[test]
fn unnamed_constraints_are_found() {
    let kinds = |sql| unnamed(sql).into_iter().map(|(_, kind)| kind).collect::<Vec<_>>();
    assert_eq!(
        kinds("CREATE TABLE t (id bigint PRIMARY KEY, a int CHECK (a > 0) UNIQUE);"),
        ["PRIMARY", "CHECK", "UNIQUE"]
    );
    assert_eq!(
        kinds("create table t (u bigint references users (id), foreign key (a) references b);"),
        ["REFERENCES", "FOREIGN"]
    );
    let named = "-- UNIQUE\nCREATE TABLE t (id bigint CONSTRAINT t_pkey PRIMARY KEY,
        CONSTRAINT t_user FOREIGN KEY (u) REFERENCES users (id), CONSTRAINT t_note CHECK (note <> 'CHECK'));
        CREATE UNIQUE INDEX t_u ON t (u);
        CREATE FUNCTION f() RETURNS void AS $$ SELECT 'UNIQUE CHECK' $$ LANGUAGE sql;";
    assert_eq!(kinds(named), Vec::<&str>::new());
}
