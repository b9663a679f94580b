//! Terra's pointers, followed: from a record of `raw-terra` to a raw document or a dead letter. Log, store and time are
//! played; what is decided of a link is tested where it is decided (`vendors/terra/kafka.rs`).

#![expect(clippy::expect_used, reason = "what a test cannot go on without ends it")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use biometric_bridge::error::{Error, Kind, Result};
use biometric_bridge::hydrator::fetch::Fetched;
use biometric_bridge::hydrator::plan::Outcome;
use biometric_bridge::hydrator::pointer::{Follow, Pointers};
use biometric_bridge::model::contract::{Topic, header};
use biometric_bridge::model::id::PseudonymKey;
use biometric_bridge::model::record::{Headers, OutRecord, Record};
use biometric_bridge::model::state::Coordinates;
use biometric_bridge::stream::stop::Stop;
use biometric_bridge::stream::{Clock, Committed, Log, Metadata, Owned, Sender};
use biometric_bridge::telemetry::metrics::Metrics;
use biometric_bridge::vendors::ask::{Answer, Per};
use biometric_bridge::vendors::terra::kafka::Link;
use bytes::Bytes;

/// When every record was written, ms: 2026-03-29T07:00:00Z.
const WRITTEN_MS: i64 = 1_774_767_600_000;
const BODY: &str = r#"{"type":"sleep","user":{"user_id":"5a3d0e6b"},"data":[]}"#;

/// The world: one partition of `raw-terra`, a store, the log's other topics, the time.
#[derive(Default)]
struct World {
    records: RefCell<Vec<Record>>,
    taken: Cell<usize>,
    term: Cell<u64>,
    committed: Cell<i64>,
    commits: RefCell<Vec<i64>>,
    /// Since the records were written, ms.
    now_ms: Cell<i64>,
    /// What the store answers to whom asks a link, in turn; the last for ever.
    answers: RefCell<BTreeMap<String, Vec<Fetched>>>,
    asked: RefCell<Vec<String>>,
}

#[derive(Clone)]
struct Played(Rc<World>);

impl Log for Played {
    fn topic(&self) -> Topic {
        Topic::RawTerra
    }
    fn owned(&self) -> Vec<Owned> {
        vec![Owned { partition: 0, term: self.0.term.get(), revoking: false }]
    }
    fn metadata(&self) -> Metadata {
        Metadata { generation: 1, member: "m".to_owned(), native: None }
    }
    async fn wait(&mut self, at_most: Duration) {
        self.sleep(at_most).await;
    }
    async fn seek(&mut self, _partition: i32, from: i64) -> Result<()> {
        self.0.taken.set(usize::try_from(from).expect("an offset"));
        Ok(())
    }
    fn take(&mut self, _partitions: &[i32], records_max: usize, _bytes: usize) -> Vec<Record> {
        let from = self.0.taken.get();
        let records: Vec<_> =
            self.0.records.borrow().iter().skip(from).take(records_max).cloned().collect();
        self.0.taken.set(from + records.len());
        records
    }
    async fn committed(&mut self, _partition: i32) -> Result<Option<Committed>> {
        let offset = self.0.committed.get();
        Ok((offset > 0).then_some(Committed { offset, mark: String::new() }))
    }
    async fn bounds(&mut self, _partition: i32) -> Result<(i64, i64)> {
        Ok((0, i64::try_from(self.0.records.borrow().len()).expect("a length")))
    }
    fn end(&self, _partition: i32) -> Option<i64> {
        None
    }
    async fn commit(&mut self, offsets: &[(i32, i64)]) -> Result<()> {
        for (_, offset) in offsets {
            self.0.committed.set(*offset);
            self.0.commits.borrow_mut().push(*offset);
        }
        Ok(())
    }
    fn release(&mut self, _partition: i32, _term: u64) {}
}

impl Clock for Played {
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
    fn now_us(&self) -> i64 {
        (WRITTEN_MS + self.0.now_ms.get()) * 1_000
    }
    /// Time goes on only where somebody waits for it, by what the shortest wait asks for.
    async fn sleep(&self, time: Duration) {
        let until = self.0.now_ms.get() + i64::try_from(time.as_millis()).expect("a time");
        while self.0.now_ms.get() < until {
            tokio::task::yield_now().await;
            self.0.now_ms.set(self.0.now_ms.get() + 20);
        }
    }
}

impl Follow for Played {
    async fn follow(&self, link: &Link) -> Fetched {
        let name = link.address().rsplit('/').next().expect("a name").to_owned();
        self.0.asked.borrow_mut().push(name.clone());
        tokio::task::yield_now().await;
        let mut answers = self.0.answers.borrow_mut();
        let answers = answers.get_mut(&name).expect("an answer");
        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
    }
}

/// What was written, and how often the log refuses before it takes something.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<(Vec<OutRecord>, usize)>>);

impl Sender for Written {
    async fn send(&self, record: OutRecord) -> Result<Coordinates> {
        let mut inside = self.0.lock().expect("a lock");
        if inside.1 > 0 {
            inside.1 -= 1;
            return Err(Error::new(Kind::BrokerUnavailable, "send", "played"));
        }
        let topic = record.topic;
        inside.0.push(record);
        Ok(Coordinates { topic, partition: 0, offset: 0 })
    }
}

