//! A vendor whose bodies say what its items are, so that each promise of the step is a line.

use super::*;
use crate::model::avro::SchemaIds;
use crate::model::connection::FOR_EVER;
use crate::model::event::{Content, Op, Reading};
use crate::vendors::{KeyUser, Request, Secrets, Verified};

/// A body is words: `rec:U:ID`, `fetch:U:ID`, `gone:U:ID`, `begin:U:OURS`, `end:U`, `rename:OLD:NEW`, `skip`, `bad`,
/// `odd`, `lost`, `union:U:COUNT`, `removal:U:COUNT`, `huge:U`. A body of `!` cannot be read.
struct Scripted;

static SCRIPTED: Scripted = Scripted;

fn find(name: &str) -> Option<&'static dyn Vendor> {
    if name == "scripted" { Some(&SCRIPTED) } else { None }
}

fn reading(index: usize) -> Reading {
    Reading {
        metric: "heart_rate".into(),
        value: Some(60.0),
        symbol: None,
        unit: Some("/min".into()),
        start_at: 1,
        end_at: None,
        sample_id: Some(format!("{index:036}")),
        method: None,
        window_s: None,
        context: None,
        flags: Vec::new(),
    }
}

fn said(id: &str, op: Op) -> Box<VendorRecord> {
    Box::new(VendorRecord {
        device_type: "ring".into(),
        via: "direct",
        record_type: "sleep".into(),
        record_id: id.into(),
        merge: Merge::Replace,
        op,
        version: None,
        content: Content::default(),
    })
}

fn what(word: &str) -> (Option<&str>, What) {
    let parts: Vec<&str> = word.split(':').collect();
    let of = |merge, content| {
        let record = VendorRecord { merge, content, ..*said("day", Op::Upsert) };
        What::Record(Box::new(record))
    };
    match parts.as_slice() {
        ["rec", user, id] => (Some(user), What::Record(said(id, Op::Upsert))),
        ["lost"] => (None, What::Record(said("x", Op::Upsert))),
        ["fetch", user, id] => {
            (Some(user), What::Fetch { record_type: "sleep", record_id: (*id).into() })
        }
        ["gone", user, id] => (Some(user), What::Gone(said(id, Op::Delete))),
        ["begin", user, ours] => {
            let user_of_ours = User::parse(ours).expect("a user");
            let change = Change::Begin { vendor_user: (*user).into(), user: user_of_ours };
            (None, What::Connection(change))
        }
        ["end", user] => (None, What::Connection(Change::End { vendor_user: (*user).into() })),
        ["rename", old, new] => {
            let change = Change::Rename { old: (*old).into(), new: (*new).into() };
            (None, What::Connection(change))
        }
        ["union", user, count] => {
            let readings = (0..count.parse().expect("a count")).map(reading).collect();
            (Some(user), of(Merge::Union, Content { readings, ..Content::default() }))
        }
        ["removal", user, count] => {
            let removed =
                (0..count.parse().expect("a count")).map(|at: usize| format!("{at:036}")).collect();
            (Some(user), of(Merge::Removal, Content { removed, ..Content::default() }))
        }
        ["huge", user] => {
            let state = "x".repeat(RECORD_BYTES_MAX + 1);
            (Some(user), of(Merge::Replace, Content { state, ..Content::default() }))
        }
        ["skip"] => (None, What::Ignored("unknown type")),
        ["odd"] => (None, What::Bad(Reject::invalid(Path::root().key("odd"), "odd"))),
        _ => (None, What::Bad(Reject::malformed(Path::root().key("bad"), "bad"))),
    }
}

impl Vendor for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn window_us(&self) -> Micros {
        0
    }

    fn verify(&self, _: &Request<'_>, _: &Secrets<'_>, _: Micros) -> Result<Verified, Kind> {
        Err(Kind::SignatureInvalid)
    }

    fn key_user(&self, _: &Verified, _: &[u8]) -> KeyUser {
        KeyUser::None
    }

    fn parse(&self, raw: &Raw<'_>) -> Result<Vec<Item>, Reject> {
        if raw.body.as_ref() == b"!" {
            return Err(Reject::malformed(Path::root(), "not a body"));
        }
        let words = std::str::from_utf8(raw.body).expect("words");
        let items = (0..).zip(words.split_whitespace()).map(|(index, word)| {
            let (user, what) = what(word);
            Item { index, vendor_user: user.map(str::to_owned), what }
        });
        Ok(items.collect())
    }

    /// As a body, where words were asked for.
    fn document(&self, raw: &Raw<'_>, record_type: &str) -> Result<Vec<Item>, Reject> {
        match record_type {
            "words" => self.parse(raw),
            _ => Err(Reject::invalid(Path::root(), "no words")),
        }
    }
}

