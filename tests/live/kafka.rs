//! What the adapters of Kafka promise beyond the laws: bounds, deadlines, latency, operators' commands.

#![expect(clippy::unwrap_used, reason = "a test that panics fails, which is what it is for")]

use std::time::{Duration, Instant};

use biometric_bridge::commands::{schemas, topics};
use biometric_bridge::error::Kind;
use biometric_bridge::kafka::admin::check;
use biometric_bridge::kafka::consumer::Member;
use biometric_bridge::kafka::producer::Sending;
use biometric_bridge::kafka::reader::Picker;
use biometric_bridge::kafka::registry::{self, Registry};
use biometric_bridge::kafka::settings::{GroupProtocol, OutOfRange};
use biometric_bridge::kafka::transactional::Transactional;
use biometric_bridge::model::contract::Topic;
use biometric_bridge::model::record::{Headers, OutRecord};
use biometric_bridge::model::state::Coordinates;
use biometric_bridge::stream::{Log, Publisher, Reader, Sender, TxnError};
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use crate::laws::{self, Broker, PARTITIONS, fill, output, until, until_owns};
use crate::log_laws::{GROUP, Live};
use crate::world::{Topics, prefix, registry as registry_url, settings};

const CLASSIC: GroupProtocol = GroupProtocol::Classic;

#[expect(clippy::disallowed_methods, reason = "a test that measures")]
fn now() -> Instant {
    Instant::now()
}

fn record(topic: Topic, key: &str, value: Vec<u8>) -> OutRecord {
    OutRecord {
        topic,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        headers: Headers::new().with("origin", "live"),
        value: Some(Bytes::from(value)),
    }
}

