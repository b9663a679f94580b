//! Seeded streams of canonical records: people, nights, corrections, deletions, re-sends, samples of all kinds.
//!
//! The same seed gives the same stream, for ever: a failure is a number that can be written down.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::EPOCH_US;
use crate::model::contract::Topic;
use crate::model::event::{
    Content, Merge, NORMALISER, NormalisedRecord, Op, Origin, Reading, flag,
};
use crate::model::id::{ConnectionId, EventId, Source, User, sample_id};
use crate::model::time::{Day, Micros};

/// A seeded source of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one; 0 where there is none.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.roll() % count).unwrap_or(0)
    }

    /// Once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these; nothing of nothing.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// What a stream is made of.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// How many people.
    pub users: usize,
    /// Whether there are unions and removals; else *replace* only.
    pub samples: bool,
}

const MINUTE: Micros = 60_000_000;
const DAY: Micros = 1_440 * MINUTE;

/// Makes a stream.
#[derive(Clone, Debug)]
pub struct Generator {
    dice: Dice,
    mix: Mix,
    /// Raw offsets, one a record.
    offset: i64,
    made: Vec<NormalisedRecord>,
    /// Samples by person, for re-sends and removals.
    samples: BTreeMap<usize, Vec<Reading>>,
}

impl Generator {
    /// A stream of this seed.
    #[must_use]
    pub const fn new(seed: u64, mix: Mix) -> Self {
        Self { dice: Dice::new(seed), mix, offset: 0, made: Vec::new(), samples: BTreeMap::new() }
    }

    /// The next records.
    pub fn records(&mut self, count: usize) -> Vec<NormalisedRecord> {
        (0..count).map(|_| self.record()).collect()
    }

    /// The next record: something new, or something about what was made before.
    pub fn record(&mut self) -> NormalisedRecord {
        let old = self.dice.below(self.made.len());
        let before = self.made.get(old).cloned().filter(|record| record.merge == Merge::Replace);
        let record = match (self.dice.below(10), before) {
            (0, Some(before)) => self.resent(before),
            (1, Some(before)) => self.redelivered(before),
            (2 | 3, Some(before)) => self.corrected(before, false),
            (4, Some(before)) => self.corrected(before, true),
            (5, Some(before)) => self.deleted(before),
            (6..=8, _) if self.mix.samples => self.sampled(),
            _ => self.new_night(),
        };
        self.made.push(record.clone());
        record
    }

    fn source(&mut self) -> Source {
        self.offset += 1;
        Source { topic: Topic::RawWebhooks, partition: 0, offset: self.offset, index: 0 }
    }

    fn received(&self) -> Micros {
        EPOCH_US + self.offset * MINUTE
    }

    fn blank(&mut self, user: usize, record_type: &str, record_id: &str) -> NormalisedRecord {
        let name = format!("user-{user}");
        let user_id = User::parse(&name).unwrap_or_else(|| User::derived("terra", &name));
        let connection_id = ConnectionId::derive("terra", &name, &user_id);
        let source = self.source();
        NormalisedRecord {
            event_id: EventId::derive(connection_id, record_type, record_id),
            user_id,
            connection_id,
            vendor: "terra".to_owned(),
            device_type: "oura".to_owned(),
            via: if self.dice.one_in(2) { "terra".to_owned() } else { "direct".to_owned() },
            record_type: record_type.to_owned(),
            record_id: record_id.to_owned(),
            merge: Merge::Replace,
            op: Op::Upsert,
            version: None,
            received_at: self.received(),
            source,
            origin: Origin::Live,
            normaliser: NORMALISER,
            content: Content::default(),
        }
    }

    fn new_night(&mut self) -> NormalisedRecord {
        let user = self.dice.below(self.mix.users);
        let night = format!("night-{}", self.offset + 1);
        let versioned = self.dice.one_in(2);
        let mut record = self.blank(user, "sleep", &night);
        record.content = self.content(record.received_at);
        record.version = versioned.then_some(record.received_at - MINUTE);
        record
    }

