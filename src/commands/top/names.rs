//! The names on the page of `/metrics` that are read here, each with its labels: the one place where they stand.

/// Requests answered, by `vendor` and `status`.
pub const REQUESTS: &str = "webhook_events_total";
/// Raw records read, by `vendor`.
pub const RECEIVED: &str = "bridge_records_received_total";
/// Events and dead letters committed, by `topic`.
pub const PUBLISHED: &str = "kafka_events_sent";
/// Ends of records, by `stage` and `verdict`.
pub const VERDICTS: &str = "bridge_verdicts_total";
/// Errors, by `error_type`.
pub const ERRORS: &str = "bridge_errors_total";
/// Changes of what a worker owns, by `stage`.
pub const REBALANCES: &str = "bridge_rebalances_total";
/// Recoveries of partitions, by `cause`.
pub const RECOVERIES: &str = "bridge_recoveries_total";
/// Producers dropped for a new one.
pub const PRODUCER_REBUILDS: &str = "bridge_producer_rebuilds_total";
/// Circuit breakers that opened, by `dependency`.
pub const OPENINGS: &str = "circuit_breaker_openings";
/// The counters that are read.
pub const COUNTERS: [&str; 9] = [
    REQUESTS,
    RECEIVED,
    PUBLISHED,
    VERDICTS,
    ERRORS,
    REBALANCES,
    RECOVERIES,
    PRODUCER_REBUILDS,
    OPENINGS,
];

/// Head to answer, by `vendor`.
pub const REQUEST_SECONDS: &str = "webhook_process_duration_seconds";
/// Receipt to commit, by `vendor`.
pub const RECEIPT_TO_COMMIT: &str = "bridge_receipt_to_commit_seconds";
/// Parts of a batch, by `part`.
pub const BATCH_SECONDS: &str = "bridge_batch_seconds";
/// The histograms that are read.
pub const HISTOGRAMS: [&str; 3] = [REQUEST_SECONDS, RECEIPT_TO_COMMIT, BATCH_SECONDS];

/// Records not yet committed, by `stage`.
pub const LAG_RECORDS: &str = "bridge_lag_records";
/// Age of the oldest of them, by `stage`.
pub const LAG_SECONDS: &str = "bridge_lag_seconds";
/// Partitions, by `stage` and `state`.
pub const PARTITIONS: &str = "bridge_partitions";
/// Permits of the ingress.
pub const PERMITS: &str = "bridge_permits";
/// Permits in use.
pub const PERMITS_IN_USE: &str = "active_webhook_tasks";
/// Requests that wait for a permit.
pub const PERMITS_WAITING: &str = "bridge_permits_waiting";
/// Open connections.
pub const CONNECTIONS: &str = "bridge_connections";
/// Bytes of bodies in flight.
pub const BODY_BYTES: &str = "bridge_body_bytes";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::TABLE;
    use crate::telemetry::table::{PART, Shape};

    /// Every name, with the labels that are asked of it.
    const ASKED: [(&str, Shape, &[&str]); 20] = [
        (REQUESTS, Shape::Counter, &["vendor", "status"]),
        (RECEIVED, Shape::Counter, &["vendor"]),
        (PUBLISHED, Shape::Counter, &["topic"]),
        (VERDICTS, Shape::Counter, &["stage", "verdict"]),
        (ERRORS, Shape::Counter, &["error_type"]),
        (REBALANCES, Shape::Counter, &["stage"]),
        (RECOVERIES, Shape::Counter, &["cause"]),
        (PRODUCER_REBUILDS, Shape::Counter, &[]),
        (OPENINGS, Shape::Counter, &["dependency"]),
        (REQUEST_SECONDS, Shape::Histogram, &["vendor"]),
        (RECEIPT_TO_COMMIT, Shape::Histogram, &["vendor"]),
        (BATCH_SECONDS, Shape::Histogram, &["part"]),
        (LAG_RECORDS, Shape::Gauge, &["stage"]),
        (LAG_SECONDS, Shape::Gauge, &["stage"]),
        (PARTITIONS, Shape::Gauge, &["stage", "state"]),
        (PERMITS, Shape::Gauge, &[]),
        (PERMITS_IN_USE, Shape::Gauge, &[]),
        (PERMITS_WAITING, Shape::Gauge, &[]),
        (CONNECTIONS, Shape::Gauge, &[]),
        (BODY_BYTES, Shape::Gauge, &[]),
    ];

    #[test]
    fn every_name_is_in_the_table_of_metrics() {
        for (name, shape, labels) in ASKED {
            let row = TABLE.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}"));
            let has: Vec<&str> = row.labels.iter().map(|label| label.name).collect();
            assert_eq!((row.shape, has.as_slice()), (shape, labels), "{name}");
        }
    }

    #[test]
    fn every_part_of_a_batch_is_shown() {
        let [_, _, shown @ ..] = super::super::figures::LATENCIES;
        let mut shown = shown.to_vec();
        let mut parts = PART.values(&[]);
        shown.sort_unstable();
        parts.sort_unstable();
        assert_eq!(shown, parts);
    }
}
