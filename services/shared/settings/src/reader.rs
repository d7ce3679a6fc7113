use std::{
    collections::BTreeMap,
    error::Error,
    fmt::{self, Display},
    fs,
    io::ErrorKind,
    num::NonZeroUsize,
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};

use crate::description::{Description, Entry};

const PREFIX: &str = "KONTOR_";
/// The one variable of others that is ours to check: the runtime would end in a panic over a wrong one.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";
const REDACTED: &str = "[redacted]";

/// Reads settings and remembers what is wrong with them, and what they were, for [`Reader::describe`].
///
/// An empty variable counts as absent: that is how container platforms leave a setting out.
#[derive(Default)]
pub struct Reader {
    variables: BTreeMap<String, String>,
    entries: Vec<Entry>,
    problems: Vec<String>,
}

/// Marks a setting whose problem the [`Reader`] has recorded already; [`Reader::finish`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// Every problem with the settings, one line each.
#[derive(Debug, PartialEq, Eq)]
pub struct Errors(Vec<String>);

impl Errors {
    /// The problems, in the order in which the settings were read.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Error for Errors {}

impl From<Invalid> for Errors {
    fn from(_: Invalid) -> Self {
        Self(vec!["a setting is invalid".to_owned()])
    }
}

impl Reader {
    /// Reads from the environment of the process, as far as it concerns kontor.
    pub fn from_env() -> Self {
        let mut reader = Self::default();
        for (name, value) in std::env::vars_os() {
            let ours = |name: &&str| name.starts_with(PREFIX) || *name == WORKER_THREADS;
            let Some(name) = name.to_str().filter(ours) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(reader.variables.insert(name.to_owned(), value)),
                Err(_) => reader.problems.push(format!("{name}: is not valid UTF-8")),
            }
        }
        reader
    }

    /// Reads from a map instead of the environment, for tests and for programs that start others.
    pub fn from_map(variables: BTreeMap<String, String>) -> Self {
        Self {
            variables,
            ..Self::default()
        }
    }

    /// A setting with a default.
    pub fn or<T>(&mut self, name: &'static str, doc: &'static str, default: T) -> Result<T, Invalid>
    where
        T: FromStr<Err: Display> + Display,
    {
        let shown = default.to_string();
        match self.text(name, doc, Some(shown)) {
            Some(text) => self.parse(name, &text),
            None => Ok(default),
        }
    }

