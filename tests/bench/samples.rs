//! What samples cost decide, each: plan and decide of batches of buckets, full and thin, new and known.
//! `cargo bench --bench samples`; a figure is for all samples of a batch, so the throughput is the one to read.

#![expect(clippy::expect_used, reason = "a benchmark that panics has failed")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

use biometric_bridge::model::avro::{Codec, SchemaIds};
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::event::{
    Content, Merge, NORMALISER, NormalisedRecord, Op, Origin, Reading, flag,
};
use biometric_bridge::model::id::{ConnectionId, EventId, Source, User};
use biometric_bridge::model::metric;
use biometric_bridge::model::record::{Headers, Record};
use biometric_bridge::model::state::Known;
use biometric_bridge::model::time::Day;
use biometric_bridge::pipeline::decide::Decide;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECOND: i64 = 1_000_000;
const DAY_ONE: i32 = 20_000;

/// What a batch is made of.
#[derive(Clone, Copy)]
struct Shape {
    metric: &'static str,
    /// Buckets, each one record.
    buckets: i32,
    /// Samples of each.
    samples: i64,
    /// Of which this is the first.
    from: i64,
    derived: bool,
    /// Which receipt.
    receipt: i64,
}

const BEATS: Shape = Shape {
    metric: "heart_rate",
    buckets: 40,
    samples: 1_000,
    from: 0,
    derived: false,
    receipt: 1,
};

fn codec() -> Arc<Codec> {
    let ids = SchemaIds { normalised: 1, events: 2, terra_events: 2 };
    Arc::new(Codec::new(ids).expect("our schemas"))
}

fn reading(shape: &Shape, day: i32, number: i64) -> Reading {
    let metric = metric::find(shape.metric).expect("a metric");
    let start = Day(day).start_utc_us() + number * 80 * SECOND;
    let turn = u8::try_from(number % 4).expect("small");
    let value = i32::try_from(60 + number % 40 + shape.receipt).expect("small");
    let mut reading = match metric.symbols.get(usize::from(turn)) {
        Some(symbol) => metric.symbol(symbol, start, Some(start + 80 * SECOND)).expect("a symbol"),
        None => metric.reading(f64::from(value), start, None),
    };
    let seed = u128::from((i64::from(day) * 100_000 + number).unsigned_abs());
    let id = Uuid::from_u128(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    reading.sample_id = Some(id.to_string());
    reading.flags.extend(shape.derived.then(|| flag::DERIVED_ID.to_owned()));
    reading
}

fn record(shape: &Shape, bucket: i32) -> NormalisedRecord {
    let day = DAY_ONE + bucket;
    let user_id = User::parse("app-user-77").expect("a user");
    let connection_id = ConnectionId::derive("healthkit", "phone", &user_id);
    let record_type = format!("samples.{}", shape.metric);
    let record_id = format!("{}|com.apple.health.5E0A11F2|Watch7,5", Day(day));
    NormalisedRecord {
        event_id: EventId::derive(connection_id, &record_type, &record_id),
        user_id,
        connection_id,
        vendor: "healthkit".to_owned(),
        device_type: "apple".to_owned(),
        via: "direct".to_owned(),
        record_type,
        record_id,
        merge: Merge::Union,
        op: Op::Upsert,
        version: None,
        received_at: Day(day + 2_000).start_utc_us() + shape.receipt * SECOND,
        source: Source {
            topic: Topic::RawWebhooks,
            partition: 0,
            offset: shape.receipt,
            index: bucket,
        },
        origin: Origin::Live,
        normaliser: NORMALISER,
        content: Content {
            start_offset_s: Some(7200),
            end_offset_s: Some(7200),
            offset_provenance: "device".to_owned(),
            state: "final".to_owned(),
            app: Some("com.apple.health.5E0A11F2".to_owned()),
            device_model: Some("Watch7,5".to_owned()),
            recording_method: Some("automatic".to_owned()),
            readings: (shape.from..shape.from + shape.samples)
                .map(|number| reading(shape, day, number))
                .collect(),
            ..Content::default()
        },
    }
}

fn batch(codec: &Codec, records: impl Iterator<Item = NormalisedRecord>) -> Vec<Record> {
    let input = |(offset, record): (i64, NormalisedRecord)| Record {
        topic: Topic::NormalisedRecords,
        partition: 0,
        offset,
        timestamp_ms: 0,
        key: None,
        headers: Headers::new(),
        value: Some(Bytes::from(codec.encode_record(&record).expect("bytes"))),
    };
    (0..).zip(records).map(input).collect()
}

fn of_shape(codec: &Codec, shape: &Shape) -> Vec<Record> {
    batch(codec, (0..shape.buckets).map(|bucket| record(shape, bucket)))
}

/// What is known after these.
fn after(step: &Decide, before: &[Record]) -> Known {
    let (_, read) = step.plan(before);
    let outcome = step.decide(before, read, Known::default()).expect("decided");
    Known { buckets: outcome.buckets, waiting: BTreeMap::new(), ..Known::default() }
}

fn decide(criterion: &mut Criterion) {
    let codec = codec();
    let step = Decide::new(Arc::clone(&codec));
    let mut group = criterion.benchmark_group("samples");
    group.sample_size(20);
    let thin = Shape { buckets: 500, samples: 18, ..BEATS };
    let sleep = Shape { metric: "sleep_stage", buckets: 500, samples: 30, ..BEATS };
    let few = |samples, from| Shape { buckets: 1, samples, from, ..BEATS };
    let derived = Shape { metric: "steps", buckets: 20, samples: 1_440, derived: true, ..BEATS };
    let again = Shape { receipt: 2, ..derived };
    let cases: [(&str, Option<Shape>, Shape); 10] = [
        ("40 x 1000 new", None, BEATS),
        ("40 x 1000 known", Some(BEATS), BEATS),
        ("500 x 18 new", None, thin),
        ("500 x 18 known", Some(thin), thin),
        ("10 onto 1000", Some(few(1_000, 0)), few(10, 1_000)),
        ("10 onto 10000", Some(few(10_000, 0)), few(10, 10_000)),
        ("20 x 1440 derived, new", None, derived),
        ("20 x 1440 derived, replaced", Some(derived), again),
        ("500 nights new", None, sleep),
        ("500 nights known", Some(sleep), sleep),
    ];
    for (name, before, shape) in cases {
        let known = before.map(|before| after(&step, &of_shape(&codec, &before)));
        let known = known.unwrap_or_default();
        let batch = of_shape(&codec, &shape);
        let samples = i64::from(shape.buckets) * shape.samples;
        group.throughput(Throughput::Elements(samples.unsigned_abs()));
        group.bench_function(name, |bench| {
            bench.iter_batched(
                || known.clone(),
                |known| {
                    let (_, read) = step.plan(black_box(&batch));
                    step.decide(&batch, read, known)
                },
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("{name}: read and plan alone"), |bench| {
            bench.iter(|| step.plan(black_box(&batch)));
        });
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