fn codec() -> Arc<Codec> {
    let ids = SchemaIds { normalised: 1, events: 2, terra_events: 2 };
    Arc::new(Codec::new(ids).expect("a codec"))
}

fn step(unknown: Unknown) -> Normalise {
    Normalise { codec: codec(), unknown, find, off: Vec::new() }
}

/// A raw record of these words at this offset, received at 1000 + the offset.
fn raw(offset: i64, words: &str) -> Record {
    Record {
        topic: Topic::RawWebhooks,
        partition: 2,
        offset,
        timestamp_ms: 0,
        key: Some(Bytes::from_static(b"scripted:k")),
        headers: Headers::new()
            .with(header::VENDOR, "scripted")
            .with(header::RECEIVED_AT, (1000 + offset).to_string())
            .with(header::TRACEPARENT, "00-trace"),
        value: Some(Bytes::copy_from_slice(words.as_bytes())),
    }
}

fn connected(vendor_user: &str, user: &str) -> Connection {
    let user = User::parse(user).expect("a user");
    Connection {
        id: ConnectionId::derive("scripted", vendor_user, &user),
        vendor: "scripted".into(),
        vendor_user: vendor_user.into(),
        user,
        valid_from: FOR_EVER,
        valid_to: None,
        settled: true,
    }
}

fn convert(words: &[&str], rows: Vec<Connection>) -> (Notes, Vec<OutRecord>) {
    let batch: Vec<Record> = (0..).zip(words).map(|(at, words)| raw(at, words)).collect();
    put_through(&step(Unknown::Hold), &batch, rows)
}

/// As the relay does it: read, then converted by the connections of whom it names.
fn put_through(
    step: &Normalise,
    batch: &[Record],
    rows: Vec<Connection>,
) -> (Notes, Vec<OutRecord>) {
    let (_, read) = step.read(batch);
    step.convert(batch, read, rows, 77)
}

fn read(record: &OutRecord) -> NormalisedRecord {
    assert_eq!(record.topic, Topic::NormalisedRecords);
    codec().decode_record(record.value.as_ref().expect("a value")).expect("a record")
}

fn verdicts(notes: &Notes) -> Vec<(i32, &str, &str)> {
    notes.verdicts.iter().map(|row| (row.source.index, row.verdict, row.reason)).collect()
}

#[test]
fn a_record_is_keyed_by_our_user_and_says_where_it_came_from() {
    let (notes, records) = convert(&["skip rec:v:night"], vec![connected("v", "me")]);
    assert_eq!(verdicts(&notes), [(0, "ignored", "unknown type")]);
    let [record] = records.as_slice() else { panic!("one record") };
    assert_eq!(record.key, Some(Bytes::from_static(b"me")));
    let headers = Headers::new()
        .with(header::ORIGIN, "live")
        .with(header::SOURCE, "raw-webhooks/2/0/1")
        .with(header::TRACEPARENT, "00-trace");
    assert_eq!(record.headers, headers);
    let read = read(record);
    let connection = connected("v", "me").id;
    assert_eq!(read.event_id, EventId::derive(connection, "sleep", "night"));
    assert_eq!((read.vendor.as_str(), read.received_at), ("scripted", 1000));
    assert_eq!(read.source, raw(0, "").source(1));
    assert_eq!((read.origin, read.normaliser), (Origin::Live, NORMALISER));
}

#[test]
fn a_batch_needs_the_users_that_it_names_and_no_others() {
    let batch = [raw(0, "rec:b:1 skip fetch:a:2 gone:b:1"), raw(1, "begin:c:me end:d rename:e:f")];
    let users: Vec<String> =
        step(Unknown::Hold).read(&batch).0.vendor_users.into_iter().map(|(_, user)| user).collect();
    assert_eq!(users, ["a", "b", "c", "d", "e", "f"]);
    let nobody = step(Unknown::Hold).read(&[raw(0, "bad skip"), raw(1, "!")]).0;
    assert_eq!(nobody, Whose::default());
}

