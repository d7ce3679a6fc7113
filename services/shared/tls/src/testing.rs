//! Certificates of a test's own. Only with the feature `testing`, as a development dependency.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// An authority that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate (PEM).
    pub certificate: String,
}

/// A certificate and its key (PEM).
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// An authority that nobody knows yet.
    ///
    /// # Panics
    /// When the system has no random bytes.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        // without a name of its own, one authority would be taken for another with a bad signature
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut params = params("kontor tests");
        let name = format!("kontor tests {number}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = must(KeyPair::generate());
        let certificate = must(params.self_signed(&key)).pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate for a service, good for both sides.
    ///
    /// # Panics
    /// When the name cannot stand in a certificate.
    pub fn issue(&self, name: &str) -> Issued {
        self.sign(params(name))
    }

    /// A certificate that ended long ago.
    ///
    /// # Panics
    /// When the name cannot stand in a certificate.
    pub fn issue_expired(&self, name: &str) -> Issued {
        let mut params = params(name);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Issued {
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = must(KeyPair::generate());
        Issued {
            certificate: must(params.signed_by(&key, &self.issuer)).pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Issued {
    /// Writes `tls.crt` and `tls.key`, and `ca.crt` with the authority that the others are checked by, as cert-manager does;
    /// returns the settings that name them.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path, authority: &str) -> BTreeMap<String, String> {
        let files = [
            ("KONTOR_TLS_CERT_FILE", "tls.crt", self.certificate.as_str()),
            ("KONTOR_TLS_KEY_FILE", "tls.key", &self.key),
            ("KONTOR_TLS_CA_FILE", "ca.crt", authority),
        ];
        must(fs::create_dir_all(folder));
        let files = files.map(|(setting, name, content)| {
            let path = folder.join(name);
            must(fs::write(&path, content));
            (setting.to_owned(), path.display().to_string())
        });
        files.into()
    }
}

fn params(name: &str) -> CertificateParams {
    must(CertificateParams::new(vec![name.to_owned()]))
}

#[expect(clippy::panic, reason = "only tests call this, and a test fails by a panic")]
fn must<T>(result: Result<T, impl Display>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