#[tokio::test]
async fn what_is_acknowledged_can_be_read_by_its_coordinates() {
    let live = Live::new("sender", CLASSIC).await;
    let sending = Sending::start(&live.settings, "test").unwrap();
    let first = record(Topic::NormalisedRecords, "u1", b"one".to_vec());
    let at = sending.send(first.clone()).await.unwrap();
    let again = sending.send(first.clone()).await.unwrap();
    assert_eq!((again.partition, again.offset), (at.partition, at.offset + 1), "one key, in order");
    let mut picker = Picker::new(&live.settings).unwrap();
    let read = picker.read(at).await.unwrap().unwrap();
    assert_eq!((read.partition, read.offset), (at.partition, at.offset));
    assert_eq!((read.key, read.headers, read.value), (first.key, first.headers, first.value));
    let beyond = Coordinates { offset: at.offset + 2, ..at };
    assert_eq!(picker.read(beyond).await.unwrap(), None);
    let below = Coordinates { offset: -1, ..at };
    assert_eq!(picker.read(below).await.unwrap(), None);
    assert!(sending.drained(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_transactions_marker_is_no_record() {
    let live = Live::new("marker", CLASSIC).await;
    let mut log = live.member();
    until_owns(&mut log, 4).await;
    let mut publisher = live.publisher("0");
    publisher.open().await.unwrap();
    fill(&mut publisher, "one", &[(0, 1, "v1:a".into())], &log.metadata()).await.unwrap();
    publisher.commit().await.unwrap();
    let visible = live.visible().await;
    let at = Coordinates {
        topic: Topic::BiometricEvents,
        partition: visible[0].partition,
        offset: visible[0].offset,
    };
    let mut picker = Picker::new(&live.settings).unwrap();
    assert_eq!(picker.read(at).await.unwrap().unwrap().value, visible[0].value);
    assert_eq!(picker.read(Coordinates { offset: 1, ..at }).await.unwrap(), None);
    publisher.drop_producer().await;
}

#[tokio::test]
async fn a_large_record_passes_whole() {
    let live = Live::new("large", CLASSIC).await;
    let sending = Sending::start(&live.settings, "test").unwrap();
    let value: Vec<u8> = (0..=250_u8).cycle().take(15 << 20).collect();
    let large = record(Topic::NormalisedRecords, "u1", value);
    let at = sending.send(large.clone()).await.unwrap();
    let mut log = live.member();
    until_owns(&mut log, 4).await;
    log.seek(at.partition, 0).await.unwrap();
    let read = laws::read(&mut log, &[at.partition], 1).await;
    assert_eq!(read[0].value, large.value);
    let beyond = record(Topic::NormalisedRecords, "u1", vec![0; 17 << 20]);
    assert_eq!(sending.send(beyond).await.unwrap_err().kind, Kind::PayloadTooLarge);
}

/// The regression of `kafka.md` §0 finding 1: a commit with nothing in flight costs no quantum of 100 ms.
#[tokio::test]
async fn a_commit_costs_milliseconds() {
    let live = Live::new("latency", CLASSIC).await;
    let mut log = live.member();
    until_owns(&mut log, 4).await;
    let mut publisher = live.publisher("0");
    publisher.open().await.unwrap();
    let records: Vec<OutRecord> =
        (0..50).map(|at| record(Topic::BiometricEvents, &format!("u{at}"), vec![7; 500])).collect();
    let (mut sends, mut offsets, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for batch in 0..60_i64 {
        let metadata = log.metadata();
        publisher.begin().await.unwrap();
        let begun = now();
        publisher.send(&records).await.unwrap();
        let sent = now();
        let marks = [(0, batch + 1, "v1:a".to_owned())];
        publisher.send_offsets(Topic::NormalisedRecords, &marks, &metadata).await.unwrap();
        let put = now();
        publisher.commit().await.unwrap();
        if batch >= 10 {
            sends.push(sent - begun);
            offsets.push(put - sent);
            commits.push(put.elapsed());
        }
    }
    for (name, times) in
        [("send 50", &mut sends), ("send_offsets", &mut offsets), ("commit", &mut commits)]
    {
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{name}: p50 {median:?}, max {worst:?}");
    }
    assert!(commits[commits.len() / 2] < Duration::from_millis(40), "a quantum is back");
    assert!(!publisher.disturbed());
    publisher.drop_producer().await;
}

/// Queues that are far too small, a slow reader: everything comes once and in order, and without holes in time.
#[tokio::test]
async fn a_full_queue_holds_back_and_loses_nothing() {
    let mut live = Live::new("pressure", CLASSIC).await;
    live.settings.partition_queue_bytes_max = 20_000;
    live.settings.fetch_queue_bytes_max = 40_000;
    const EACH: u32 = 1500;
    for partition in 0..PARTITIONS {
        let values: Vec<Vec<u8>> =
            (0..EACH).map(|at| [at.to_be_bytes().as_slice(), &[0; 400]].concat()).collect();
        live.put_bytes(partition, &values);
    }
    let mut log = live.member();
    until_owns(&mut log, 4).await;
    for partition in 0..PARTITIONS {
        log.seek(partition, 0).await.unwrap();
    }
    let all = [0, 1, 2, 3];
    let begun = now();
    let mut next = [0_i64; 4];
    let mut largest = 0;
    while next.iter().sum::<i64>() < i64::from(EACH) * 4 {
        log.wait(Duration::from_millis(200)).await;
        let mut waiting = 0;
        loop {
            let batch = log.take(&all, 37, 1 << 20);
            waiting += batch.len();
            for record in &batch {
                let at = usize::try_from(record.partition).unwrap();
                assert_eq!(record.offset, next[at], "partition {at}");
                next[at] += 1;
            }
            if batch.is_empty() {
                break;
            }
        }
        largest = largest.max(waiting);
        assert!(begun.elapsed() < Duration::from_secs(40), "stalled at {next:?}");
    }
    println!("{} records in {:?}, at most {largest} waited", EACH * 4, begun.elapsed());
    assert!(largest < 600, "{largest} records waited: the bound does not hold");
    assert!(begun.elapsed() < Duration::from_secs(20), "holes of a second");
}

/// A worker that does not come back: after 5 s the partition goes, and its producer cannot commit any more.
#[tokio::test]
async fn who_does_not_release_is_condemned() {
    for protocol in [CLASSIC, GroupProtocol::Consumer] {
        let live = Live::new("condemned", protocol).await;
        let mut publisher = live.publisher("0");
        let mut first = Member::join(
            &live.settings,
            GROUP,
            Topic::NormalisedRecords,
            OutOfRange::Recover,
            Some(publisher.condemn()),
        )
        .unwrap();
        until_owns(&mut first, 4).await;
        publisher.open().await.unwrap();
        let metadata = first.metadata();
        let marks = [(0, 1, "v1:a".to_owned())];
        fill(&mut publisher, "late", &marks, &metadata).await.unwrap();
        let mut second = live.member();
        until(&mut first, |owned| owned.iter().any(|part| part.revoking)).await;
        let asked = now();
        until(&mut first, |owned| owned.iter().all(|part| !part.revoking)).await;
        let waited = asked.elapsed();
        until(&mut second, |owned| !owned.is_empty()).await;
        let taken = asked.elapsed();
        println!("{protocol:?}: given up after {waited:?}, taken over after {taken:?}");
        assert!(waited > Duration::from_millis(4500), "{waited:?}");
        assert!(waited < Duration::from_millis(6500), "{waited:?}");
        assert!(taken < Duration::from_secs(12), "{taken:?}");
        assert!(matches!(publisher.commit().await, Err(TxnError::Lost(_))));
        publisher.abort().await;
        publisher.drop_producer().await;
        publisher.open().await.unwrap();
        assert_eq!(live.visible().await, []);
        publisher.drop_producer().await;
    }
}

/// A member that leaves in good order hands over at once: nobody waits for its session to expire.
#[tokio::test]
async fn who_leaves_hands_over_at_once() {
    for protocol in [CLASSIC, GroupProtocol::Consumer] {
        let live = Live::new("leaving", protocol).await;
        let mut first = live.member();
        let owned = until_owns(&mut first, 4).await;
        for part in owned {
            first.release(part.partition, part.term);
        }
        let leaving = first.leaving();
        drop(first);
        assert!(leaving.left(Duration::from_secs(5)).await);
        let begun = now();
        let mut second = live.member();
        until_owns(&mut second, 4).await;
        println!("{protocol:?}: taken over in {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_millis(5500));
    }
}

async fn overtaken(live: &Live) {
    live.put(1, &["a", "b", "c", "d"]).await;
    let admin: AdminClient<DefaultClientContext> = live.config().create().unwrap();
    let mut list = TopicPartitionList::new();
    let name = live.settings.physical(Topic::NormalisedRecords.name());
    list.add_partition_offset(&name, 1, Offset::Offset(3)).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
}

/// A position below the log's start (retention overtook it) or beyond its end (another log): all partitions become
/// new tasks, and the bounds tell their recovery why. Nothing is handed out before it.
#[tokio::test]
async fn a_position_outside_of_the_log_makes_new_tasks() {
    let live = Live::new("overtaken", CLASSIC).await;
    overtaken(&live).await;
    let mut log = live.member();
    let mut before = until_owns(&mut log, 4).await;
    for outside in [1, 100] {
        log.seek(1, outside).await.unwrap();
        let moved = until(&mut log, |owned| owned.iter().all(|part| !before.contains(part))).await;
        assert_eq!(moved.len(), 4);
        assert_eq!(log.take(&[1], 9, 1 << 20), []);
        assert_eq!(log.bounds(1).await.unwrap(), (3, 4));
        before = moved;
    }
    log.seek(1, 3).await.unwrap();
    assert_eq!(laws::values(&laws::read(&mut log, &[1], 1).await), ["d"]);
}

/// Normalise goes on with what there is: the bytes that are gone are gone for everybody.
#[tokio::test]
async fn a_reader_of_raw_records_goes_on_with_the_first_there_is() {
    let live = Live::new("jump", CLASSIC).await;
    overtaken(&live).await;
    let topic = Topic::NormalisedRecords;
    let mut log =
        Member::join(&live.settings, "normalise", topic, OutOfRange::Earliest, None).unwrap();
    let before = until_owns(&mut log, 4).await;
    log.seek(1, 1).await.unwrap();
    assert_eq!(laws::values(&laws::read(&mut log, &[1], 1).await), ["d"]);
    assert_eq!(log.owned(), before);
}

/// Markers of transactions leave holes in the offsets: they are looked at twice, and then they are holes.
#[tokio::test]
async fn holes_in_the_offsets_are_no_loss() {
    let live = Live::new("holes", CLASSIC).await;
    let mut publisher = live.publisher("0");
    publisher.open().await.unwrap();
    for round in 0..4 {
        publisher.begin().await.unwrap();
        publisher.send(&[output(&format!("r{round}"))]).await.unwrap();
        publisher.commit().await.unwrap();
    }
    publisher.drop_producer().await;
    let topic = Topic::BiometricEvents;
    let mut log = Member::join(&live.settings, "neuros", topic, OutOfRange::Recover, None).unwrap();
    let owned = until_owns(&mut log, 4).await;
    for part in &owned {
        log.seek(part.partition, 0).await.unwrap();
    }
    let records = laws::read(&mut log, &[0, 1, 2, 3], 4).await;
    assert_eq!(laws::values(&records), ["r0", "r1", "r2", "r3"]);
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 2, 4, 6]);
    assert_eq!(log.owned(), owned);
}

/// Metadata that nobody's membership is behind never reaches the broker.
#[tokio::test]
async fn metadata_without_an_object_is_refused_here() {
    let live = Live::new("nobody", CLASSIC).await;
    let mut log = live.member();
    until_owns(&mut log, 4).await;
    let mut publisher = live.publisher("0");
    publisher.open().await.unwrap();
    let mut metadata = log.metadata();
    metadata.native = None;
    let refused = fill(&mut publisher, "x", &[(0, 1, "v1:a".into())], &metadata).await;
    assert!(matches!(refused, Err(TxnError::Abortable { member: true, .. })), "{refused:?}");
    publisher.abort().await;
    publisher.drop_producer().await;
}

/// A worker that ends while it holds an open transaction leaves nothing behind and nobody waiting for long.
#[tokio::test]
async fn an_abandoned_publisher_ends_with_its_member() {
    let live = Live::new("abandoned", CLASSIC).await;
    let mut publisher = Transactional::new(&live.settings, GROUP, "0");
    let topic = Topic::NormalisedRecords;
    let condemn = Some(publisher.condemn());
    let mut log = Member::join(&live.settings, GROUP, topic, OutOfRange::Recover, condemn).unwrap();
    until_owns(&mut log, 4).await;
    publisher.open().await.unwrap();
    publisher.begin().await.unwrap();
    publisher.send(&[output("open")]).await.unwrap();
    let leaving = log.leaving();
    drop(log);
    assert!(leaving.left(Duration::from_secs(10)).await);
    assert!(matches!(publisher.commit().await, Err(TxnError::Lost(_))));
}

#[tokio::test]
async fn topics_are_planned_applied_and_checked() {
    let prefix = prefix("topics");
    let topics = Topics::under(&prefix);
    let mut settings = settings(&prefix, CLASSIC);
    let missing = check(&settings, &Topic::ALL, false).await.unwrap_err();
    assert!(missing.doing.contains("topics apply"), "{missing}");
    let planned = topics::plan(&settings).await.unwrap();
    assert_eq!(planned, Topic::ALL.map(topics::Step::Create));
    assert_eq!(topics::plan(&settings).await.unwrap(), planned, "a plan changes nothing");
    assert_eq!(topics::apply(&settings).await.unwrap(), planned);
    wait_for_topics(&settings).await;
    assert_eq!(topics::plan(&settings).await.unwrap(), Topic::ALL.map(topics::Step::Keep));
    check(&settings, &Topic::ALL, false).await.unwrap();
    let poor = check(&settings, &Topic::ALL, true).await.unwrap_err();
    assert!(poor.doing.contains("production"), "{poor}");

    settings.retention_hours_max = Some(12);
    let altered = topics::apply(&settings).await.unwrap();
    assert!(altered.iter().all(|step| matches!(step, topics::Step::Alter(..))));
    assert_eq!(topics::plan(&settings).await.unwrap(), Topic::ALL.map(topics::Step::Keep));
    let table = topics::describe(&settings).await.unwrap();
    assert!(table.contains("12 h") && table.contains("raw-webhooks"), "{table}");
    drop(topics);
}

async fn wait_for_topics(settings: &biometric_bridge::kafka::settings::Settings) {
    for _ in 0..50 {
        if check(settings, &Topic::ALL, false).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_topic_with_other_partitions_is_refused_whole() {
    let prefix = prefix("rekey");
    let _topics = Topics::create(&prefix, &[Topic::NormalisedRecords], 3).await;
    let settings = settings(&prefix, CLASSIC);
    let planned = topics::plan(&settings).await.unwrap();
    assert!(topics::refuses(&planned));
    assert!(topics::text(&planned).contains("! refuse  normalised-records"));
    assert_eq!(topics::apply(&settings).await.unwrap_err().code, "refused");
    assert_eq!(topics::plan(&settings).await.unwrap(), planned, "nothing was done");
    let other = check(&settings, &[Topic::NormalisedRecords], false).await.unwrap_err();
    assert!(other.doing.contains("topics plan"), "{other}");
}

const V1: &str = r#"{"type":"record","name":"E","namespace":"live","fields":[
    {"name":"a","type":"string"}]}"#;
const V2: &str = r#"{"type":"record","name":"E","namespace":"live","fields":[
    {"name":"a","type":"string"},{"name":"b","type":"long","default":0}]}"#;
const BROKEN: &str = r#"{"type":"record","name":"E","namespace":"live","fields":[
    {"name":"a","type":"long"}]}"#;

