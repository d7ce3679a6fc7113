use std::fmt;

use redis::Client;
use secrecy::ExposeSecret as _;
use settings::{Invalid, Reader};

/// Which Redis to use.
#[derive(Clone)]
pub struct Config {
    pub(crate) client: Client,
    pub(crate) prefix: String,
}

impl Config {
    /// Reads `KONTOR_REDIS_URL` and `KONTOR_REDIS_PREFIX`.
    pub fn read(r: &mut Reader) -> Result<Self, Invalid> {
        let client = r.secret_as("KONTOR_REDIS_URL", "Redis to use, redis://…", |url| {
            // the library's own message may quote the password
            Client::open(url.expose_secret())
                .map_err(|_| "must look like redis://:password@host:6379/0".to_owned())
        });
        let prefix = r.or(
            "KONTOR_REDIS_PREFIX",
            "in front of every key in Redis",
            String::new(),
        );
        Ok(Self {
            client: client?,
            prefix: prefix?,
        })
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
        for (url, good) in [("redis://:hunter2@cache:6379/0", true), ("http://hunter2", false)] {
            let mut r = Reader::from_map(BTreeMap::from([("KONTOR_REDIS_URL".to_owned(), url.to_owned())]));
            let shown = format!("{:?} {:?}", Config::read(&mut r), r.finish());
            assert_eq!(shown.contains("cache:6379"), good, "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
