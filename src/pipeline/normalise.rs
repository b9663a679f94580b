//! Step 1: what a raw record says, in our language, for our user.
//!
//! A batch goes in with the rows of the connections that it names; records for `normalised-records`, dead letters
//! and notes come out. Nothing is kept between batches and no clock is asked: the time of dead letters comes in. So
//! the step may be done twice, by two processes even, and what follows it recognises what it has seen.
//!
//! # Decisions
//! - A connection that begins or ends in a batch counts for what follows it in the batch: a person connects, and
//!   the first night comes in the next breath.
//! - What belongs to a vendor user that nobody knows is held, item by item. A sweep puts it through again when its
//!   connection exists ([`Normalise::again`]). So is what belongs to a connection of which it is not settled whether it
//!   is another one of its person, under a new name ([`Vendor::renames`]).
//! - Bad items of one body are one dead letter per kind, because a push can have thousands; each has its own verdict.
//! - A fetched body is read as the type of record that was asked for, which its headers say. It belongs to the
//!   connection under whose consent it was fetched: where its vendor user is another's by then, to nobody.
//! - A record that came with origin *replay* gives records and nothing else: it asks for no fetch, makes no
//!   connection, holds nothing, gives nothing up. All of that happened when it first came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::emit;
use super::reject::{Stage, dead_letter};
use crate::error::{Kind, Path, Reject};
use crate::model::avro::Codec;
use crate::model::connection::{Change, Connection, Connections, Gap, Lookup};
use crate::model::contract::{PROBE_VENDOR, Topic, UNION_BYTES_MAX, header};
use crate::model::event::{Merge, NORMALISER, NormalisedRecord, Origin};
use crate::model::id::{ConnectionId, EventId, Source, User};
use crate::model::record::{Headers, OutRecord, Record};
use crate::model::state::{
    Held, Hydration, HydrationEnd, HydrationKey, Notes, RawVerdict, VendorUser, Whose,
};
use crate::model::time::Micros;
use crate::vendors::terra::kafka;
use crate::vendors::{self, Item, Raw, Vendor, VendorRecord, What};

/// The most bytes of a canonical record: below the 16 MiB that its topic takes, with room for its headers.
const RECORD_BYTES_MAX: usize = 15 * 1024 * 1024;
/// The last receipt time that is believed, µs: the end of the year 9998.
const RECEIVED_AT_MAX: Micros = 253_370_764_800_000_000;
/// The position of what is said of a whole body.
const WHOLE: i32 = -1;
/// Why nothing is read of a vendor that is not wanted now.
const SWITCHED_OFF: &str = "the vendor is switched off";

/// What is done with a vendor's user for whom there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Its items wait until the connection exists.
    Hold,
    /// A connection begins, to a user that is derived from the vendor's.
    Derive,
}

/// Normalise, pure.
pub struct Normalise {
    codec: Arc<Codec>,
    unknown: Unknown,
    find: fn(&str) -> Option<&'static dyn Vendor>,
    /// Vendors that are switched off.
    off: Vec<String>,
}

/// A batch as its vendors' files read it: of each record its items, or why it cannot be read; nothing of a probe.
pub struct Read(Vec<Option<Result<Body, Reject>>>);

/// A raw record as its vendor's file reads it.
struct Body {
    vendor: &'static str,
    received_at: Micros,
    origin: Origin,
    /// Of a fetched body the connection that it was fetched for.
    connection: Option<ConnectionId>,
    items: Vec<Item>,
}

impl Body {
    /// Whom it names.
    fn users(&self) -> impl Iterator<Item = VendorUser> {
        let named = self.items.iter().flat_map(|item| match &item.what {
            What::Record(_) | What::Fetch { .. } | What::Gone(_) => {
                [item.vendor_user.as_ref(), None]
            }
            What::Connection(Change::Begin { vendor_user, .. } | Change::End { vendor_user }) => {
                [Some(vendor_user), None]
            }
            What::Connection(Change::Rename { old, new }) => [Some(old), Some(new)],
            What::Ignored(_) | What::Bad(_) => [None, None],
        });
        named.flatten().map(|user| (self.vendor.to_owned(), user.clone()))
    }

    /// Our users for whom a connection begins.
    fn people(&self) -> impl Iterator<Item = (String, User)> {
        self.items.iter().filter_map(|item| match &item.what {
            What::Connection(Change::Begin { user, .. }) => {
                Some((self.vendor.to_owned(), user.clone()))
            }
            _ => None,
        })
    }
}

