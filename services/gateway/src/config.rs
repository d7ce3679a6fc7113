//! The settings of the gateway.

use std::{net::SocketAddr, num::NonZeroU32};

use settings::{Errors, Invalid, Reader};

use crate::proxies::TrustedProxies;

/// The settings of the gateway.
#[derive(Clone)]
pub struct Config {
    /// Address, limits, deadlines and the key that signs who calls.
    pub server: rpc::server::Config,
    /// Logs, traces, metrics.
    pub telemetry: telemetry::Config,
    /// Redis, for sessions.
    pub cache: cache::Config,
    /// Where the services are.
    pub addresses: Addresses,
    /// Whether browsers send the session cookie over TLS only.
    pub cookie_secure: bool,
    /// Whether the public contracts are shown by gRPC reflection.
    pub reflection: bool,
    /// TLS at the public port; without it, it ends in front of the gateway.
    pub public_tls: Option<tls::Public>,
    /// Proxies that say truly from whom they have a request.
    pub trusted_proxies: TrustedProxies,
    /// Tokens that a caller gets each second.
    pub rate_per_second: NonZeroU32,
}

/// The instances of each service, `host:port`.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// auth.
    pub auth: Vec<String>,
    /// account.
    pub account: Vec<String>,
    /// transfer.
    pub transfer: Vec<String>,
    /// chat.
    pub chat: Vec<String>,
}

impl rpc::process::Config for Config {
    fn read(r: &mut Reader) -> Result<Self, Errors> {
        let server = rpc::server::Config::read(r, SocketAddr::from(([0, 0, 0, 0], 8080)));
        let cache = cache::Config::read(r);
        let addresses = Addresses::read(r);
        let cookie_secure = r.or(
            "KONTOR_COOKIE_SECURE",
            "whether the session cookie needs TLS",
            true,
        );
        let reflection = r.or(
            "KONTOR_REFLECTION",
            "whether the public contracts are shown by gRPC reflection",
            false,
        );
        let trusted_proxies = r.or(
            "KONTOR_TRUSTED_PROXIES",
            "networks and addresses of the proxies whose X-Forwarded-For is believed, separated by commas",
            TrustedProxies::default(),
        );
        let rate_per_second = r.in_range(
            "KONTOR_RATE_LIMIT_PER_SECOND",
            "tokens that each caller gets each second; twice as many at once",
            1..=1_000_000,
            100,
        );
        let public_tls = tls::Public::read(r);
        let telemetry = telemetry::Config::read(r);
        r.finish()?;
        Ok(Self {
            server: server?,
            telemetry: telemetry?,
            cache: cache?,
            addresses: addresses?,
            cookie_secure: cookie_secure?,
            reflection: reflection?,
            public_tls: public_tls?,
            trusted_proxies: trusted_proxies?,
            rate_per_second: NonZeroU32::new(rate_per_second?).unwrap_or(NonZeroU32::MIN),
        })
    }

    fn server(&self) -> &rpc::server::Config {
        &self.server
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }
}

impl Addresses {
    fn read(r: &mut Reader) -> Result<Self, Invalid> {
        let auth = r.list(
            "KONTOR_AUTH_ADDRESSES",
            "instances of auth, host:port, separated by commas",
        );
        let account = r.list("KONTOR_ACCOUNT_ADDRESSES", "instances of account");
        let transfer = r.list("KONTOR_TRANSFER_ADDRESSES", "instances of transfer");
        let chat = r.list("KONTOR_CHAT_ADDRESSES", "instances of chat");
        Ok(Self {
            auth: auth?,
            account: account?,
            transfer: transfer?,
            chat: chat?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rpc::process::Config as _;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, Errors> {
        let variables: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::read(&mut Reader::from_map(variables))
    }

    const REQUIRED: [(&str, &str); 6] = [
        ("KONTOR_REDIS_URL", "redis://127.0.0.1"),
        ("KONTOR_CALLER_SECRET", "0123456789abcdef0123456789abcdef"),
        ("KONTOR_AUTH_ADDRESSES", "127.0.0.1:7001, 127.0.0.1:7002"),
        ("KONTOR_ACCOUNT_ADDRESSES", "account:7000"),
        ("KONTOR_TRANSFER_ADDRESSES", "127.0.0.1:7003"),
        ("KONTOR_CHAT_ADDRESSES", "127.0.0.1:7004"),
    ];

    #[test]
    fn defaults_are_those_of_production() {
        let config = read(&REQUIRED).map_err(|errors| errors.to_string()).unwrap();
        assert!(config.cookie_secure && !config.reflection);
        assert_eq!(
            (config.rate_per_second.get(), config.server.listen.port()),
            (100, 8080)
        );
        assert_eq!(config.addresses.auth.len(), 2);
        assert_eq!(config.trusted_proxies, TrustedProxies::default());
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let errors = read(&[
            ("KONTOR_COOKIE_SECURE", "perhaps"),
            ("KONTOR_TRUSTED_PROXIES", "10.0.0.0/8, 10.0.0.0/33"),
            ("KONTOR_RATE_LIMIT_PER_SECOND", "0"),
        ]);
        let errors = errors.map(|_| ()).unwrap_err().to_string();
        for name in [
            "REDIS_URL",
            "CALLER_SECRET",
            "AUTH_",
            "ACCOUNT_",
            "TRANSFER_",
            "CHAT_",
            "COOKIE",
            "TRUSTED_PROXIES: neither network nor address: 10.0.0.0/33",
            "RATE",
        ] {
            assert!(errors.contains(&format!("KONTOR_{name}")), "{name}: {errors}");
        }
    }
}
