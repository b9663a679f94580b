//! What the pure steps cost, each alone: parse, normalise, plan and decide, encode. `cargo bench --bench micro`.
//!
//! Batches are of 500, as under load, so a figure divided by 500 is a record's.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that panics has failed"
)]

#[path = "bodies.rs"]
mod bodies;

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use biometric_bridge::model::avro::{Codec, SchemaIds};
use biometric_bridge::model::connection::Connection;
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::record::{OutRecord, Record};
use biometric_bridge::model::state::{Current, Known, Outcome, Revision};
use biometric_bridge::pipeline::decide::Decide;
use biometric_bridge::pipeline::normalise::{Normalise, Unknown};
use biometric_bridge::vendors::{Raw, find};

/// Records of a batch.
const BATCH: u64 = 500;
/// People in it.
const PEOPLE: u64 = 200;
/// When all of it was received, µs: a fixed moment, so that runs compare.
const NOW: i64 = 1_780_000_000_000_000;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn codec() -> Arc<Codec> {
    let ids = SchemaIds { normalised: 1, events: 2, terra_events: 2 };
    Arc::new(Codec::new(ids).expect("our schemas"))
}

/// The batch as normalise reads it.
fn raw_batch(push: Option<u64>) -> (Vec<Record>, Vec<Connection>) {
    let people: Vec<_> = (0..PEOPLE).map(bodies::person).collect();
    let count = if push.is_some() { 4 } else { BATCH };
    let records = (0..count).map(|number| {
        let person = &people[usize::try_from(number % PEOPLE).expect("small")];
        let (sent, user) = match push {
            Some(samples) => {
                (bodies::push(person, number, samples, NOW), person.connection.to_string())
            }
            None => (bodies::night(person, number, NOW), person.terra_user.clone()),
        };
        let (key, headers, value) = bodies::raw(&sent, &user, NOW);
        Record {
            topic: Topic::RawWebhooks,
            partition: 0,
            offset: i64::try_from(number).expect("small"),
            timestamp_ms: NOW / 1000,
            key: Some(Bytes::from(key)),
            headers,
            value: Some(value),
        }
    });
    (records.collect(), people.iter().flat_map(bodies::connections).collect())
}

/// What normalise wrote, as decide reads it.
fn normalised(out: Vec<OutRecord>) -> Vec<Record> {
    let record = |(offset, out): (usize, OutRecord)| Record {
        topic: out.topic,
        partition: 0,
        offset: i64::try_from(offset).expect("small"),
        timestamp_ms: NOW / 1000,
        key: out.key,
        headers: out.headers,
        value: out.value,
    };
    out.into_iter().enumerate().map(record).collect()
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, push) in [("terra night 2 KB", None), ("healthkit 2500 samples", Some(2_500))] {
        let (batch, _) = raw_batch(push);
        let record = &batch[0];
        let vendor = find(if push.is_some() { "healthkit" } else { "terra" }).expect("a vendor");
        let body = record.value.as_ref().expect("a body");
        let raw = Raw { headers: &record.headers, body, received_at: NOW };
        group.throughput(Throughput::Bytes(body.len().try_into().expect("small")));
        group.bench_function(name, |bench| bench.iter(|| vendor.parse(black_box(&raw))));
    }
    group.finish();
}

fn normalise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("normalise");
    group.sample_size(20);
    let step = Normalise::new(codec(), Unknown::Hold);
    let cases = [("500 nights", None, BATCH), ("4 pushes of 2500 samples", Some(2_500), 10_000)];
    for (name, push, elements) in cases {
        let (batch, connections) = raw_batch(push);
        let (_, read) = step.read(&batch);
        let (notes, out) = step.convert(&batch, read, connections.clone(), NOW);
        assert!(notes.is_empty() && !out.is_empty(), "every record is converted");
        group.throughput(Throughput::Elements(elements));
        group.bench_function(format!("read and convert {name}"), |bench| {
            bench.iter_batched(
                || connections.clone(),
                |connections| {
                    let (_, read) = step.read(black_box(&batch));
                    step.convert(&batch, read, connections, NOW)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A batch as decide reads it.
fn normalised_batch(codec: &Arc<Codec>) -> Vec<Record> {
    let (batch, connections) = raw_batch(None);
    let step = Normalise::new(Arc::clone(codec), Unknown::Hold);
    let (_, read) = step.read(&batch);
    normalised(step.convert(&batch, read, connections, NOW).1)
}

/// What becomes of it where nothing is known yet.
fn first(step: &Decide, batch: &[Record]) -> Outcome {
    let (_, read) = step.plan(batch);
    let first = step.decide(batch, read, Known::default()).expect("decided");
    assert_eq!(first.revisions.len(), batch.len(), "each is new");
    first
}

fn decide(criterion: &mut Criterion) {
    let codec = codec();
    let batch = normalised_batch(&codec);
    let step = Decide::new(codec);
    let first = first(&step, &batch);
    let current = |row: &Revision| {
        let known =
            Current { revision: row.revision, place: row.place, op: row.op, hash: row.hash };
        (row.event_id, known)
    };
    let revisions = first.revisions.iter().map(current).collect();
    let seen = Known { revisions, ..Known::default() };
    let mut group = criterion.benchmark_group("decide");
    group.sample_size(20);
    group.throughput(Throughput::Elements(BATCH));
    for (name, known) in [("500 new", Known::default()), ("500 duplicates", seen)] {
        group.bench_function(format!("plan and decide {name}"), |bench| {
            bench.iter_batched(
                || known.clone(),
                |known| {
                    let (_, read) = step.plan(black_box(&batch));
                    step.decide(&batch, read, known)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let codec = codec();
    let batch = normalised_batch(&codec);
    let outcome = first(&Decide::new(Arc::clone(&codec)), &batch);
    let row = outcome.revisions.into_iter().next().expect("one");
    let event = codec.decode_event(&row.event).expect("an event");
    let mut group = criterion.benchmark_group("avro");
    group.throughput(Throughput::Bytes(row.event.len().try_into().expect("small")));
    group.bench_function("encode an event", |bench| {
        bench.iter(|| codec.encode_event(Topic::TerraBiometricEvents, black_box(&event)));
    });
    group.bench_function("decode an event", |bench| {
        bench.iter(|| codec.decode_event(black_box(&row.event)));
    });
    group.finish();
}

criterion_group!(benches, parse, normalise, decide, encode);
criterion_main!(benches);