impl Normalise {
    /// Normalise over every vendor.
    #[must_use]
    pub const fn new(codec: Arc<Codec>, unknown: Unknown) -> Self {
        Self { codec, unknown, find: vendors::find, off: Vec::new() }
    }

    /// The same without these vendors: what comes of them is not read, and is *ignored because switched off*.
    #[must_use]
    pub fn without(self, off: Vec<String>) -> Self {
        Self { off, ..self }
    }

    /// The vendor under whose name a record is counted; `unknown` for a name that is none of ours, so that no
    /// header can make a series.
    #[must_use]
    pub fn vendor(&self, record: &Record) -> &'static str {
        let name = name(record).unwrap_or_default();
        if name == PROBE_VENDOR {
            return PROBE_VENDOR;
        }
        (self.find)(name).map_or("unknown", Vendor::name)
    }

    /// What this batch says, and whose connections must be known to convert it.
    #[must_use]
    pub fn read(&self, batch: &[Record]) -> (Whose, Read) {
        let read: Vec<_> = batch.iter().map(|record| self.body(record)).collect();
        let mut named = Whose::default();
        for body in read.iter().filter_map(|body| body.as_ref()?.as_ref().ok()) {
            named.vendor_users.extend(body.users());
            if self.renames(body.vendor) {
                named.people.extend(body.people());
            }
        }
        (named, Read(read))
    }

    fn renames(&self, vendor: &str) -> bool {
        (self.find)(vendor).is_some_and(Vendor::renames)
    }

    /// What becomes of this batch, by the connections of those that it names.
    #[must_use]
    pub fn convert(
        &self,
        batch: &[Record],
        read: Read,
        connections: Vec<Connection>,
        now_us: Micros,
    ) -> (Notes, Vec<OutRecord>) {
        let mut thread = Thread::new(self, connections, now_us);
        for (record, body) in batch.iter().zip(read.0) {
            thread.record(record, body, None);
        }
        thread.end()
    }

    /// What becomes of the held items of one record, by the connections of now. An item that the record does not
    /// have any more (a repaired normaliser reads it otherwise) is ignored under that reason.
    #[must_use]
    pub fn again(
        &self,
        record: &Record,
        indexes: &[i32],
        connections: Vec<Connection>,
        now_us: Micros,
    ) -> (Notes, Vec<OutRecord>) {
        let mut thread = Thread::new(self, connections, now_us);
        if self.off.iter().any(|off| Some(off.as_str()) == name(record)) {
            for index in indexes {
                thread.ignore(record.source(*index), SWITCHED_OFF);
            }
            return thread.end();
        }
        thread.record(record, self.body(record), Some(indexes));
        thread.end()
    }

    /// Nothing for a probe of the ingress; else what the vendor's file makes of it, or why it cannot be read at all.
    fn body(&self, record: &Record) -> Option<Result<Body, Reject>> {
        let name = name(record);
        if name == Some(PROBE_VENDOR) {
            return None;
        }
        Some(self.body_of(name.and_then(self.find), record))
    }

    fn body_of(
        &self,
        vendor: Option<&'static dyn Vendor>,
        record: &Record,
    ) -> Result<Body, Reject> {
        let whole = Path::root();
        let vendor = vendor.ok_or_else(|| Reject {
            kind: Kind::UnknownVendor,
            ..Reject::malformed(whole.clone(), "no header names a vendor that is known")
        })?;
        let body = record
            .value
            .as_ref()
            .ok_or_else(|| Reject::malformed(whole.clone(), "a record without a value"))?;
        let received_at = received(record)?;
        let origin = match record.headers.get(header::ORIGIN) {
            None => Origin::Live,
            Some(_) => record
                .headers
                .text(header::ORIGIN)
                .and_then(Origin::parse)
                .ok_or_else(|| Reject::malformed(whole, "a header with an unknown origin"))?,
        };
        if self.off.iter().any(|off| off == vendor.name()) {
            let what = What::Ignored(SWITCHED_OFF);
            let items = vec![Item { index: WHOLE, vendor_user: None, what }];
            let vendor = vendor.name();
            return Ok(Body { vendor, received_at, origin, connection: None, items });
        }
        let raw = Raw { headers: &record.headers, body, received_at };
        let (items, connection) = if record.topic == Topic::RawDocuments {
            document(vendor, &raw)?
        } else {
            (vendor.parse(&raw)?, None)
        };
        Ok(Body { vendor: vendor.name(), received_at, origin, connection, items })
    }
}