#[test]
fn a_connection_counts_for_what_follows_it_in_the_batch() {
    let words = ["rec:v:before begin:v:me rec:v:after", "rename:v:w rec:w:later end:w", "rec:w:no"];
    let (notes, records) = convert(&words, vec![]);
    let ids: Vec<String> = records.iter().map(|record| read(record).record_id).collect();
    assert_eq!(ids, ["after", "later"]);
    assert_eq!(notes.held.len(), 1, "what came before waits for the sweep");
    assert_eq!(notes.held[0].source.index, 0);
    let mut ends = verdicts(&notes);
    ends.retain(|(_, _, why)| *why != "a connection event");
    assert_eq!(ends, [(0, "ignored", "disconnected")]);
    let connections: BTreeSet<ConnectionId> =
        records.iter().map(|record| read(record).connection_id).collect();
    assert_eq!(connections.len(), 1, "a rename keeps the connection");
    assert_eq!(notes.connections.len(), 2);
}

#[test]
fn unknown_users_wait_or_are_derived() {
    let words = "rec:v:1 fetch:v:2 gone:v:3";
    let (notes, records) = convert(&[words], vec![]);
    assert!(records.is_empty());
    let held: Vec<i32> = notes.held.iter().map(|held| held.source.index).collect();
    assert_eq!(held, [0, 1, 2]);
    assert_eq!(notes.held[0].vendor_user, "v");

    let (notes, records) = put_through(&step(Unknown::Derive), &[raw(0, words)], vec![]);
    let user = User::derived("scripted", "v");
    assert_eq!(notes.connections.len(), 1);
    assert_eq!((&notes.connections[0].user, notes.connections[0].valid_from), (&user, FOR_EVER));
    assert!(notes.held.is_empty());
    assert_eq!(records.len(), 2);
    assert_eq!(read(&records[0]).user_id, user);
}

#[test]
fn held_items_are_put_through_by_the_connections_of_now() {
    let record = raw(0, "begin:w:other rec:v:1 bad rec:v:2 rec:v:3");
    let hold = step(Unknown::Hold);
    let (notes, records) = hold.again(&record, &[1, 3, 9], vec![connected("v", "me")], 77);
    let ids: Vec<String> = records.iter().map(|record| read(record).record_id).collect();
    assert_eq!(ids, ["1", "2"], "only the held items, and no dead letter again");
    assert!(notes.connections.is_empty(), "nor a connection");
    assert_eq!(verdicts(&notes), [(9, "ignored", "no such item any more")]);
    assert_eq!(read(&records[0]).origin, Origin::Live);

    let gone = Connection { valid_from: 5000, ..connected("v", "me") };
    let (notes, records) = hold.again(&record, &[1], vec![gone], 77);
    assert!(records.is_empty());
    assert_eq!(verdicts(&notes), [(1, "ignored", "disconnected")]);
}

#[test]
fn a_fetch_and_a_deletion_of_one_record_are_one_row() {
    let rows = vec![connected("v", "me")];
    let (notes, records) = convert(&["fetch:v:1", "fetch:v:1", "gone:v:1"], rows.clone());
    assert!(notes.hydrations.is_empty());
    assert_eq!(notes.ended.len(), 1);
    assert_eq!((notes.ended[0].asked_at, notes.ended[0].source.offset), (1002, 2));
    assert_eq!(records.len(), 1);
    assert_eq!(read(&records[0]).op, Op::Delete);
    let (notes, _) = convert(&["gone:v:1", "fetch:v:1"], rows);
    assert_eq!((notes.hydrations.len(), notes.ended.len()), (1, 0));
    assert_eq!(notes.hydrations[0].asked_at, 1001);
}

#[test]
fn bad_items_are_one_dead_letter_a_kind_and_a_verdict_each() {
    let (notes, records) = convert(&["bad rec:v:1 odd bad lost"], vec![connected("v", "me")]);
    let [record, malformed, odd] = records.as_slice() else { panic!("three records") };
    assert_eq!(read(record).record_id, "1", "its neighbours live");
    assert_eq!(malformed.headers.text(header::INDEXES), Some("0,3,4"));
    assert_eq!(malformed.headers.text(header::COUNT), Some("3"));
    assert_eq!(malformed.headers.text(header::ERROR_MESSAGE), Some("bad at bad"));
    assert_eq!(malformed.headers.text(header::FAILED_AT), Some("77"));
    assert_eq!(malformed.value, raw(0, "bad rec:v:1 odd bad lost").value);
    assert_eq!(odd.headers.text(header::ERROR_TYPE), Some("validation_error"));
    let dead = |index, kind: Kind| (index, "dead_lettered", kind.name());
    let expected = [
        dead(0, Kind::PayloadMalformed),
        dead(2, Kind::ValidationError),
        dead(3, Kind::PayloadMalformed),
        dead(4, Kind::PayloadMalformed),
    ];
    assert_eq!(verdicts(&notes), expected);
}