    fn content(&mut self, at: Micros) -> Content {
        let rolled = u32::try_from(self.dice.below(60)).unwrap_or(0);
        let value = 20.0 + f64::from(rolled);
        Content {
            start_at: Some(at - 480 * MINUTE),
            end_at: Some(at - 30 * MINUTE),
            start_offset_s: Some(3600),
            end_offset_s: Some(3600),
            offset_provenance: "vendor".to_owned(),
            local_date: Some(20_541),
            day_rule: Some("sleep_end".to_owned()),
            state: "final".to_owned(),
            readings: vec![reading("hrv_rmssd_sleep_avg", "ms", value, at - 480 * MINUTE, None)],
            ..Content::default()
        }
    }

    /// The vendor sends the same again: another delivery, the same record.
    fn resent(&mut self, before: NormalisedRecord) -> NormalisedRecord {
        let source = self.source();
        NormalisedRecord { source, received_at: self.received(), ..before }
    }

    /// Normalise writes the same again: at least once.
    fn redelivered(&mut self, before: NormalisedRecord) -> NormalisedRecord {
        let origin = if self.dice.one_in(2) { Origin::Replay } else { before.origin };
        NormalisedRecord { origin, ..before }
    }

    /// A correction; a late one was made before what is known by now.
    fn corrected(&mut self, before: NormalisedRecord, late: bool) -> NormalisedRecord {
        let mut record = self.resent(before);
        record.op = Op::Upsert;
        record.content = self.content(record.received_at);
        if let Some(version) = record.version {
            let step = MINUTE * i64::try_from(1 + self.dice.below(5)).unwrap_or(1);
            record.version = Some(if late { version - step } else { version + step });
        }
        record
    }

    fn deleted(&mut self, before: NormalisedRecord) -> NormalisedRecord {
        let mut record = self.resent(before);
        record.op = Op::Delete;
        record.content = Content::default();
        record.version = None;
        record
    }

    /// A push of samples, overlapping what was pushed; or a removal, of what came or of what comes.
    fn sampled(&mut self) -> NormalisedRecord {
        let user = self.dice.below(self.mix.users);
        match self.dice.below(4) {
            0 => self.counted(user),
            1 | 2 => self.slept(user),
            _ if self.dice.one_in(3) => {
                let count = self.samples.entry(user).or_default().len();
                // One more than there are: a removal that comes before its sample.
                let number = i64::try_from(self.dice.below(count + 1)).unwrap_or(0);
                self.removal(user, "samples.heart_rate", sample_uuid(user, number))
            }
            _ => self.beats(user),
        }
    }

    /// What a phone pushes into this bucket.
    fn pushed(&mut self, user: usize, record_type: &str, record_id: &str) -> NormalisedRecord {
        let mut record = self.blank(user, record_type, record_id);
        record.vendor = "healthkit".to_owned();
        record.device_type = "apple".to_owned();
        record.via = "direct".to_owned();
        record.merge = Merge::Union;
        record.content = Content {
            offset_provenance: "unknown".to_owned(),
            state: "final".to_owned(),
            ..Content::default()
        };
        record
    }