/// Whose a record is: what its header says; Terra's own topic has only Terra's.
fn name(record: &Record) -> Option<&str> {
    match record.topic {
        Topic::RawTerra => Some(kafka::WRITER),
        _ => record.headers.text(header::VENDOR),
    }
}

/// When a record was received: when the door, or who fetched it, had it; in Terra's own topic when it was written.
fn received(record: &Record) -> Result<Micros, Reject> {
    let (at, why) = if record.topic == Topic::RawTerra {
        let written = Some(record.timestamp_ms).filter(|at| *at > 0);
        (written.and_then(|at| at.checked_mul(1_000)), "the log has no time for it")
    } else {
        let text = record.headers.text(header::RECEIVED_AT);
        (text.and_then(|text| text.parse().ok()), "no header says when it was received")
    };
    at.filter(|at| (0..=RECEIVED_AT_MAX).contains(at))
        .ok_or_else(|| Reject::malformed(Path::root(), why))
}

/// What a fetched body says, and the connection that it was fetched for, where a header names one.
fn document(
    vendor: &dyn Vendor,
    raw: &Raw<'_>,
) -> Result<(Vec<Item>, Option<ConnectionId>), Reject> {
    let malformed = |why| Reject::malformed(Path::root(), why);
    let record_type = raw.headers.text(header::RECORD_TYPE);
    let record_type = record_type.ok_or_else(|| malformed("no header says what was asked for"))?;
    let connection = match raw.headers.get(header::CONNECTION) {
        None => None,
        Some(_) => {
            let id = raw.headers.text(header::CONNECTION).and_then(ConnectionId::parse);
            Some(id.ok_or_else(|| malformed("a header that names no connection"))?)
        }
    };
    Ok((vendor.document(raw, record_type)?, connection))
}

/// One batch on its way: connections by now, and what came out so far.
struct Thread<'a> {
    step: &'a Normalise,
    connections: Connections,
    gaps: Vec<Gap>,
    now_us: Micros,
    /// What is to be fetched, or (`true`) not any more; the last word on each.
    fetches: BTreeMap<HydrationKey, (Micros, Source, bool)>,
    held: BTreeMap<Source, Held>,
    verdicts: BTreeMap<Source, RawVerdict>,
    records: Vec<OutRecord>,
    left_out: usize,
}

/// Where an item comes from.
struct At<'a> {
    record: &'a Record,
    vendor: &'static str,
    received_at: Micros,
    origin: Origin,
    connection: Option<ConnectionId>,
    source: Source,
}

/// Bad items of one record by kind: the first, and the positions of all.
type Bad = BTreeMap<Kind, (Reject, Vec<i32>)>;

impl<'a> Thread<'a> {
    fn new(step: &'a Normalise, connections: Vec<Connection>, now_us: Micros) -> Self {
        Self {
            step,
            connections: Connections::new(connections),
            gaps: Vec::new(),
            now_us,
            fetches: BTreeMap::new(),
            held: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            records: Vec::new(),
            left_out: 0,
        }
    }

    fn end(self) -> (Notes, Vec<OutRecord>) {
        let mut notes = Notes {
            connections: self.connections.changes().cloned().collect(),
            gaps: self.gaps,
            held: self.held.into_values().collect(),
            verdicts: self.verdicts.into_values().collect(),
            left_out: self.left_out,
            ..Notes::default()
        };
        for (key, (asked_at, source, gone)) in self.fetches {
            if gone {
                notes.ended.push(HydrationEnd { key, source, asked_at });
            } else {
                notes.hydrations.push(Hydration { key, source, asked_at });
            }
        }
        (notes, self.records)
    }

