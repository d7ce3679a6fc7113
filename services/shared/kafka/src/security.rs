//! TLS to the brokers, and who we are to them.

use std::{
    fmt::{self, Display},
    path::PathBuf,
    str::FromStr,
};

use rdkafka::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use settings::{Invalid, Reader};
use tls::Authorities;

/// How the connections to the brokers are protected. By default they are not.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Whether they are encrypted, and the certificates and names of the brokers checked.
    pub tls: bool,
    /// The authorities of these certificates (PEM); without it, the public ones that the system knows.
    pub ca_file: Option<PathBuf>,
    /// Who we are to the brokers.
    pub login: Option<Login>,
}

/// A user of the cluster.
#[derive(Clone, Debug)]
pub struct Login {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// How that is proven.
    pub mechanism: Mechanism,
}

/// How a password is proven (SASL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// It is sent as it is (RFC 4616).
    Plain,
    /// It is not sent (RFC 5802, RFC 7677).
    ScramSha256,
    /// It is not sent (RFC 5802).
    ScramSha512,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name() == text)
            .ok_or("is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512")
    }
}

impl Security {
    pub(crate) fn read(r: &mut Reader) -> Result<Self, Invalid> {
        let tls = r.or(
            "KONTOR_KAFKA_TLS",
            "whether the brokers are reached by TLS, and their certificates checked",
            false,
        );
        let authorities = Authorities::read(
            r,
            "KONTOR_KAFKA_CA_FILE",
            "authority of the brokers' certificates (PEM); without it those that the system trusts",
        );
        if let (Ok(false), Ok(Some(_))) = (&tls, &authorities) {
            r.fail(
                "KONTOR_KAFKA_TLS",
                "must be true where KONTOR_KAFKA_CA_FILE is set",
            );
        }
        let login = Login::read(r, tls == Ok(false));
        Ok(Self {
            tls: tls?,
            ca_file: authorities?.map(|authorities| authorities.path),
            login: login?,
        })
    }

    pub(crate) fn apply(&self, client: &mut ClientConfig) {
        let protocol = match (self.tls, &self.login) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        client.set("security.protocol", protocol);
        if self.tls {
            // OpenSSL's own default is a folder that images do not have; `probe` finds the system's file
            let authorities = self
                .ca_file
                .as_ref()
                .map_or("probe".into(), |path| path.to_string_lossy());
            client
                .set("ssl.ca.location", authorities)
                // the default since librdkafka 2.0: without it, any certificate of the authority would do
                .set("ssl.endpoint.identification.algorithm", "https");
        }
        if let Some(login) = &self.login {
            client
                .set("sasl.mechanisms", login.mechanism.name())
                .set("sasl.username", &login.username)
                .set("sasl.password", login.password.expose_secret());
        }
    }
}

impl Login {
    fn read(r: &mut Reader, in_clear: bool) -> Result<Option<Self>, Invalid> {
        let username = r.optional::<String>(
            "KONTOR_KAFKA_USERNAME",
            "user of the cluster, where it asks for one",
        );
        let password = r.optional_secret("KONTOR_KAFKA_PASSWORD", "password of that user");
        let mechanism = r.or(
            "KONTOR_KAFKA_SASL_MECHANISM",
            "how the password is proven: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
            Mechanism::ScramSha512,
        );
        match (username?, password?) {
            (None, None) => mechanism.map(|_| None),
            (Some(_), Some(_)) if in_clear && mechanism == Ok(Mechanism::Plain) => Err(r.fail(
                "KONTOR_KAFKA_SASL_MECHANISM",
                "PLAIN sends the password as it is: it needs KONTOR_KAFKA_TLS=true",
            )),
            (Some(username), Some(password)) => Ok(Some(Self {
                username,
                password,
                mechanism: mechanism?,
            })),
            (Some(_), None) => Err(r.fail(
                "KONTOR_KAFKA_PASSWORD",
                "is required where KONTOR_KAFKA_USERNAME is set (or KONTOR_KAFKA_PASSWORD_FILE)",
            )),
            (None, Some(_)) => Err(r.fail(
                "KONTOR_KAFKA_USERNAME",
                "is required where KONTOR_KAFKA_PASSWORD is set",
            )),
        }
    }
}
