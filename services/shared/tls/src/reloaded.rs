//! What was made of files, made again when they change.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use lifecycle::Lifecycle;
use tokio::time::sleep;

use crate::files::{Contents, Files, Problem};

/// What was made of files last.
pub(crate) struct Reloaded<T> {
    files: Files,
    make: fn(&Files, &Contents) -> Result<T, Problem>,
    made: RwLock<Made<T>>,
}

struct Made<T> {
    value: Arc<T>,
    /// Of the contents that it was made of.
    digest: [u8; 32],
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the files for the first time.
    pub fn new(files: Files, make: fn(&Files, &Contents) -> Result<T, Problem>) -> Result<Self, Problem> {
        let contents = files.contents()?;
        let first = Made {
            value: Arc::new(make(&files, &contents)?),
            digest: contents.digest(),
        };
        Ok(Self {
            files,
            make,
            made: RwLock::new(first),
        })
    }

    /// What was made of the files.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.made.read().unwrap_or_else(PoisonError::into_inner).value)
    }

    /// Looks at the files until the process stops. Files that cannot be used leave what was made before: they may be half
    /// written, and a certificate is renewed long before its end.
    pub async fn watch(self: Arc<Self>, every: Duration, lifecycle: Lifecycle) {
        let mut told = None;
        loop {
            tokio::select! {
                () = sleep(every) => {}
                () = lifecycle.stopping() => return,
            }
            match self.look() {
                Ok(changed) => {
                    if changed {
                        tracing::info!(
                            setting.name = self.files.certificate.setting,
                            "certificates renewed"
                        );
                    }
                    told = None;
                }
                Err(problem) => {
                    if told.as_ref() != Some(&problem) {
                        tracing::warn!(error = %problem, "new certificates cannot be used: the old ones stay");
                    }
                    told = Some(problem);
                }
            }
        }
    }

    /// A few kilobytes that the system has in memory: not worth a thread of their own.
    fn look(&self) -> Result<bool, Problem> {
        let contents = self.files.contents()?;
        let digest = contents.digest();
        if self.made.read().unwrap_or_else(PoisonError::into_inner).digest == digest {
            return Ok(false);
        }
        let value = Arc::new((self.make)(&self.files, &contents)?);
        *self.made.write().unwrap_or_else(PoisonError::into_inner) = Made { value, digest };
        Ok(true)
    }
}