    /// A raw record; of its items only those at these positions, where they are given.
    fn record(
        &mut self,
        record: &Record,
        body: Option<Result<Body, Reject>>,
        only: Option<&[i32]>,
    ) {
        let read = match body {
            None => return,
            Some(Ok(read)) => read,
            Some(Err(bad)) => return self.whole(record, bad),
        };
        let mut bad = Bad::new();
        let mut missing: BTreeSet<i32> = only.into_iter().flatten().copied().collect();
        let empty = read.items.is_empty();
        let wanted = |item: &Item| only.is_none_or(|indexes| indexes.contains(&item.index));
        for item in read.items.into_iter().filter(wanted) {
            missing.remove(&item.index);
            let at = At {
                record,
                vendor: read.vendor,
                received_at: read.received_at,
                origin: read.origin,
                connection: read.connection,
                source: record.source(item.index),
            };
            let before = self.records.len();
            let done = self.item(&at, item);
            if at.origin == Origin::Replay && self.records.len() == before {
                self.left_out += 1;
            }
            if let Err(reject) = done {
                let (_, positions) = bad.entry(reject.kind).or_insert_with(|| (reject, Vec::new()));
                positions.push(at.source.index);
            }
        }
        if read.origin == Origin::Replay {
            self.left_out += missing.len() + usize::from(empty);
            return;
        }
        if empty && only.is_none() {
            self.ignore(record.source(WHOLE), "empty");
        }
        for index in missing {
            self.ignore(record.source(index), "no such item any more");
        }
        for (reject, positions) in bad.into_values() {
            self.give_up(record, &reject, &positions);
        }
    }

    fn whole(&mut self, record: &Record, bad: Reject) {
        if record.headers.text(header::ORIGIN) == Some(Origin::Replay.name()) {
            self.left_out += 1;
            return;
        }
        let stage = Stage::Normalise { failed_at: self.now_us };
        self.records.push(dead_letter(record, &bad, stage, &[]));
        self.dead(record.source(WHOLE), bad.kind);
    }

    fn give_up(&mut self, record: &Record, bad: &Reject, positions: &[i32]) {
        let stage = Stage::Normalise { failed_at: self.now_us };
        self.records.push(dead_letter(record, bad, stage, positions));
        for index in positions {
            self.dead(record.source(*index), bad.kind);
        }
    }

    fn dead(&mut self, source: Source, kind: Kind) {
        let verdict = RawVerdict { source, verdict: "dead_lettered", reason: kind.name() };
        self.verdicts.insert(source, verdict);
    }

    fn ignore(&mut self, source: Source, reason: &'static str) {
        let verdict = RawVerdict { source, verdict: "ignored", reason };
        self.verdicts.entry(source).or_insert(verdict);
    }

    fn item(&mut self, at: &At<'_>, item: Item) -> Result<(), Reject> {
        let replayed = at.origin == Origin::Replay;
        let user = item.vendor_user;
        match item.what {
            What::Bad(bad) => return Err(bad),
            What::Ignored(_) | What::Connection(_) if replayed => {}
            What::Ignored(why) => self.ignore(at.source, why),
            What::Connection(change) => {
                let gap = self.connections.apply(at.vendor, &change, at.received_at);
                self.gaps.extend(gap);
                self.ignore(at.source, "a connection event");
            }
            What::Record(record) => {
                if let Some((connection, user)) = self.whose(at, user)? {
                    self.emit(at, connection, user, *record)?;
                }
            }
            What::Fetch { record_type, record_id } => {
                if let Some((connection, _)) = self.whose(at, user)? {
                    self.fetch(at, connection, record_type, &record_id, false);
                    // Ten notifications of one record are one fetch; each of them says that it waits for it.
                    let verdict = "waiting";
                    let waits = RawVerdict { source: at.source, verdict, reason: "a fetch" };
                    if !replayed {
                        self.verdicts.entry(at.source).or_insert(waits);
                    }
                }
            }
            What::Gone(record) => {
                if let Some((connection, user)) = self.whose(at, user)? {
                    self.fetch(at, connection, &record.record_type, &record.record_id, true);
                    self.emit(at, connection, user, *record)?;
                }
            }
        }
        Ok(())
    }

