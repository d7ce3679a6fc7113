use std::fmt;

use redis::{Client, ConnectionAddr, TlsCertificates};
use secrecy::ExposeSecret as _;
use settings::{Invalid, Reader};
use tls::Authorities;

/// Which Redis to use.
#[derive(Clone)]
pub struct Config {
    pub(crate) client: Client,
    pub(crate) prefix: String,
}

impl Config {
    /// Reads `KONTOR_REDIS_URL`, `KONTOR_REDIS_CA_FILE` and `KONTOR_REDIS_PREFIX`.
    pub fn read(r: &mut Reader) -> Result<Self, Invalid> {
        let authorities = Authorities::read(
            r,
            "KONTOR_REDIS_CA_FILE",
            "authority of the certificate of a rediss://… (PEM); without it those that the system trusts",
        );
        let client = r.secret_as(
            "KONTOR_REDIS_URL",
            "Redis to use, redis://… or by TLS rediss://…",
            |url| {
                let authorities = authorities.as_ref().ok().and_then(Option::as_ref);
                open(url.expose_secret(), authorities).map_err(str::to_owned)
            },
        );
        let prefix = r.or(
            "KONTOR_REDIS_PREFIX",
            "in front of every key in Redis",
            String::new(),
        );
        authorities?;
        Ok(Self {
            client: client?,
            prefix: prefix?,
        })
    }
}

/// A client, and what is wrong with the URL. The library's own message may quote the password.
fn open(url: &str, authorities: Option<&Authorities>) -> Result<Client, &'static str> {
    let malformed = "must look like redis://:password@host:6379/0, or rediss://… for TLS";
    let unusable = "needs KONTOR_REDIS_CA_FILE: the authorities of the system cannot be used";
    let client = Client::open(url).map_err(|_| malformed)?;
    match client.get_connection_info().addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => Err("cannot be #insecure: certificates are checked"),
        ConnectionAddr::TcpTls { .. } => {
            tls::install_provider();
            // read once, here: a command has no time for it
            let root_cert = match authorities {
                Some(authorities) => authorities.content.clone(),
                None => Authorities::of_system().ok_or(unusable)?.content,
            };
            let certificates = TlsCertificates {
                client_tls: None,
                root_cert: Some(root_cert),
            };
            Client::build_with_tls(url, certificates).map_err(|_| unusable)
        }
        _ if authorities.is_some() => Err("must begin with rediss:// where KONTOR_REDIS_CA_FILE is set"),
        _ => Ok(client),
    }
}

impl fmt::Debug for Config {
    // the client would print the password
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("server", &self.client.get_connection_info().addr().to_string())
            .field("prefix", &self.prefix)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn neither_errors_nor_debug_show_the_password() {
        for (url, good) in [
            ("redis://:hunter2@cache:6379/0", true),
            ("rediss://:hunter2@cache:6379/0", true),
            ("rediss://:hunter2@cache:6379/0#insecure", false),
            ("http://hunter2", false),
        ] {
            let mut r = Reader::from_map(BTreeMap::from([("KONTOR_REDIS_URL".to_owned(), url.to_owned())]));
            let shown = format!("{:?} {:?}", Config::read(&mut r), r.finish());
            assert_eq!(shown.contains("cache:6379"), good, "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