#[tokio::test]
async fn schemas_are_checked_applied_and_kept_compatible() {
    let prefix = prefix("schemas");
    let text = format!("url = \"{}\"\ntimeout_ms = 5000", registry_url());
    let settings: registry::Settings = toml::from_str(&text).unwrap();
    let registry = Registry::new(&settings).unwrap();
    let subject = format!("{prefix}e-value");
    let missing = registry.id(&subject, V1).await.unwrap_err();
    assert_eq!((missing.kind, missing.code.as_str()), (Kind::SchemaError, subject.as_str()));
    let ours = |schema| [("e-value", schema)];
    assert!(!schemas::good(&schemas::check(&registry, &prefix, &ours(V1)).await.unwrap()));
    let done = schemas::apply(&registry, &prefix, &ours(V1)).await.unwrap();
    println!("{}", schemas::text(&done));
    assert_eq!(registry.level(&subject).await.unwrap().as_deref(), Some(registry::LEVEL));
    let first = registry.id(&subject, V1).await.unwrap();
    assert!(schemas::good(&schemas::check(&registry, &prefix, &ours(V1)).await.unwrap()));
    schemas::apply(&registry, &prefix, &ours(V2)).await.unwrap();
    let second = registry.id(&subject, V2).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(registry.id(&subject, V1).await.unwrap(), first, "an older binary writes on");
    assert_eq!(registry.latest(&subject).await.unwrap().unwrap().0, second);
    let refused = schemas::check(&registry, &prefix, &ours(BROKEN)).await.unwrap();
    assert_eq!(refused, [schemas::Step::Refuse(subject.clone())]);
    let error = schemas::apply(&registry, &prefix, &ours(BROKEN)).await.unwrap_err();
    assert_eq!(error.kind, Kind::SchemaError);
    assert_eq!(registry.latest(&subject).await.unwrap().unwrap().0, second, "nothing was done");
    let gone = format!("{}/subjects/{subject}", registry_url());
    reqwest::Client::new().delete(gone).send().await.unwrap();
}

/// After an abort the slot is open again within a fraction of the session: aborts are routine.
#[tokio::test]
async fn a_producer_is_replaced_quickly() {
    let live = Live::new("replace", CLASSIC).await;
    let mut publisher = live.publisher("0");
    for round in 0..4 {
        let begun = now();
        publisher.open().await.unwrap();
        let opened = begun.elapsed();
        publisher.begin().await.unwrap();
        publisher.send(&[output("x")]).await.unwrap();
        let begun = now();
        publisher.abort().await;
        let aborted = begun.elapsed();
        let begun = now();
        publisher.drop_producer().await;
        let dropped = begun.elapsed();
        println!("{round}: opened in {opened:?}, aborted in {aborted:?}, dropped in {dropped:?}");
        assert!(opened + aborted + dropped < Duration::from_secs(3));
    }
}