    /// Samples with ids of the device's own.
    fn beats(&mut self, user: usize) -> NormalisedRecord {
        let mut record = self.pushed(user, "samples.heart_rate", "2026-03-29|app|watch");
        let mut readings: Vec<Reading> = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let known = self.samples.entry(user).or_default();
            let again = known.get(self.dice.below(known.len() * 2)).cloned();
            let number = i64::try_from(known.len()).unwrap_or(0);
            let id = sample_uuid(user, number);
            let at = EPOCH_US + number * MINUTE;
            let new = reading("heart_rate", "/min", 60.0, at, Some(id));
            if again.is_none() {
                known.push(new.clone());
            }
            let chosen = again.unwrap_or(new);
            if !readings.iter().any(|reading| reading.sample_id == chosen.sample_id) {
                readings.push(chosen);
            }
        }
        record.content.readings = readings;
        record
    }

    /// Minutes that are sent again and again while their count grows, read in any order: their ids are derived.
    fn counted(&mut self, user: usize) -> NormalisedRecord {
        let mut record = self.pushed(user, "samples.steps", "2026-03-29|app|export");
        let connection = record.connection_id.to_string();
        let id = |minute: i64| sample_id(&connection, "steps", minute * MINUTE, "app|export");
        if self.dice.one_in(8) {
            let minute = i64::try_from(self.dice.below(4)).unwrap_or(0);
            return self.removal(user, "samples.steps", id(minute));
        }
        record.received_at -= MINUTE * i64::try_from(self.dice.below(30)).unwrap_or(0);
        for minute in 0..4 {
            if self.dice.one_in(2) {
                let count = u32::try_from(self.dice.below(3)).unwrap_or(0);
                let (at, id) = (EPOCH_US + minute * MINUTE, Some(id(minute)));
                let mut counted = reading("steps", "{count}", f64::from(count), at, id);
                counted.end_at = Some(at + MINUTE);
                counted.flags.push(flag::DERIVED_ID.to_owned());
                record.content.readings.push(counted);
            }
        }
        record
    }

    /// Some samples of three nights, of one UTC day; or the removal of one.
    fn slept(&mut self, user: usize) -> NormalisedRecord {
        let first = self.dice.below(SLEEPS);
        let (id, start) = (sleep_id(user, first), sleep_start(first));
        if self.dice.one_in(5) {
            return self.removal(user, "samples.sleep_stage", id);
        }
        let day = Day::of_utc(start);
        let mut record = self.pushed(user, "samples.sleep_stage", &format!("{day}|app|watch"));
        record.received_at -= MINUTE * i64::try_from(self.dice.below(30)).unwrap_or(0);
        record.content.start_offset_s =
            self.dice.pick(&[None, Some(3600), Some(-7200)]).copied().flatten();
        record.content.end_offset_s = record.content.start_offset_s;
        for number in first..first + 6 {
            let start = sleep_start(number);
            if Day::of_utc(start) != day || number > first && self.dice.one_in(3) {
                continue;
            }
            // What an own id says never changes; what a derived one says may.
            let derived = number % 5 == 0;
            let turn = if derived { self.dice.below(3) } else { 0 };
            let stage = STAGES.iter().cycle().nth(number + turn).copied().unwrap_or("unknown");
            let length = MINUTE * i64::try_from(10 + number * 7 % 60).unwrap_or(0);
            let mut slept = reading("sleep_stage", "", 0.0, start, Some(sleep_id(user, number)));
            slept.end_at = Some(start + length);
            (slept.value, slept.unit, slept.symbol) = (None, None, Some(stage.to_owned()));
            slept.flags.extend(derived.then(|| flag::DERIVED_ID.to_owned()));
            record.content.readings.push(slept);
        }
        record
    }

    fn removal(&mut self, user: usize, record_type: &str, id: Uuid) -> NormalisedRecord {
        let mut record = self.pushed(user, record_type, "removal");
        let offset = self.offset;
        record.event_id =
            EventId::derive(record.connection_id, record_type, &format!("removal-{offset}"));
        record.merge = Merge::Removal;
        record.op = Op::Delete;
        record.content.removed = vec![id.to_string()];
        record
    }
}

/// How many samples of sleep a person has.
const SLEEPS: usize = 60;
const STAGES: [&str; 6] = ["in_bed", "asleep_unspecified", "awake", "light", "deep", "rem"];

/// Three nights from five in the afternoon on, twenty samples each, now overlapping, now with a pause.
fn sleep_start(number: usize) -> Micros {
    let (night, slot) = (number / 20, number % 20);
    let minutes = night * 24 * 60 + 17 * 60 + slot * 40;
    EPOCH_US.div_euclid(DAY) * DAY + MINUTE * i64::try_from(minutes).unwrap_or(0)
}

fn sleep_id(user: usize, number: usize) -> Uuid {
    sample_uuid(user, 1_000 + i64::try_from(number).unwrap_or(0))
}

fn sample_uuid(user: usize, number: i64) -> Uuid {
    let user = u128::try_from(user).unwrap_or(0);
    Uuid::from_u128((user << 64) | u128::try_from(number).unwrap_or(0) | (0xabcd << 100))
}

fn reading(metric: &str, unit: &str, value: f64, at: Micros, id: Option<Uuid>) -> Reading {
    Reading {
        metric: metric.to_owned(),
        value: Some(value),
        symbol: None,
        unit: Some(unit.to_owned()),
        start_at: at,
        end_at: None,
        sample_id: id.map(|id| id.to_string()),
        method: None,
        window_s: None,
        context: None,
        flags: Vec::new(),
    }
}