#[test]
fn what_cannot_be_read_at_all_is_one_dead_letter() {
    let without = |name: &str, value: Option<&str>| {
        let mut record = raw(0, "rec:v:1");
        let kept = record.headers.iter().filter(|(known, _)| *known != name);
        let mut headers = Headers::new();
        kept.for_each(|(name, value)| headers.push(name.to_owned(), value.clone()));
        if let Some(value) = value {
            headers.push(name.to_owned(), value.to_owned());
        }
        record.headers = headers;
        record
    };
    let cases = [
        (raw(0, "!"), Kind::PayloadMalformed),
        (Record { value: None, ..raw(0, "") }, Kind::PayloadMalformed),
        (without(header::VENDOR, None), Kind::UnknownVendor),
        (without(header::VENDOR, Some("nobody")), Kind::UnknownVendor),
        (without(header::RECEIVED_AT, None), Kind::PayloadMalformed),
        (without(header::RECEIVED_AT, Some("-1")), Kind::PayloadMalformed),
        (without(header::RECEIVED_AT, Some("9223372036854775807")), Kind::PayloadMalformed),
        (without(header::ORIGIN, Some("sideways")), Kind::PayloadMalformed),
    ];
    for (record, kind) in cases {
        let (notes, records) = put_through(
            &step(Unknown::Hold),
            std::slice::from_ref(&record),
            vec![connected("v", "me")],
        );
        let [letter] = records.as_slice() else { panic!("one dead letter") };
        assert_eq!(letter.headers.text(header::ERROR_TYPE), Some(kind.name()));
        assert_eq!((&letter.key, &letter.value), (&record.key, &record.value));
        assert_eq!(verdicts(&notes), [(-1, "dead_lettered", kind.name())]);
    }
}

#[test]
fn an_empty_body_is_ignored_because_empty() {
    let (notes, records) = convert(&[""], vec![]);
    assert!(records.is_empty());
    assert_eq!(verdicts(&notes), [(-1, "ignored", "empty")]);
}

#[test]
fn a_probe_of_the_ingress_leaves_nothing() {
    let mut record = raw(0, "rec:v:1");
    record.headers = Headers::new().with(header::VENDOR, PROBE_VENDOR);
    let (notes, records) = put_through(&step(Unknown::Hold), &[record.clone()], vec![]);
    assert!(notes.is_empty() && records.is_empty());
    assert_eq!(step(Unknown::Hold).vendor(&record), PROBE_VENDOR);
    record.headers = Headers::new().with(header::VENDOR, "whatever a sender says");
    assert_eq!(step(Unknown::Hold).vendor(&record), "unknown");
}

#[test]
fn a_replay_gives_records_and_nothing_else() {
    let words = "begin:x:y fetch:v:1 gone:v:2 rec:v:3 rec:u:4 bad skip end:v rec:v:5";
    for (unknown, body) in [(Unknown::Hold, words), (Unknown::Derive, words), (Unknown::Hold, "!")]
    {
        let mut record = raw(0, body);
        record.headers.push(header::ORIGIN, "replay");
        let (notes, records) = put_through(&step(unknown), &[record], vec![connected("v", "me")]);
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(notes.left_out, if body == "!" { 1 } else { 6 }, "what gives none is counted");
        let ids: Vec<String> = records.iter().map(|record| read(record).record_id).collect();
        assert_eq!(ids, if body == "!" { vec![] } else { vec!["2", "3", "5"] });
        assert!(records.iter().all(|record| read(record).origin == Origin::Replay));
    }
}

#[test]
fn a_union_is_split_below_its_bound_and_loses_nothing() {
    let rows = vec![connected("v", "me")];
    for (words, count) in [("union:v:30000", 30_000), ("removal:v:60000", 60_000)] {
        let (notes, records) = convert(&[words], rows.clone());
        assert!(notes.is_empty());
        assert!(records.len() > 1);
        let mut ids = Vec::new();
        for record in &records {
            assert!(record.value.as_ref().expect("a value").len() <= UNION_BYTES_MAX);
            let content = read(record).content;
            ids.extend(content.readings.into_iter().filter_map(|reading| reading.sample_id));
            ids.extend(content.removed);
        }
        let expected: Vec<String> = (0..count).map(|at: usize| format!("{at:036}")).collect();
        assert!(ids == expected, "in order, each once");
    }
    assert_eq!(convert(&["union:v:100"], rows).1.len(), 1);
}

