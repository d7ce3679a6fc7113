//! The settings that each service gets.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;

use super::{Service, World, WorldOptions};
use crate::{infra::postgres_url, ports};

/// A port that answers health probes in clear text, where the port of the service does not.
pub(super) const HEALTH: &str = "KONTOR_HEALTH_LISTEN";
/// By this setting a service talks to the others by TLS.
const TLS: &str = "KONTOR_TLS_CERT_FILE";

type Placed = (Service, usize, SocketAddr);

/// The whole environment of one instance, as far as it is kontor's.
pub(super) fn of(
    world: &World,
    options: &WorldOptions,
    secret_file: &Path,
    (service, index, address): Placed,
    all: &[Placed],
) -> Result<Vec<(String, String)>> {
    let mut settings = vec![
        ("KONTOR_LISTEN".to_owned(), address.to_string()),
        (
            "KONTOR_CALLER_SECRET_FILE".to_owned(),
            secret_file.display().to_string(),
        ),
    ];
    let mut put = |name: &str, value: String| settings.push((name.to_owned(), value));
    if let Some(endpoint) = &options.otlp_endpoint {
        put("KONTOR_OTLP_ENDPOINT", endpoint.clone());
    }
    if service.has_database() {
        let url = match options.postgres.get(index) {
            Some(address) => postgres_url(address, &world.database(service)),
            None => world.database_url(service),
        };
        put("KONTOR_DATABASE_URL", url);
    }
    if matches!(service, Service::Gateway | Service::Auth) {
        put("KONTOR_REDIS_URL", world.infra.redis_url());
        put("KONTOR_REDIS_PREFIX", world.redis_prefix());
    }
    if service == Service::Transfer {
        let key = secret_file.with_file_name(super::LEDGER_KEY);
        put("KONTOR_LEDGER_KEY_FILE", key.display().to_string());
    }
    if matches!(service, Service::Account | Service::Transfer | Service::Chat) {
        put("KONTOR_KAFKA_BROKERS", world.kafka_brokers().to_owned());
        put("KONTOR_KAFKA_TOPIC_PREFIX", world.topic_prefix());
    }
    for called in calls(service) {
        put(
            &format!("KONTOR_{}_ADDRESSES", called.name().to_uppercase()),
            list(all, *called),
        );
    }
    if service == Service::Gateway {
        // browsers keep a Secure cookie from http://127.0.0.1, and grpcurl wants reflection
        put("KONTOR_COOKIE_SECURE", "false".to_owned());
        put("KONTOR_REFLECTION", "true".to_owned());
        if let Some(limit) = options.rate_limit_per_second {
            put("KONTOR_RATE_LIMIT_PER_SECOND", limit.to_string());
        }
    }
    for (only, name, value) in &options.settings {
        if only.is_none_or(|only| only == service) {
            settings.retain(|(set, _)| set != name);
            settings.push((name.clone(), value.clone()));
        }
    }
    let has = |name: &str| settings.iter().any(|(set, _)| set == name);
    if service != Service::Gateway && has(TLS) && !has(HEALTH) {
        settings.push((HEALTH.to_owned(), format!("127.0.0.1:{}", ports::free()?)));
    }
    Ok(settings)
}

fn calls(service: Service) -> &'static [Service] {
    match service {
        Service::Gateway => &[Service::Auth, Service::Account, Service::Transfer, Service::Chat],
        Service::Account => &[Service::Auth, Service::Transfer],
        Service::Chat => &[Service::Account],
        Service::Auth | Service::Transfer => &[],
    }
}

fn list(all: &[Placed], service: Service) -> String {
    let addresses = all
        .iter()
        .filter(|(placed, ..)| *placed == service)
        .map(|(.., address)| address.to_string());
    addresses.collect::<Vec<_>>().join(",")
}
