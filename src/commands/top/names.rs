//! The names on the page of `/metrics` that are read here, each with its labels: the one place where they stand.

/// Requests answered, by `vendor` and `status`.
pub const REQUESTS: &str = "bridge_requests_total";
/// Raw records read, by `vendor`.
pub const RECEIVED: &str = "bridge_records_received_total";
/// Events committed, by `topic`.
pub const PUBLISHED: &str = "bridge_published_total";
/// Ends of records, by `stage` and `verdict`.
pub const VERDICTS: &str = "bridge_verdicts_total";
/// Errors, by `error_type`.
pub const ERRORS: &str = "bridge_errors_total";
/// Recoveries of partitions, by `cause`.
pub const RECOVERIES: &str = "bridge_recoveries_total";
/// Producers dropped for a new one.
pub const PRODUCER_REBUILDS: &str = "bridge_producer_rebuilds_total";
/// The counters that are read.
pub const COUNTERS: [&str; 7] =
    [REQUESTS, RECEIVED, PUBLISHED, VERDICTS, ERRORS, RECOVERIES, PRODUCER_REBUILDS];

/// Head to answer, by `vendor`.
pub const REQUEST_SECONDS: &str = "bridge_request_seconds";
/// Receipt to commit, by `vendor`.
pub const RECEIPT_TO_COMMIT: &str = "bridge_receipt_to_commit_seconds";
/// Parts of a batch of decide, by `part`.
pub const BATCH_SECONDS: &str = "bridge_batch_seconds";
/// The histograms that are read.
pub const HISTOGRAMS: [&str; 3] = [REQUEST_SECONDS, RECEIPT_TO_COMMIT, BATCH_SECONDS];

/// Records not yet committed, by `stage`.
pub const LAG_RECORDS: &str = "bridge_lag_records";
/// Permits of the ingress.
pub const PERMITS: &str = "bridge_permits";
/// Permits in use.
pub const PERMITS_IN_USE: &str = "bridge_permits_in_use";
/// Requests that wait for a permit.
pub const PERMITS_WAITING: &str = "bridge_permits_waiting";
/// Open connections.
pub const CONNECTIONS: &str = "bridge_connections";
/// Bytes of bodies in flight.
pub const BODY_BYTES: &str = "bridge_body_bytes";

/// The parts of a batch, in their order.
pub const PARTS: [&str; 5] = ["load", "decide", "postgres", "kafka", "redis"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_on_the_page() {
        let table = include_str!("../../../tests/golden/metrics.txt");
        let gauges =
            [LAG_RECORDS, PERMITS, PERMITS_IN_USE, PERMITS_WAITING, CONNECTIONS, BODY_BYTES];
        let kinds =
            [(&COUNTERS[..], "counter"), (&HISTOGRAMS[..], "histogram"), (&gauges[..], "gauge")];
        for (names, kind) in kinds {
            for name in names {
                assert!(table.contains(&format!("{name} {kind} ")), "{name}");
            }
        }
    }
}