    /// A setting that must be there.
    pub fn required<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
        doc: &'static str,
    ) -> Result<T, Invalid> {
        match self.text(name, doc, None) {
            Some(text) => self.parse(name, &text),
            None => Err(self.fail(name, "is required")),
        }
    }

    /// A setting that may be absent.
    pub fn optional<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
        doc: &'static str,
    ) -> Result<Option<T>, Invalid> {
        match self.text(name, doc, Some(String::new())) {
            Some(text) => self.parse(name, &text).map(Some),
            None => Ok(None),
        }
    }

    /// A number within bounds, with a default.
    pub fn in_range<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        range: RangeInclusive<T>,
        default: T,
    ) -> Result<T, Invalid>
    where
        T: FromStr<Err: Display> + Display + PartialOrd,
    {
        let value = self.or(name, doc, default)?;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.fail(
            name,
            format_args!("{value} is not between {} and {}", range.start(), range.end()),
        ))
    }

    /// A duration given in whole milliseconds, with a default in milliseconds.
    pub fn millis(
        &mut self,
        name: &'static str,
        doc: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<Duration, Invalid> {
        self.in_range(name, doc, range, default)
            .map(Duration::from_millis)
    }

    /// `TOKIO_WORKER_THREADS`: how many threads run requests. Absent, they are as many as the cores that the container may
    /// use: its quota of CPU time, rounded down, at least one (cgroups v1 and v2).
    pub fn worker_threads(&mut self) -> Result<Option<NonZeroUsize>, Invalid> {
        self.optional(
            WORKER_THREADS,
            "threads that run requests; without it as many as the CPU limit allows",
        )
    }

    /// A list with commas between its members, at least one.
    pub fn list(&mut self, name: &'static str, doc: &'static str) -> Result<Vec<String>, Invalid> {
        let text: String = self.required(name, doc)?;
        let members: Vec<String> = text
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .map(str::to_owned)
            .collect();
        if members.is_empty() {
            Err(self.fail(name, "has no members"))
        } else {
            Ok(members)
        }
    }

    /// A secret that must be there: the variable itself, or the content of the file that `<name>_FILE` names, without
    /// the line end.
    pub fn secret(&mut self, name: &'static str, doc: &'static str) -> Result<SecretString, Invalid> {
        self.secret_as(name, doc, |secret| Ok(secret.clone()))
    }

    /// A secret that `read` checks or turns into something else. What `read` says about it is shown, so it must not
    /// quote the secret.
    pub fn secret_as<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        read: impl FnOnce(&SecretString) -> Result<T, String>,
    ) -> Result<T, Invalid> {
        match self.find_secret(name, doc, None)? {
            Some(secret) => read(&secret).map_err(|problem| self.fail(name, problem)),
            None => Err(self.fail(name, format_args!("is required (or {name}_FILE)"))),
        }
    }

    /// A secret that may be absent. So may be its file: a container platform names it whether or not somebody made the secret.
    pub fn optional_secret(
        &mut self,
        name: &'static str,
        doc: &'static str,
    ) -> Result<Option<SecretString>, Invalid> {
        self.find_secret(name, doc, Some(String::new()))
    }

    fn find_secret(
        &mut self,
        name: &'static str,
        doc: &'static str,
        default: Option<String>,
    ) -> Result<Option<SecretString>, Invalid> {
        let file_name = format!("{name}_FILE");
        let may_be_absent = default.is_some();
        let value = self.variable(name);
        let file = self.variable(&file_name);
        let shown = (value.is_some() || file.is_some()).then(|| REDACTED.to_owned());
        self.remember(Entry {
            name,
            doc,
            default,
            value: shown,
            secret: true,
        });
        let secret = match (value, file) {
            (Some(value), None) => SecretString::from(value),
            (None, Some(path)) => match fs::read_to_string(&path) {
                Ok(text) => SecretString::from(text.trim_end_matches(['\r', '\n'])),
                Err(error) if may_be_absent && error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.fail(&file_name, format_args!("cannot read {path}: {error}"))),
            },
            (Some(_), Some(_)) => {
                return Err(self.fail(name, format_args!("is given twice, also by {file_name}")));
            }
            (None, None) => return Ok(None),
        };
        if secret.expose_secret().is_empty() {
            return Err(self.fail(name, "is empty"));
        }
        Ok(Some(secret))
    }

    /// Records a problem that the caller found itself, for example between two settings.
    pub fn fail(&mut self, name: &str, problem: impl Display) -> Invalid {
        self.problems.push(format!("{name}: {problem}"));
        Invalid
    }

    /// All problems so far. Call it when everything is read, before the values are used.
    pub fn finish(&self) -> Result<(), Errors> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(Errors(self.problems.clone()))
        }
    }

    /// What was read so far, and which variables nobody asked for.
    pub fn describe(&self) -> Description {
        let unknown = self
            .variables
            .keys()
            .filter(|name| !self.is_known(name))
            .cloned()
            .collect();
        Description::new(self.entries.clone(), unknown)
    }

    fn is_known(&self, variable: &str) -> bool {
        self.entries.iter().any(|entry| {
            variable == entry.name || (entry.secret && variable.strip_suffix("_FILE") == Some(entry.name))
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    }

    fn text(&mut self, name: &'static str, doc: &'static str, default: Option<String>) -> Option<String> {
        let text = self.variable(name);
        self.remember(Entry {
            name,
            doc,
            value: text.clone(),
            default,
            secret: false,
        });
        text
    }

    fn remember(&mut self, entry: Entry) {
        // two parts of a service may read the same setting: it is shown once
        if !self.entries.iter().any(|known| known.name == entry.name) {
            self.entries.push(entry);
        }
    }

    fn parse<T: FromStr<Err: Display>>(&mut self, name: &str, text: &str) -> Result<T, Invalid> {
        text.parse()
            .map_err(|problem| self.fail(name, format_args!("{problem} (found {text:?})")))
    }
}

#[cfg(test)]
mod tests;
