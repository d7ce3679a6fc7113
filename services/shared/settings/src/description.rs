use std::fmt::{self, Display};

/// One setting as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: &'static str,
    pub doc: &'static str,
    /// None: required. Empty: may be absent.
    pub default: Option<String>,
    pub value: Option<String>,
    pub secret: bool,
}

/// The settings that a program reads. Its `Display` is the table for `--help`.
#[derive(Clone, Debug)]
pub struct Description {
    entries: Vec<Entry>,
    unknown: Vec<String>,
}

impl Description {
    pub(crate) fn new(entries: Vec<Entry>, unknown: Vec<String>) -> Self {
        Self { entries, unknown }
    }

    /// Variables with our prefix that no setting has: most likely misspelt.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The values in use, one `NAME=value` a line, secrets redacted.
    pub fn values(&self) -> impl Display + '_ {
        Values(self)
    }
}

impl Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .entries
            .iter()
            .map(|entry| entry.name.len())
            .max()
            .unwrap_or(0);
        for entry in &self.entries {
            write!(f, "  {:width$}  {}", entry.name, entry.doc)?;
            match &entry.default {
                default if entry.secret => {
                    let required = if default.is_none() { "required " } else { "" };
                    write!(f, " ({required}secret; or a path in the same name with _FILE)")?;
                }
                None => f.write_str(" (required)")?,
                Some(default) if default.is_empty() => {}
                Some(default) => write!(f, " ({default})")?,
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

struct Values<'a>(&'a Description);

impl Display for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.0.entries {
            let value = entry
                .value
                .as_deref()
                .or(entry.default.as_deref())
                .unwrap_or_default();
            writeln!(f, "{}={value}", entry.name)?;
        }
        Ok(())
    }
}
