//! What librdkafka says goes to `tracing`.

use rdkafka::{
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Passes on a line of librdkafka's log.
pub fn line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{line}");
        }
        // "broker down" and the like, which librdkafka repairs by itself and repeats for each of its threads;
        // what the relay or a consumer makes of it stands at the right level, once
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::debug!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::trace!(target: "librdkafka", facility, "{line}");
        }
    }
}

/// Passes on an error of librdkafka's connections: most of them it repairs by itself, but a refusal somebody must hear of.
pub fn error(error: &KafkaError, reason: &str) {
    if is_refusal(error) {
        tracing::warn!(target: "librdkafka", %error, reason, "no connection to kafka: a password or a certificate is refused");
    } else {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

/// Whether the two sides do not agree on who they are, which no time mends: the password is wrong, or the certificate is not
/// trusted or names another host. Clients try on nevertheless.
pub fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL
        )
    )
}
