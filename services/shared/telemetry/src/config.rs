use std::{fmt, str::FromStr};

use http::Uri;
use settings::{Invalid, Reader};
use tracing_subscriber::EnvFilter;

/// The settings of telemetry.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which log lines are written, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The OTLP collector, `http://host:4317`; nothing is exported without it.
    pub otlp_endpoint: Option<Uri>,
    /// How many of 100 traces that begin here are recorded. A trace that began elsewhere keeps its caller's decision.
    pub trace_sample_percent: u8,
    /// The region in which the process runs.
    pub region: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For people.
    Pretty,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Pretty => "pretty",
        })
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            _ => Err("must be json or pretty"),
        }
    }
}

impl Config {
    /// Reads the settings.
    pub fn read(r: &mut Reader) -> Result<Self, Invalid> {
        let log = r
            .or("KONTOR_LOG", "which log lines to write", "info".to_owned())
            .and_then(|log: String| {
                EnvFilter::from_str(&log).map_err(|problem| r.fail("KONTOR_LOG", problem))?;
                Ok(log)
            });
        let log_format = r.or("KONTOR_LOG_FORMAT", "json or pretty", LogFormat::Json);
        let otlp_endpoint = r.optional::<Uri>(
            "KONTOR_OTLP_ENDPOINT",
            "OTLP collector, http://host:4317; absent: no export",
        );
        let otlp_endpoint = otlp_endpoint.and_then(|endpoint| {
            let good = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some();
            match endpoint {
                Some(uri) if !good(&uri) => {
                    Err(r.fail("KONTOR_OTLP_ENDPOINT", "must look like http://host:4317"))
                }
                endpoint => Ok(endpoint),
            }
        });
        let trace_sample_percent = r.in_range(
            "KONTOR_TRACE_SAMPLE_PERCENT",
            "how many of 100 traces to record",
            0..=100,
            100,
        );
        let region = r.or("KONTOR_REGION", "region of this process", "local".to_owned());
        Ok(Self {
            log: log?,
            log_format: log_format?,
            otlp_endpoint: otlp_endpoint?,
            trace_sample_percent: trace_sample_percent?,
            region: region?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_bad_setting_is_told() {
        let bad = [
            ("KONTOR_LOG", "kontor=loud"),
            ("KONTOR_LOG_FORMAT", "xml"),
            ("KONTOR_OTLP_ENDPOINT", "https://collector:4317"),
            ("KONTOR_TRACE_SAMPLE_PERCENT", "101"),
        ];
        let variables = bad.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut r = Reader::from_map(BTreeMap::from(variables));
        Config::read(&mut r).unwrap_err();
        let problems = r.finish().unwrap_err();
        let names: Vec<&str> = problems
            .lines()
            .iter()
            .filter_map(|line| line.split(':').next())
            .collect();
        assert_eq!(names, bad.map(|(name, _)| name));
    }

    #[test]
    fn nothing_is_exported_by_default() {
        let config = Config::read(&mut Reader::from_map(BTreeMap::new())).unwrap();
        assert_eq!((config.otlp_endpoint, config.log_format), (None, LogFormat::Json));
    }
}
