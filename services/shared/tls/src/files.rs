//! What the files say, and what is wrong with it.

use std::path::PathBuf;

use rustls::{
    Error, InconsistentKeys,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use settings::{Invalid, Reader};
use sha2::{Digest as _, Sha256};

/// A file, and the setting that names it.
pub(crate) struct File {
    pub setting: &'static str,
    pub path: PathBuf,
}

/// A certificate with its chain, its key, and the authorities that others are checked by.
pub(crate) struct Files {
    pub certificate: File,
    pub key: File,
    pub authorities: Option<File>,
}

/// The contents of the files.
pub(crate) struct Contents {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub authorities: Vec<u8>,
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {what}")]
pub(crate) struct Problem {
    pub setting: &'static str,
    pub what: String,
}

impl File {
    /// Its content.
    pub fn read(&self) -> Result<Vec<u8>, Problem> {
        std::fs::read(&self.path)
            .map_err(|error| self.problem(format!("cannot read {}: {error}", self.path.display())))
    }

    /// A problem with this file.
    pub fn problem(&self, what: String) -> Problem {
        Problem {
            setting: self.setting,
            what,
        }
    }

    /// The certificates of its content.
    pub fn certificates(&self, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(content).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(self.problem(format!("{} has no certificate (PEM)", self.path.display()))),
            Err(error) => Err(self.problem(format!("{} is not PEM: {error}", self.path.display()))),
        }
    }
}

impl Files {
    /// Reads the settings that name the files: all of them, or none.
    pub fn read(
        r: &mut Reader,
        certificate: (&'static str, &'static str),
        key: (&'static str, &'static str),
        authorities: Option<(&'static str, &'static str)>,
    ) -> Result<Option<Self>, Invalid> {
        let mut given = Vec::new();
        let mut absent = Vec::new();
        for (setting, doc) in [Some(certificate), Some(key), authorities].into_iter().flatten() {
            match r.optional::<PathBuf>(setting, doc)? {
                Some(path) => given.push(File { setting, path }),
                None => absent.push(setting),
            }
        }
        if let (Some(other), Some(missing)) = (given.first(), absent.first()) {
            return Err(r.fail(
                missing,
                format_args!("is required where {} is set", other.setting),
            ));
        }
        let mut given = given.into_iter();
        let (Some(certificate), Some(key)) = (given.next(), given.next()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            certificate,
            key,
            authorities: given.next(),
        }))
    }

    /// Reads the files.
    pub fn contents(&self) -> Result<Contents, Problem> {
        Ok(Contents {
            certificate: self.certificate.read()?,
            key: self.key.read()?,
            authorities: self.authorities.as_ref().map_or(Ok(Vec::new()), File::read)?,
        })
    }

    /// The certificate with its chain, and its key.
    pub fn identity(
        &self,
        contents: &Contents,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Problem> {
        let chain = self.certificate.certificates(&contents.certificate)?;
        // what the parser says may quote the file
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| {
            self.key
                .problem(format!("{} has no private key (PEM)", self.key.path.display()))
        })?;
        Ok((chain, key))
    }

    /// Says what is wrong with a certificate and a key that rustls does not take.
    pub fn unusable(&self, error: &Error) -> Problem {
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => self.key.problem(format!(
                "{} is not the key of the certificate in {}",
                self.key.path.display(),
                self.certificate.path.display()
            )),
            Error::InvalidCertificate(_) => self.certificate.problem(format!(
                "{} cannot be used: {error}",
                self.certificate.path.display()
            )),
            _ => self
                .key
                .problem(format!("{} cannot be used: {error}", self.key.path.display())),
        }
    }
}

impl Contents {
    /// Tells these contents from others.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for content in [&self.certificate, &self.key, &self.authorities] {
            digest.update(content.len().to_be_bytes());
            digest.update(content);
        }
        digest.finalize().into()
    }
}