fn ended(outcome: Outcome) -> Fetched {
    Fetched { outcome, status: Some(500), whose: Per::App, told: None, document: None }
}

fn document(body: &str) -> Fetched {
    Fetched {
        outcome: Outcome::Answered(Answer::Document),
        status: Some(200),
        document: Some(("application/json".to_owned(), Bytes::from(body.to_owned()))),
        ..ended(Outcome::Silent)
    }
}

fn pointer(name: &str) -> String {
    format!(
        r#"{{"status":"success","type":"s3_payload","url":"https://storage.googleapis.com/b/{name}","expires_in":600}}"#
    )
}

/// A story: these records, these answers of the store, so many refusals of the log.
#[derive(Default)]
struct Story {
    world: Rc<World>,
    written: Written,
    metrics: Option<Metrics>,
}

impl Story {
    fn record(&self, value: &str) {
        let mut records = self.world.records.borrow_mut();
        let offset = i64::try_from(records.len()).expect("an offset");
        records.push(Record {
            topic: Topic::RawTerra,
            partition: 0,
            offset,
            timestamp_ms: WRITTEN_MS,
            key: None,
            headers: Headers::new(),
            value: Some(Bytes::from(value.to_owned())),
        });
    }

    fn answers(&self, name: &str, answers: Vec<Fetched>) {
        self.world.answers.borrow_mut().insert(name.to_owned(), answers);
    }

    fn pointer(&self, name: &str, answers: Vec<Fetched>) {
        self.record(&pointer(name));
        self.answers(name, answers);
    }

    /// Runs until this holds, at most half an hour of the played time.
    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        let metrics = self.metrics.get_or_insert_with(Metrics::new).clone();
        let (played, stop) = (Played(Rc::clone(&self.world)), Stop::default());
        let mut pointers = Pointers::new(
            played.clone(),
            None,
            self.written.clone(),
            played.clone(),
            played.clone(),
            PseudonymKey::new(b"not-a-secret-pseudonym-key"),
            metrics,
        );
        let end = self.world.now_ms.get() + 1_800_000;
        let watched = async {
            while !holds(self) {
                assert!(self.world.now_ms.get() < end, "it never came");
                tokio::task::yield_now().await;
            }
            stop.set();
        };
        let (ran, ()) = tokio::join!(pointers.run(&stop), watched);
        ran.expect("it runs until it is stopped");
    }

    async fn until_committed(&mut self, offset: i64) {
        self.until(|story| story.world.committed.get() == offset).await;
    }

    fn of(&self, topic: Topic) -> Vec<OutRecord> {
        let inside = self.written.0.lock().expect("a lock");
        inside.0.iter().filter(|record| record.topic == topic).cloned().collect()
    }
}

#[tokio::test]
async fn facts_what_stands_behind_a_pointer_is_archived_as_it_came() {
    let mut story = Story::default();
    story.world.now_ms.set(40_000);
    story.pointer("a.json", vec![document(BODY)]);
    story.pointer("b.json", vec![document("<html>")]);
    story.until_committed(2).await;
    let mut documents = story.of(Topic::RawDocuments);
    documents.sort_by_key(|record| record.headers.text(header::SOURCE).map(str::to_owned));
    let [with, without] = &documents[..] else { panic!("two documents") };
    let text = |name| with.headers.text(name);
    assert_eq!(with.value.as_deref(), Some(BODY.as_bytes()), "byte for byte");
    assert_eq!((text(header::VENDOR), text(header::RECORD_TYPE)), (Some("terra"), Some("payload")));
    assert_eq!(text(header::RECEIVED_AT), Some("1774767600000000"), "when it was written, not now");
    assert_eq!(text(header::SOURCE), Some("raw-terra/0/0/0"));
    assert_eq!(text(header::HTTP_STATUS), Some("200"));
    let user = PseudonymKey::new(b"not-a-secret-pseudonym-key").vendor_user("terra", "5a3d0e6b");
    assert_eq!(with.key.as_deref(), Some(format!("terra:{user}").as_bytes()), "as a webhook's");
    let hash = without.headers.text(header::SHA256).expect("a hash");
    assert_eq!(without.key.as_deref(), Some(format!("terra:{}", &hash[..32]).as_bytes()));
    assert!(!format!("{with:?}{without:?}").contains("storage.googleapis.com"), "no link goes on");
    assert!(story.of(Topic::DeadLetters).is_empty());
}

#[tokio::test]
async fn facts_what_stands_inline_is_not_fetched() {
    let mut story = Story::default();
    for inline in [BODY, "not json", r#"{"type":"auth","status":"success"}"#] {
        story.record(inline);
    }
    story.until_committed(3).await;
    assert!(story.world.asked.borrow().is_empty());
    assert!(story.of(Topic::RawDocuments).is_empty() && story.of(Topic::DeadLetters).is_empty());
}

