//! The settings that each service gets.

use std::{net::SocketAddr, path::Path};

use super::{Service, World, WorldOptions};

type Placed = (Service, usize, SocketAddr);

/// The whole environment of one instance, as far as it is kontor's.
pub(super) fn of(
    world: &World,
    options: &WorldOptions,
    secret_file: &Path,
    service: Service,
    address: SocketAddr,
    all: &[Placed],
) -> Vec<(String, String)> {
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
        put("KONTOR_DATABASE_URL", world.database_url(service));
    }
    if matches!(service, Service::Gateway | Service::Auth) {
        put("KONTOR_REDIS_URL", world.infra.redis_url());
        put("KONTOR_REDIS_PREFIX", world.redis_prefix());
    }
    if matches!(service, Service::Account | Service::Chat) {
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
    settings
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