    /// The connection of an item's vendor user when it was received, and of a fetched body only the one that it was
    /// fetched for. Nothing where there is none: the item then waits, or has its verdict.
    fn whose(
        &mut self,
        at: &At<'_>,
        vendor_user: Option<String>,
    ) -> Result<Option<(ConnectionId, User)>, Reject> {
        let Some(vendor_user) = vendor_user else {
            return Err(Reject::malformed(Path::root(), "an item that names no user"));
        };
        let replayed = at.origin == Origin::Replay;
        let mut found = self.connections.at(at.vendor, &vendor_user, at.received_at);
        if found == Lookup::Unknown && self.step.unknown == Unknown::Derive && !replayed {
            let user = User::derived(at.vendor, &vendor_user);
            let id = ConnectionId::derive(at.vendor, &vendor_user, &user);
            // Nobody said that it begins, and of most vendors nobody has its tokens: its history is not asked for.
            self.connections.begin(at.vendor, &vendor_user, user, id, at.received_at);
            found = self.connections.at(at.vendor, &vendor_user, at.received_at);
        }
        let wait = match found {
            Lookup::Connected(row) if !row.settled && self.step.renames(at.vendor) => true,
            found => found == Lookup::Unknown,
        };
        match found {
            _ if wait && !replayed => {
                let (vendor, received_at) = (at.vendor.to_owned(), at.received_at);
                let held = Held { source: at.source, vendor, vendor_user, received_at };
                self.held.insert(at.source, held);
            }
            Lookup::Connected(row) if at.connection.is_none_or(|fetched| fetched == row.id) => {
                return Ok(Some((row.id, row.user.clone())));
            }
            _ if replayed => {}
            _ => self.ignore(at.source, "disconnected"),
        }
        Ok(None)
    }

    /// Notes a fetch, or its end; of several in a batch the one that was asked last.
    fn fetch(
        &mut self,
        at: &At<'_>,
        connection: ConnectionId,
        record_type: &str,
        record_id: &str,
        gone: bool,
    ) {
        if at.origin == Origin::Replay {
            return;
        }
        let key = HydrationKey {
            vendor: at.vendor.to_owned(),
            connection,
            record_type: record_type.to_owned(),
            record_id: record_id.to_owned(),
        };
        let asked = (at.received_at, at.source, gone);
        let last = self.fetches.entry(key).or_insert(asked);
        *last = asked.max(*last);
    }

    fn emit(
        &mut self,
        at: &At<'_>,
        connection: ConnectionId,
        user: User,
        record: VendorRecord,
    ) -> Result<(), Reject> {
        let normalised = NormalisedRecord {
            event_id: EventId::derive(connection, &record.record_type, &record.record_id),
            user_id: user,
            connection_id: connection,
            vendor: at.vendor.to_owned(),
            device_type: record.device_type,
            via: record.via.to_owned(),
            record_type: record.record_type,
            record_id: record.record_id,
            merge: record.merge,
            op: record.op,
            version: record.version,
            received_at: at.received_at,
            source: at.source,
            origin: at.origin,
            normaliser: NORMALISER,
            content: record.content,
        };
        let key = Bytes::from(normalised.user_id.as_str().to_owned());
        let mut headers = Headers::new()
            .with(header::ORIGIN, at.origin.name())
            .with(header::SOURCE, emit::source(at.source));
        if let Some(traceparent) = at.record.headers.get(header::TRACEPARENT) {
            headers.push(header::TRACEPARENT, traceparent.clone());
        }
        let mut values = Vec::new();
        split(&self.step.codec, normalised, &mut values)?;
        self.records.extend(values.into_iter().map(|value| OutRecord {
            topic: Topic::NormalisedRecords,
            key: Some(key.clone()),
            headers: headers.clone(),
            value: Some(value),
        }));
        Ok(())
    }
}

/// The values of a record: one, or of a union (and of removed samples) as many as keep below the bound, each with a
/// part of the samples. What cannot be split passes whole, as far as a topic takes it.
fn split(codec: &Codec, record: NormalisedRecord, values: &mut Vec<Bytes>) -> Result<(), Reject> {
    let bytes = codec
        .encode_record(&record)
        .map_err(|error| Reject { kind: error.kind, ..too_large("cannot be written as Avro") })?;
    let (readings, removed) = (record.content.readings.len(), record.content.removed.len());
    let splits = record.merge != Merge::Replace && readings.max(removed) > 1;
    if bytes.len() > UNION_BYTES_MAX && splits {
        drop(bytes);
        let mut left = record;
        let mut right = left.clone();
        right.content.readings = left.content.readings.split_off(readings / 2);
        right.content.removed = left.content.removed.split_off(removed / 2);
        split(codec, left, values)?;
        return split(codec, right, values);
    }
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(too_large("a record of more than 15 MiB"));
    }
    values.push(Bytes::from(bytes));
    Ok(())
}

fn too_large(why: &'static str) -> Reject {
    Reject { kind: Kind::PayloadTooLarge, ..Reject::invalid(Path::root(), why) }
}

#[cfg(test)]
mod tests;
