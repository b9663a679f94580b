//! Every metric of the process, in one table: names, labels, and what they mean.
//!
//! Labels are closed sets (vendors, kinds, verdicts, topics of ours), so that no sender can make a series.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds of latencies, seconds: 0.5 ms to 16 s, doubling.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192, 16.384,
];

/// The metrics of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by vendor and status, when they are answered. An unknown vendor is `unknown`.
    pub requests: IntCounterVec,
    /// From the first byte of the head to the answer, by vendor.
    pub request_seconds: HistogramVec,
    /// Records that were read from raw topics, by vendor.
    pub received: IntCounterVec,
    /// Verdicts by stage (`normalise`, `decide`) and name.
    pub verdicts: IntCounterVec,
    /// Errors by kind.
    pub errors: IntCounterVec,
    /// Events that are committed, by topic.
    pub published: IntCounterVec,
    /// From receipt to the commit of the event, by vendor.
    pub receipt_to_commit_seconds: HistogramVec,
    /// Records between what is committed and the end of the log, by stage.
    pub lag: IntGaugeVec,
    /// Permits of the ingress: all of them.
    pub permits: IntGauge,
    /// Permits in use.
    pub permits_in_use: IntGauge,
    /// Requests that wait for a permit.
    pub permits_waiting: IntGauge,
    /// How long they waited.
    pub permit_wait_seconds: Histogram,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Bytes of bodies in flight.
    pub body_bytes: IntGauge,
    /// TLS handshakes that are under way.
    pub handshakes: IntGauge,
    /// When the certificate in force ends, seconds since the epoch; 0 without one.
    pub certificate_ends_seconds: IntGauge,
    /// Records of a batch of decide.
    pub batch_records: Histogram,
    /// The parts of a batch: `load`, `decide`, `postgres`, `kafka`, `redis`.
    pub batch_seconds: HistogramVec,
    /// Recoveries of a partition by cause.
    pub recoveries: IntCounterVec,
    /// Transactional producers that were dropped for a new one.
    pub producers: IntCounter,
    /// Raw records that wait for a connection, put through by the sweep.
    pub swept: IntCounter,
    /// 1 while a dependency answers, by name.
    pub up: IntGaugeVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A set of its own.
    ///
    /// # Panics
    /// Never: the names are literals and each is registered once, which a test holds.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let table = Table(&registry);
        Self {
            requests: table.counters("requests_total", "Requests answered", &["vendor", "status"]),
            request_seconds: table.times("request_seconds", "Head to answer", &["vendor"]),
            received: table.counters("records_received_total", "Raw records read", &["vendor"]),
            verdicts: table.counters("verdicts_total", "Records by end", &["stage", "verdict"]),
            errors: table.counters("errors_total", "Errors by kind", &["error_type"]),
            published: table.counters("published_total", "Events committed", &["topic"]),
            receipt_to_commit_seconds: table.times(
                "receipt_to_commit_seconds",
                "From receipt to the commit of the event",
                &["vendor"],
            ),
            lag: table.gauges("lag_records", "Records not yet committed", &["stage"]),
            permits: table.gauge("permits", "Permits of the ingress"),
            permits_in_use: table.gauge("permits_in_use", "Permits in use"),
            permits_waiting: table.gauge("permits_waiting", "Requests waiting for a permit"),
            permit_wait_seconds: table.time("permit_wait_seconds", "Wait for a permit"),
            connections: table.gauge("connections", "Open connections"),
            body_bytes: table.gauge("body_bytes", "Bytes of bodies in flight"),
            handshakes: table.gauge("handshakes", "TLS handshakes under way"),
            certificate_ends_seconds: table
                .gauge("certificate_ends_seconds", "End of the certificate in force, epoch"),
            batch_records: table.sizes("batch_records", "Records of a batch"),
            batch_seconds: table.times("batch_seconds", "Parts of a batch", &["part"]),
            recoveries: table.counters("recoveries_total", "Recoveries", &["cause"]),
            producers: table.counter("producer_rebuilds_total", "Producers dropped for a new one"),
            swept: table.counter("swept_total", "Held items put through"),
            up: table.gauges("dependency_up", "1 while it answers", &["dependency"]),
            registry,
        }
    }

    /// The page of `/metrics`, in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut page = Vec::new();
        let written = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        debug_assert!(written.is_ok(), "a page of text can be written to memory");
        String::from_utf8(page).unwrap_or_default()
    }
}

/// Makes a metric and enters it; a name that is entered twice is ours to mend, and a test finds it.
struct Table<'a>(&'a Registry);

impl Table<'_> {
    fn enter<M: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<M>,
    ) -> M {
        #[expect(clippy::expect_used, reason = "literals only; held by a test")]
        let metric = made.expect("invariant: metric names are well-formed literals");
        let entered = self.0.register(Box::new(metric.clone()));
        assert!(entered.is_ok(), "a metric's name stands once in the table");
        metric
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("bridge_{name}"), help)
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.enter(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.enter(IntCounterVec::new(Self::opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.enter(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.enter(IntGaugeVec::new(Self::opts(name, help), labels))
    }

    fn time(&self, name: &str, help: &str) -> Histogram {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(SECONDS.to_vec());
        self.enter(Histogram::with_opts(opts))
    }

    fn times(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(SECONDS.to_vec());
        self.enter(HistogramVec::new(opts, labels))
    }

    fn sizes(&self, name: &str, help: &str) -> Histogram {
        let bounds = vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(bounds);
        self.enter(Histogram::with_opts(opts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_what_was_counted() {
        let metrics = Metrics::new();
        metrics.requests.with_label_values(&["terra", "200"]).inc();
        assert!(
            metrics.text().contains("bridge_requests_total{status=\"200\",vendor=\"terra\"} 1")
        );
    }
}
