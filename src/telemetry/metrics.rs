//! Every metric of the process, in one table: from it the registry is built, the `metrics` command prints it, and
//! tests hold dashboards, alerts and the runbook to it.
//!
//! Labels are closed sets ([`super::table`]), so that no sender can make a series: [`super::family`] makes all of
//! them at the start, fewer than 2 000.
//!
//! # The names of v0
//! They stand as v0 had them, without our prefix and with v0's meaning, so that what read v0 reads this: requests at
//! the webhooks, those that failed by `error_type`, how long one took, tasks under way behind the semaphore and the
//! wait for it, values, triggers, breaker openings, events sent.
//!
//! # Values of people
//! `biometric_values` is the one metric made of what was measured on people. It exists because v0 had it and because
//! a vendor that changes a unit shows there first, and it is bounded to be an aggregate: no label but the metric's
//! name, a dozen metrics of nights and days (nothing reproductive, nothing diagnostic), eight steps over the plausible
//! range, and a sum that is no finer than the steps. Where so few people are served that a step taken between two
//! scrapes is one person's, `telemetry.biometric_values = false` leaves it empty; guard `/metrics` in any case.

use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use crate::telemetry::family::{Family, Made, Maker, Peaks, Seldom, Values};
use crate::telemetry::table::{
    ASKED, BROKEN, CAUSE, DEPENDENCY, DUE, ERROR_TYPE, FATE, METRIC, OUTCOME, PART, RENEWED, Row,
    SEVERITY, SIGNAL, STAGE, STATE, STATUS, STEP, TOPIC, TYPE, VENDOR, VERDICT,
};
use crate::telemetry::trace::Tracer;

/// Bounds of what has none, or one of its own by series.
const NONE: &[f64] = &[];
/// Upper bounds of latencies, seconds: 0.5 ms to 16 s, doubling.
const LATENCIES: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192, 16.384,
];
/// Upper bounds of calls of a vendor's API, seconds, up to their deadline.
const CALLS: &[f64] = &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Upper bounds of ages at receipt, seconds: a minute to a year.
const AGES: &[f64] = &[
    60.0,
    600.0,
    3_600.0,
    10_800.0,
    21_600.0,
    43_200.0,
    86_400.0,
    129_600.0,
    259_200.0,
    604_800.0,
    2_592_000.0,
    31_536_000.0,
];
/// Upper bounds of numbers of records.
const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];

/// Of each line `field: type = name [labels] unit, bounds, who had it; what it says`: the row of [`TABLE`], the field
/// of [`Metrics`], and how the one is made of the other.
macro_rules! table {
    ($($field:ident: $type:ty = $name:literal [$($label:ident)*] $unit:literal $buckets:ident
        $v0:literal $help:literal)*) => {
        /// Every metric.
        pub static TABLE: &[Row] = &[$(Row {
            name: $name,
            shape: <$type as Made>::SHAPE,
            unit: $unit,
            labels: &[$($label),*],
            buckets: $buckets,
            v0: $v0,
            help: $help,
        }),*];

        /// The metrics of a process. Clones share them.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            registry: Registry,
            /// Where spans go; nowhere unless a collector is named.
            pub tracer: Tracer,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// A set of its own, for these vendors.
            ///
            /// # Panics
            /// Never: names and labels are literals and each stands once, which a test holds.
            #[must_use]
            pub fn of(vendors: &[&'static str]) -> Self {
                let registry = Registry::new();
                let maker = Maker { registry: &registry, vendors };
                let mut rows = TABLE.iter();
                $(
                    let $field = <$type as Made>::made(
                        &maker,
                        rows.next().expect("invariant: a row for each field"),
                    );
                )*
                Self { registry, tracer: Tracer::default(), $($field,)* }
            }
        }
    };
}