#[test]
fn what_no_topic_takes_is_a_dead_letter_and_not_a_retry_for_ever() {
    let (notes, records) = convert(&["huge:v"], vec![connected("v", "me")]);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].headers.text(header::ERROR_TYPE), Some("payload_too_large"));
    assert_eq!(verdicts(&notes), [(0, "dead_lettered", "payload_too_large")]);
}

#[test]
fn the_same_batch_gives_the_same_however_it_is_cut() {
    let words = ["rec:v:1 begin:v:me", "rec:v:2", "end:v", "rec:v:3", "begin:v:you rec:v:4 bad"];
    let batch: Vec<Record> = (0..).zip(words).map(|(at, words)| raw(at, words)).collect();
    let hold = step(Unknown::Hold);
    let (_, whole) = put_through(&hold, &batch, vec![]);
    for cut in 0..batch.len() {
        let (first, second) = batch.split_at(cut);
        let (notes, mut records) = put_through(&hold, first, vec![]);
        records.extend(put_through(&hold, second, notes.connections).1);
        assert_eq!(records, whole, "cut at {cut}");
    }
}

/// A fetched body of these words, with these headers more.
fn fetched(words: &str, more: &[(&'static str, String)]) -> Record {
    let mut record = Record { topic: Topic::RawDocuments, ..raw(0, words) };
    for (name, value) in more {
        record.headers.push(*name, value.clone());
    }
    record
}

fn asked(record_type: &str, connection: ConnectionId) -> [(&'static str, String); 2] {
    [(header::RECORD_TYPE, record_type.to_owned()), (header::CONNECTION, connection.to_string())]
}

#[test]
fn a_fetched_body_is_read_as_what_was_asked_for() {
    let mine = connected("v", "me");
    let mut headers = asked("words", mine.id).to_vec();
    headers.push((header::ORIGIN, "backfill".to_owned()));
    let record = fetched("rec:v:1 bad fetch:v:2", &headers);
    let (notes, records) =
        put_through(&step(Unknown::Hold), std::slice::from_ref(&record), vec![mine]);
    let [told, letter] = records.as_slice() else { panic!("two records") };
    assert_eq!(told.headers.text(header::SOURCE), Some("raw-documents/2/0/0"));
    assert_eq!(read(told).origin, Origin::Backfill);
    assert_eq!(letter.value, record.value, "the original bytes");
    assert_eq!(letter.headers.text(header::ERROR_MESSAGE), Some("bad at bad"));
    assert_eq!(letter.headers.text(header::ORIGINAL_TOPIC), Some("raw-documents"));
    assert_eq!(notes.hydrations.len(), 1, "a document may name what is still to be fetched");
    let ends = [(1, "dead_lettered", "payload_malformed"), (2, "waiting", "a fetch")];
    assert_eq!(verdicts(&notes), ends);
}

#[test]
fn a_fetched_body_without_its_headers_is_one_dead_letter() {
    let mine = connected("v", "me");
    let whose = (header::CONNECTION, mine.id.to_string());
    for (headers, kind) in [
        (vec![whose], Kind::PayloadMalformed),
        (asked("numbers", mine.id).to_vec(), Kind::ValidationError),
        (
            vec![
                (header::RECORD_TYPE, "words".to_owned()),
                (header::CONNECTION, "app-user".to_owned()),
            ],
            Kind::PayloadMalformed,
        ),
    ] {
        let record = fetched("rec:v:1", &headers);
        let (notes, records) = put_through(&step(Unknown::Hold), &[record], vec![mine.clone()]);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].headers.text(header::ERROR_TYPE), Some(kind.name()));
        assert_eq!(verdicts(&notes), [(-1, "dead_lettered", kind.name())]);
    }
}

#[test]
fn a_fetched_body_is_never_the_next_owners() {
    let before = connected("v", "me");
    let after = Connection { user: User::parse("you").expect("a user"), ..connected("v", "you") };
    for (rows, unknown) in [(vec![after.clone()], Unknown::Hold), (vec![], Unknown::Derive)] {
        let record = fetched("rec:v:1", &asked("words", before.id));
        let (notes, records) = put_through(&step(unknown), &[record], rows);
        assert!(records.is_empty());
        assert_eq!(verdicts(&notes), [(0, "ignored", "disconnected")]);
    }
    let mut replayed = fetched("rec:v:1", &asked("words", before.id));
    replayed.headers.push(header::ORIGIN, "replay");
    let (notes, records) = put_through(&step(Unknown::Hold), &[replayed], vec![after.clone()]);
    assert!(records.is_empty() && notes.is_empty() && notes.left_out == 1);
    let record = fetched("rec:v:1", &asked("words", after.id));
    assert_eq!(put_through(&step(Unknown::Hold), &[record], vec![after]).1.len(), 1);
    let record = fetched("rec:v:1", &asked("words", before.id));
    let (notes, _) = put_through(&step(Unknown::Hold), &[record], vec![]);
    assert_eq!(notes.held.len(), 1, "it waits as any record");
}

/// What Terra wrote itself, in the second 1 of 1970.
fn terras(body: &str) -> Record {
    Record {
        topic: Topic::RawTerra,
        timestamp_ms: 1_000,
        key: None,
        headers: Headers::new(),
        value: Some(Bytes::from(body.to_owned())),
        ..raw(0, "")
    }
}

#[test]
fn facts_what_terra_writes_has_no_key_and_is_dated_by_the_log() {
    let step = Normalise::new(codec(), Unknown::Hold);
    let body = r#"{"type":"athlete","user":{"user_id":"me","provider":"OURA"},"athlete":{}}"#;
    let mine = Connection { vendor: "terra".into(), ..connected("me", "app-user-77") };
    let (_, records) = put_through(&step, &[terras(body)], vec![mine.clone()]);
    let [told] = records.as_slice() else { panic!("{} records", records.len()) };
    let told = read(told);
    assert_eq!((told.vendor.as_str(), told.received_at), ("terra", 1_000_000));
    assert_eq!(told.version, None, "no ordering time: its place is the log's time");
    assert_eq!(told.source.topic, Topic::RawTerra);
    let (notes, _) = put_through(&step, &[terras(body)], vec![]);
    assert_eq!(notes.held.len(), 1, "data before its auth waits");
    // Where the log has no time, none is made up.
    let timeless = Record { timestamp_ms: 0, ..terras(body) };
    let (notes, _) = put_through(&step, &[timeless], vec![mine]);
    assert_eq!(verdicts(&notes), [(-1, "dead_lettered", "payload_malformed")]);
}

#[test]
fn facts_a_pointer_is_no_record_and_no_dead_letter() {
    let step = Normalise::new(codec(), Unknown::Hold);
    let pointer =
        r#"{"type":"s3_payload","url":"https://storage.googleapis.com/b/a","expires_in":600}"#;
    let (notes, records) = put_through(&step, &[terras(pointer)], vec![]);
    assert!(records.is_empty());
    assert_eq!(verdicts(&notes), [(0, "ignored", "a pointer: fetched by the hydrator")]);
}

#[test]
fn facts_what_stood_behind_a_pointer_is_read_as_a_webhooks_body() {
    let step = Normalise::new(codec(), Unknown::Hold);
    let auth = r#"{"type":"auth","status":"success","user":{"user_id":"me","reference_id":"app-user-77"}}"#;
    let headers = [
        (header::VENDOR, "terra"),
        (header::RECEIVED_AT, "1000000"),
        (header::RECORD_TYPE, kafka::PAYLOAD),
    ];
    let headers =
        headers.into_iter().fold(Headers::new(), |all, (name, value)| all.with(name, value));
    let record = Record { topic: Topic::RawDocuments, headers, ..terras(auth) };
    let (notes, _) = put_through(&step, &[record], vec![]);
    assert_eq!(notes.connections.len(), 1, "it may be an auth itself");
}

#[test]
fn a_vendor_that_is_switched_off_is_not_read() {
    let step = || step(Unknown::Hold).without(vec!["scripted".to_owned()]);
    let records = [raw(0, "rec:v:1 bad conn:v:u"), Record { offset: 1, ..raw(1, "never read") }];
    let (notes, out) = put_through(&step(), &records, vec![connected("v", "v")]);
    assert!(out.is_empty() && notes.connections.is_empty() && notes.held.is_empty());
    let why = (-1, "ignored", SWITCHED_OFF);
    assert_eq!(verdicts(&notes), [why, why]);
    let (notes, out) = step().again(&records[0], &[0, 2], vec![connected("v", "v")], 0);
    assert!(out.is_empty());
    assert_eq!(verdicts(&notes), [(0, "ignored", SWITCHED_OFF), (2, "ignored", SWITCHED_OFF)]);
}
