//! The certificates of a world whose services talk by TLS.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use local::Service;
use settings::Reader;
use tempfile::TempDir;
use tls::{Mutual, testing::Authority};

/// An authority, and a folder of files for each service, as cert-manager writes them.
pub struct Certificates {
    folder: TempDir,
    authority: Authority,
}

impl Certificates {
    /// Certificates for all services.
    pub fn new() -> Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
            authority: Authority::new(),
        })
    }

    /// The folder of one service.
    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues a certificate for each service, the first or the next, and returns the settings that name the files.
    pub fn issue(&self) -> Vec<(Option<Service>, String, String)> {
        let issue = |service: Service| {
            let issued = self.authority.issue(service.name());
            let settings = issued.write(&self.folder(service.name()), &self.authority.certificate);
            settings
                .into_iter()
                .map(move |(name, value)| (Some(service), name, value))
        };
        Service::ALL.into_iter().flat_map(issue).collect()
    }

    /// The identity of the test itself, as that of the gateway.
    pub fn own(&self) -> Result<Mutual> {
        let issued = self.authority.issue("gateway");
        let settings = issued.write(&self.folder("test"), &self.authority.certificate);
        let mut reader = Reader::from_map(settings);
        let own = Mutual::read(&mut reader);
        reader.finish()?;
        own.ok().flatten().context("the test has no certificate")
    }
}
