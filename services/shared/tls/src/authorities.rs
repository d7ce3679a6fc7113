//! The authorities of servers that are not ours: a provider's Kafka, a provider's Redis.

use std::path::PathBuf;

use settings::{Invalid, Reader};

use crate::{files::File, mutual::roots};

/// A file of certificates (PEM).
pub struct Authorities {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub content: Vec<u8>,
}

impl Authorities {
    /// Reads the setting, and the file that it names. `None` when it is not set: the public authorities that the system
    /// knows are trusted then.
    pub fn read(r: &mut Reader, setting: &'static str, doc: &'static str) -> Result<Option<Self>, Invalid> {
        let Some(path) = r.optional::<PathBuf>(setting, doc)? else {
            return Ok(None);
        };
        let file = File { setting, path };
        let usable = file
            .read()
            .and_then(|content| roots(&file, &content).map(|_| content));
        match usable {
            Ok(content) => Ok(Some(Self {
                path: file.path,
                content,
            })),
            Err(problem) => Err(r.fail(problem.setting, problem.what)),
        }
    }

    /// The public authorities. `None` when the system has no file of them.
    pub fn of_system() -> Option<Self> {
        let path = openssl_probe::probe().cert_file?;
        let content = std::fs::read(&path).ok()?;
        Some(Self { path, content })
    }
}
