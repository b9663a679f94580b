//! What operators see: metrics, spans, logs, health. No label, no span and no line here can carry a person's data.

pub mod family;
pub mod health;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod table;
pub mod trace;

use serde::Deserialize;

/// What is measured and where it is sent, besides `/metrics`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether `biometric_values` counts.
    pub biometric_values: bool,
    /// The base of the collector's OTLP/HTTP doors; nothing is sent where it is absent.
    #[serde(default)]
    pub otlp_endpoint: Option<String>,
    /// How long a call to the collector may take, ms.
    pub otlp_timeout_ms: u64,
    /// How often metrics are sent, s; 0 for never.
    pub otlp_metrics_interval_s: u64,
    /// The part of the traces that begin here which is sampled, 0 to 1.
    pub sample_ratio: f64,
    /// The most spans that wait for the collector.
    pub spans_queue_max: usize,
}

impl Settings {
    /// What cannot work: each key and what it must be.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        let mut must = |holds: bool, key, what| {
            if !holds {
                found.push((key, what));
            }
        };
        let fits = |url: &String| {
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#']))
        };
        let named = "http:// or https://, a host and a port, without a user or a query";
        must(self.otlp_endpoint.as_ref().is_none_or(fits), "otlp_endpoint", named);
        must((1..=60_000).contains(&self.otlp_timeout_ms), "otlp_timeout_ms", "1 to 60000");
        let interval = self.otlp_metrics_interval_s;
        must(interval <= 86_400, "otlp_metrics_interval_s", "0 to 86400");
        must((0.0..=1.0).contains(&self.sample_ratio), "sample_ratio", "0.0 to 1.0");
        let queue = self.spans_queue_max;
        must((1..=1_000_000).contains(&queue), "spans_queue_max", "1 to 1000000");
        found
    }
}