#[tokio::test]
async fn facts_a_dead_pointer_is_a_dead_letter_that_says_how_to_ask_again() {
    let mut late = Story::default();
    late.world.now_ms.set(600_000);
    late.pointer("a.json", vec![document(BODY)]);
    late.until_committed(1).await;
    assert!(late.world.asked.borrow().is_empty(), "nobody is asked for what is dead");
    let mut refused = Story::default();
    refused.pointer("a.json", vec![ended(Outcome::Answered(Answer::Forbidden))]);
    refused.until_committed(1).await;
    assert_eq!(refused.world.asked.borrow().len(), 1, "a store's refusal is believed");
    for story in [late, refused] {
        let [letter] = &story.of(Topic::DeadLetters)[..] else { panic!("one letter") };
        let text = |name| letter.headers.text(name);
        assert_eq!(text(header::ERROR_TYPE), Some("wearable_api_error"));
        assert!(text(header::ERROR_MESSAGE).expect("a message").contains("ask Terra"));
        assert_eq!(text(header::ORIGINAL_TOPIC), Some("raw-terra"));
        assert_eq!(letter.value.as_deref(), Some(pointer("a.json").as_bytes()), "its exact bytes");
        assert!(letter.headers.iter().all(|(_, value)| !value.windows(6).any(|w| w == b"google")));
        assert!(story.of(Topic::RawDocuments).is_empty());
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_less_and_less_until_the_link_dies() {
    let mut story = Story::default();
    let away = [
        Outcome::Unreachable,
        Outcome::Silent,
        Outcome::TooSlow,
        Outcome::BrokenOff,
        Outcome::Answered(Answer::Unavailable),
        Outcome::Answered(Answer::Limited(None)),
    ];
    let answers = away.into_iter().map(ended).chain([document(BODY)]).collect();
    story.pointer("back.json", answers);
    story.until_committed(1).await;
    assert_eq!(story.of(Topic::RawDocuments).len(), 1);
    let mut story = Story::default();
    story.pointer("gone.json", vec![ended(Outcome::Unreachable)]);
    story.until_committed(1).await;
    let asked = story.world.asked.borrow().len();
    assert!((10..=20).contains(&asked), "{asked} times in ten minutes");
    assert!(story.world.now_ms.get() >= 600_000, "as long as it lives");
    assert_eq!(story.of(Topic::DeadLetters).len(), 1);
}

#[tokio::test]
async fn what_is_no_body_is_given_up_at_once() {
    for (outcome, kind) in [
        (Outcome::Redirected, "wearable_api_error"),
        (Outcome::NotJson, "wearable_api_error"),
        (Outcome::TooLarge, "payload_too_large"),
    ] {
        let mut story = Story::default();
        story.pointer("a.json", vec![ended(outcome)]);
        story.until_committed(1).await;
        assert_eq!(story.world.asked.borrow().len(), 1);
        let letters = story.of(Topic::DeadLetters);
        assert_eq!(letters[0].headers.text(header::ERROR_TYPE), Some(kind));
    }
    let mut story = Story::default();
    story.record(&pointer("a.json").replace("storage.googleapis.com", "127.0.0.1"));
    story.until_committed(1).await;
    assert!(story.world.asked.borrow().is_empty(), "nowhere else is asked");
    let letters = story.of(Topic::DeadLetters);
    assert_eq!(letters[0].headers.text(header::ERROR_TYPE), Some("validation_error"));
}

#[tokio::test]
async fn one_that_waits_holds_no_other_up_and_no_offset_passes_it() {
    let mut story = Story::default();
    story.pointer("slow.json", vec![ended(Outcome::Silent)]);
    for number in 0..100 {
        story.pointer(&format!("{number}.json"), vec![document(BODY)]);
    }
    story.until(|story| story.of(Topic::RawDocuments).len() == 100).await;
    assert!(story.world.now_ms.get() < 60_000, "at once");
    assert_eq!(story.world.committed.get(), 0, "nothing above what is under way");
    // Whoever reads on begins with it; what was archived is archived again, and the same.
    story.answers("slow.json", vec![document(BODY)]);
    story.until_committed(101).await;
    assert_eq!(story.of(Topic::RawDocuments).len(), 201);
    assert!(story.world.commits.borrow().is_sorted());
}

#[tokio::test]
async fn what_the_log_does_not_take_is_offered_until_it_does() {
    let mut story = Story::default();
    story.written.0.lock().expect("a lock").1 = 5;
    story.pointer("a.json", vec![document(BODY)]);
    story.until_committed(1).await;
    assert_eq!(story.of(Topic::RawDocuments).len(), 1, "once, and never skipped");
    assert_eq!(story.world.asked.borrow().len(), 1);
}

#[tokio::test]
async fn a_partition_that_went_and_came_back_is_begun_anew() {
    let mut story = Story::default();
    story.pointer("slow.json", vec![ended(Outcome::Silent)]);
    story.until(|story| story.world.asked.borrow().len() == 2).await;
    story.world.term.set(7);
    story.answers("slow.json", vec![document(BODY)]);
    story.until_committed(1).await;
    assert_eq!(story.of(Topic::RawDocuments).len(), 1);
}