table! {
    // ── the door ───────────────────────────────────────────────────────────────────────────────
    requests: Family<IntCounter, 2> = "webhook_events_total" [VENDOR STATUS] "requests" NONE true
        "Webhook requests answered, by vendor and status; unknown is no vendor of ours"
    failures: Family<IntCounter, 2> = "webhook_events_failed_total" [STAGE ERROR_TYPE] "events" NONE true
        "Webhook events that failed: requests refused at the door, records dead-lettered by normalise, decide or the hydrator"
    request_seconds: Family<Histogram, 1> = "webhook_process_duration_seconds" [VENDOR] "seconds" LATENCIES true
        "From the first byte of a request to its answer"
    permits_in_use: IntGauge = "active_webhook_tasks" [] "requests" NONE true
        "Requests that hold a permit: being verified and written"
    permit_wait_seconds: Histogram = "semaphore_wait_seconds" [] "seconds" LATENCIES true
        "Wait for a permit"
    permits: IntGauge = "bridge_permits" [] "permits" NONE false
        "Permits of the ingress, all of them"
    permits_waiting: IntGauge = "bridge_permits_waiting" [] "requests" NONE false
        "Requests that wait for a permit"
    connections: IntGauge = "bridge_connections" [] "connections" NONE false
        "Open connections"
    body_bytes: IntGauge = "bridge_body_bytes" [] "bytes" NONE false
        "Bytes of bodies in flight"
    handshakes: IntGauge = "bridge_handshakes" [] "handshakes" NONE false
        "TLS handshakes under way"
    certificate_ends_seconds: IntGauge = "bridge_certificate_ends_seconds" [] "seconds" NONE false
        "When the certificate in force ends, since the epoch; 0 where the door speaks plain HTTP"
    // ── what becomes of records ────────────────────────────────────────────────────────────────
    received: Family<IntCounter, 1> = "bridge_records_received_total" [VENDOR] "records" NONE false
        "Raw records that normalise has read"
    verdicts: Family<IntCounter, 2> = "bridge_verdicts_total" [STEP VERDICT] "records" NONE false
        "Records by how they ended in a step"
    published: Family<IntCounter, 1> = "kafka_events_sent" [TOPIC] "records" NONE true
        "Events and dead letters of decide that are committed, by topic"
    triggers: Family<IntCounter, 2> = "cognitive_mode_triggers" [TYPE SEVERITY] "triggers" NONE true
        "Triggers that were sent for somebody to act on; muted ones do not count"
    values: Values = "biometric_values" [METRIC] "values" NONE true
        "Values of published live nights and days, of all people together, in eight steps of the plausible range"
    receipt_to_commit_seconds: Family<Histogram, 1> = "bridge_receipt_to_commit_seconds" [VENDOR] "seconds" LATENCIES false
        "From the receipt of a request to its live event being visible to a reader of committed records"
    lateness_seconds: Family<Histogram, 1> = "bridge_lateness_seconds" [VENDOR] "seconds" AGES false
        "Age of what was measured when it was received: receipt minus the end of the measurement, of live events"
    errors: Family<IntCounter, 1> = "bridge_errors_total" [ERROR_TYPE] "errors" NONE false
        "Errors of every kind: refusals, dead letters, and what the world did not do"
    swept: IntCounter = "bridge_swept_total" [] "records" NONE false
        "Held records that were put through"
    // ── the engine ─────────────────────────────────────────────────────────────────────────────
    lag: Family<IntGauge, 1> = "bridge_lag_records" [STEP] "records" NONE false
        "Records of this process' partitions that a step has not committed"
    lag_seconds: Peaks = "bridge_lag_seconds" [STEP] "seconds" NONE false
        "How long the oldest record that a step has fetched and not committed stands in its topic; 0 where there is none"
    batch_records: Family<Histogram, 1> = "bridge_batch_records" [STEP] "records" SIZES false
        "Records of a batch"
    batch_seconds: Family<Histogram, 1> = "bridge_batch_seconds" [PART] "seconds" LATENCIES false
        "Parts of a batch: connections to commit are normalise's, load to redis are decide's"
    partitions: Family<IntGauge, 2> = "bridge_partitions" [STEP STATE] "partitions" NONE false
        "Partitions that this process owns, by where they stand; a stopped one waits for a person"
    rebalances: Family<IntCounter, 1> = "bridge_rebalances_total" [STEP] "changes" NONE false
        "Times that the partitions of a worker changed"
    recoveries: Family<IntCounter, 1> = "bridge_recoveries_total" [CAUSE] "recoveries" NONE false
        "Recoveries of a partition by cause"
    producers: IntCounter = "bridge_producer_rebuilds_total" [] "producers" NONE false
        "Transactional producers that were dropped for a new one"
    // ── the hydrator ───────────────────────────────────────────────────────────────────────────
    fetches: Family<IntCounter, 2> = "bridge_fetches_total" [ASKED OUTCOME] "calls" NONE false
        "Calls of vendors' APIs by how they ended"
    fetch_seconds: Family<Histogram, 1> = "bridge_fetch_seconds" [ASKED] "seconds" CALLS false
        "From a call to the end of its answer"
    renewals: Family<IntCounter, 2> = "bridge_renewals_total" [ASKED RENEWED] "exchanges" NONE false
        "Refresh tokens that were exchanged, or not: a refused one waits for the person's consent"
    hydrations: Family<IntGauge, 2> = "bridge_hydrations" [ASKED DUE] "records" NONE false
        "Records that wait for their fetch: their time has come, or has not, or they are windows of history"
    // ── what is needed ─────────────────────────────────────────────────────────────────────────
    up: Seldom = "bridge_dependency_up" [DEPENDENCY] "1 or 0" NONE false
        "1 while a dependency answers, 0 while it does not; absent until it was asked"
    openings: Family<IntCounter, 1> = "circuit_breaker_openings" [BROKEN] "openings" NONE true
        "Times that a circuit breaker opened"
    exports: Family<IntCounter, 2> = "bridge_otlp_total" [SIGNAL FATE] "items" NONE false
        "Spans and rounds of metrics for the collector: sent, failed, or dropped because too much waited"
}

impl Metrics {
    /// A set of its own that knows no vendor: all count as `unknown`.
    ///
    /// # Panics
    /// Never: as [`Metrics::of`].
    #[must_use]
    pub fn new() -> Self {
        Self::of(&[])
    }

    /// What stands in the registry now.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The page of `/metrics`, in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = Vec::new();
        let written = TextEncoder::new().encode(&self.gather(), &mut page);
        debug_assert!(written.is_ok(), "a page of text can be written to memory");
        String::from_utf8(page).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_row() {
        let metrics = Metrics::new();
        metrics.up.set("kafka", 1);
        let page = metrics.text();
        for row in TABLE {
            let says =
                format!("# HELP {} {}\n# TYPE {0} {}\n", row.name, row.help, row.shape.name());
            assert!(page.contains(&says), "{says}");
        }
        assert_eq!(page.matches("# TYPE ").count(), TABLE.len());
    }

    #[test]
    fn no_process_has_more_than_two_thousand_series() {
        let many = [
            "apple",
            "dexcom",
            "fitbit",
            "garmin",
            "google_health",
            "healthkit",
            "oura",
            "polar",
            "terra",
            "whoop",
            "withings",
            "zepp",
        ];
        let metrics = Metrics::of(&many);
        for dependency in ["kafka", "postgres", "redis", "workers"] {
            metrics.up.set(dependency, 1);
        }
        let page = metrics.text();
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= 2_000, "{series}");
    }
}
