//! What librdkafka says goes to `tracing`.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

/// How often a refusal is told: each client meets it again several times a second.
const TELL_EVERY: Duration = Duration::from_secs(30);

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

/// Passes on an error of librdkafka's connections: most of them it repairs by itself, but of a refusal somebody must
/// hear, every half minute.
pub fn error(error: &KafkaError, reason: &str) {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    if is_refusal(error) && is_due(&TOLD, Instant::now()) {
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

fn is_due(told: &Mutex<Option<Instant>>, now: Instant) -> bool {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let due = told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
    if due {
        *told = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_at_once_and_then_every_half_minute() {
        let (told, start) = (Mutex::new(None), Instant::now());
        let due = |seconds| is_due(&told, start + Duration::from_secs(seconds));
        assert_eq!(
            [0, 0, 29, 30, 31, 60].map(due),
            [true, false, false, true, false, true]
        );
    }
}
