//! What was published against the ledger of the truth, value by value.
//!
//! A record's events must be versions of it, in their order. Which of them were published depends on when the system
//! asked, but the last one must be the last that was announced, or one that came about after it. Findings name values:
//! the people are invented.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::truth::{End, Excuse, Line, Truth};
use crate::model::event::{BiometricEvent, Content, Merge, Op, Reading};
use crate::model::id::{ConnectionId, User};
use crate::model::time::Micros;

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What was counted.
    pub counted: BTreeMap<&'static str, usize>,
    /// True and announced, and not published.
    pub missing: Vec<String>,
    /// Published, and not true: a value, a unit, a night, a time, an order, or all of it.
    pub wrong: Vec<String>,
    /// Published twice.
    pub doubled: Vec<String>,
    /// Not published, for a reason that the ledger gives.
    pub explained: Vec<String>,
}

/// Vendor, our user, record type, record id.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

/// How long before the end of its person's tokens a version may have come about that is explained by it, µs: a day.
const UNDER_WAY_US: Micros = 86_400_000_000;

/// Compares events with a ledger. Events of people whom the ledger does not know are nobody's concern here. Of the
/// connections in `given_up` a dead letter says that they have no token any more.
#[must_use]
pub fn compare<'a>(
    lines: &'a [Line],
    events: &[&'a BiometricEvent],
    given_up: &HashSet<ConnectionId>,
) -> Found {
    let mut found = Found::default();
    let mut records: BTreeMap<Key<'a>, Vec<&'a Truth>> = BTreeMap::new();
    let mut people: HashMap<&'a str, &'a str> = HashMap::new();
    let mut excuses: HashMap<Key<'a>, &'a Excuse> = HashMap::new();
    let mut ends: HashMap<(&'a str, &'a str), &'a End> = HashMap::new();
    for line in lines {
        if let Line::Version(truth) = line {
            people.insert(&truth.vendor_user, &truth.user);
            records.entry(key(truth)).or_default().push(truth);
        }
    }
    for line in lines {
        if let Line::Excuse(excuse) = line
            && let Some(user) = people.get(excuse.vendor_user.as_str())
        {
            excuses.insert((&excuse.vendor, user, &excuse.record_type, &excuse.record_id), excuse);
        }
        if let Line::End(end) = line
            && let Some(user) = people.get(end.vendor_user.as_str())
            && let Some(of) = User::parse(user)
            && given_up.contains(&ConnectionId::derive(&end.vendor, &end.vendor_user, &of))
        {
            ends.insert((&end.vendor, user), end);
        }
    }
    let users: HashSet<(&str, &str)> =
        records.keys().map(|(vendor, user, _, _)| (*vendor, *user)).collect();
    let mut published: BTreeMap<Key<'a>, Vec<&'a BiometricEvent>> = BTreeMap::new();
    for event in events {
        let key: Key<'a> =
            (&event.vendor, event.user_id.as_str(), &event.record_type, &event.record_id);
        if users.contains(&(key.0, key.1)) {
            published.entry(key).or_default().push(event);
        }
    }
    found.counted.insert("true records", records.len());
    found.counted.insert("true versions", records.values().map(Vec::len).sum());
    found.counted.insert("their events", published.values().map(Vec::len).sum());
    for key in published.keys().filter(|key| !records.contains_key(*key)) {
        found.wrong.push(format!("{}: no such record is true", named(key)));
    }
    for (key, mut versions) in records {
        versions.sort_by_key(|truth| truth.order);
        let mut events = published.remove(&key).unwrap_or_default();
        events.sort_by_key(|event| event.revision);
        let whole = gathered(&events);
        let events: Vec<&BiometricEvent> =
            if whole.is_empty() { events } else { whole.iter().collect() };
        let why = (excuses.get(&key).copied(), ends.get(&(key.0, key.1)).copied());
        hold(&mut found, &key, (&versions, &events), why);
    }
    found
}

fn key(truth: &Truth) -> Key<'_> {
    (&truth.vendor, &truth.user, &truth.record_type, &truth.record_id)
}

fn named((vendor, user, record_type, record_id): &Key<'_>) -> String {
    format!("{vendor} {user} {record_type} {record_id}")
}

/// Events of a bucket, each with all that the bucket held by then, as a reader of theirs keeps it: what an event takes away
/// goes, and what it adds comes. Empty where they are of no bucket.
fn gathered(events: &[&BiometricEvent]) -> Vec<BiometricEvent> {
    let mut held: BTreeMap<String, Reading> = BTreeMap::new();
    let of_bucket = events.iter().filter(|event| event.merge == Merge::Union);
    of_bucket
        .enumerate()
        .map(|(nth, event)| {
            for id in &event.content.removed {
                held.remove(id);
            }
            for (at, reading) in event.content.readings.iter().enumerate() {
                // One without an id, or one that is there, is one too many.
                let id = reading.sample_id.clone().filter(|id| !held.contains_key(id));
                held.insert(id.unwrap_or_else(|| format!("{nth} {at}")), reading.clone());
            }
            let mut whole = BiometricEvent::clone(event);
            whole.content.start_at = held.values().map(|it| it.start_at).min();
            whole.content.end_at = held.values().map(|it| it.end_at.unwrap_or(it.start_at)).max();
            whole.content.readings = held.values().cloned().collect();
            whole
        })
        .collect()
}

/// One record's events against its versions.
fn hold(
    found: &mut Found,
    key: &Key<'_>,
    (versions, events): (&[&Truth], &[&BiometricEvent]),
    (excuse, end): (Option<&Excuse>, Option<&End>),
) {
    let mut last: Option<usize> = None;
    for event in events {
        let from = last.map_or(0, |last| last + 1);
        let fits = |truth: &&Truth| difference(truth, event).is_none();
        let later = versions.iter().skip(from).position(fits).map(|at| at + from);
        let revision = event.revision;
        match (later, versions.iter().take(from).rposition(fits)) {
            (Some(at), _) => last = Some(at),
            (None, Some(at)) if Some(at) == last => {
                found.doubled.push(format!("{} revision {revision}", named(key)));
            }
            (None, Some(_)) => {
                found.wrong.push(format!("{} revision {revision}: an older version", named(key)));
            }
            (None, None) => {
                let truth = nearest(versions, event, from);
                let what = truth.and_then(|truth| difference(truth, event)).unwrap_or_default();
                found.wrong.push(format!("{} revision {revision}: {what}", named(key)));
            }
        }
    }
    let Some(told) = versions.iter().rposition(|truth| truth.told) else { return };
    let enough = |at: usize| {
        let now = versions.get(at);
        at >= told || now.zip(versions.get(told)).is_some_and(|(now, told)| now.says_as(told))
    };
    // What nobody ever heard of need not be taken back.
    let never_was = events.is_empty() && versions.get(told).is_some_and(|truth| truth.gone);
    if never_was || last.is_some_and(enough) {
        *found.counted.entry("records as they are").or_default() += 1;
        return;
    }
    let (order, at) = versions.get(told).map_or((0, 0), |truth| (truth.order, truth.at));
    let what = match last.and_then(|at| versions.get(at)) {
        Some(truth) => format!("{} has version {} of {order}", named(key), truth.order),
        None => format!("{} version {order}", named(key)),
    };
    let excuse = excuse.filter(|excuse| excuse.order <= order).map(|excuse| &excuse.reason);
    let end = end.filter(|end| end.at.saturating_sub(UNDER_WAY_US) <= at).map(|end| &end.reason);
    match excuse.or(end) {
        Some(reason) => found.explained.push(format!("{what}: {reason}")),
        None => found.missing.push(what),
    }
}

/// The version that an event was most likely meant to be: of its own time where it has one, else the next one.
fn nearest<'a>(versions: &[&'a Truth], event: &BiometricEvent, from: usize) -> Option<&'a Truth> {
    let same = |truth: &&&Truth| event.version.is_some_and(|version| version == truth.at);
    let kind = |truth: &&&Truth| truth.gone == (event.op == Op::Delete);
    let next = versions.get(from).filter(|truth| kind(truth));
    let found = versions.iter().find(same).or(next).or_else(|| versions.last());
    found.copied()
}

/// The first thing in which an event is not this version.
fn difference(truth: &Truth, event: &BiometricEvent) -> Option<String> {
    if truth.gone || event.op == Op::Delete {
        return (truth.gone != (event.op == Op::Delete)).then(|| {
            format!("{} where it is {}", event.op, if truth.gone { "gone" } else { "there" })
        });
    }
    let content = &event.content;
    let day = content.day().map(|day| day.to_string());
    let plain = [
        ("day", truth.day.clone(), day),
        ("state", truth.state.clone(), Some(content.state.clone())),
        ("nap", truth.nap.map(|nap| nap.to_string()), content.attributes.get("is_nap").cloned()),
        ("start", text(truth.start), text(content.start_at)),
        ("end", text(truth.end), text(content.end_at)),
        ("start offset", text(truth.start_offset_s), text(content.start_offset_s)),
        ("end offset", text(truth.end_offset_s), text(content.end_offset_s)),
    ];
    // What the vendor does not say is not looked at, but that something is still going on.
    let open = truth.start.is_some() && truth.end.is_none();
    let differs = |(name, is, said): (&str, Option<String>, Option<String>)| {
        let asked = is.is_some() || (name == "end" && open);
        (asked && is != said).then(|| {
            let none = || "none".to_owned();
            format!(
                "{name} is {}, published {}",
                is.unwrap_or_else(none),
                said.unwrap_or_else(none)
            )
        })
    };
    plain.into_iter().find_map(differs).or_else(|| readings(truth, content))
}

fn text<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// What must be read.
struct Expected<'a> {
    value: Option<f64>,
    symbol: Option<&'a str>,
    unit: Option<&'a str>,
    method: Option<&'a str>,
    end: Option<Micros>,
}

/// The readings, each way: none is missing, none is wrong, none is made up.
fn readings(truth: &Truth, content: &Content) -> Option<String> {
    let mut expected: HashMap<(&str, Option<Micros>), Vec<Expected<'_>>> = HashMap::new();
    for (key, one) in all(truth) {
        expected.entry(key).or_default().push(one);
    }
    for reading in &content.readings {
        let keys = [(reading.metric.as_str(), Some(reading.start_at)), (&reading.metric, None)];
        let taken = keys.into_iter().any(|key| {
            let waiting = expected.get_mut(&key);
            waiting.is_some_and(|waiting| {
                let at = waiting.iter().position(|one| is_it(one, reading));
                at.map(|at| waiting.swap_remove(at)).is_some()
            })
        });
        if !taken {
            let value = text(reading.value).or_else(|| reading.symbol.clone());
            let is = truth.values.iter().find(|value| value.metric == reading.metric);
            let is = is.map_or("nothing".to_owned(), |value| value.value.to_string());
            let (metric, unit) = (&reading.metric, reading.unit.as_deref().unwrap_or("no unit"));
            return Some(format!(
                "{metric} is {is}, published {} {unit}",
                value.unwrap_or_default()
            ));
        }
    }
    let left = expected.into_iter().find(|(_, waiting)| !waiting.is_empty());
    left.map(|((metric, _), _)| format!("{metric} is not published"))
}

fn all<'a>(
    truth: &'a Truth,
) -> impl Iterator<Item = ((&'a str, Option<Micros>), Expected<'a>)> + 'a {
    let single = truth.values.iter().map(|value| {
        let expected = Expected {
            value: Some(value.value),
            symbol: None,
            unit: value.unit.as_deref(),
            method: value.method.as_deref(),
            end: None,
        };
        ((value.metric.as_str(), None), expected)
    });
    let series = truth.series.iter().flat_map(|series| {
        (0_i64..).zip(&series.values).filter_map(|(nth, value)| {
            let at = series.start + nth * i64::from(series.every_s) * 1_000_000;
            let expected = Expected {
                value: Some((*value)?),
                symbol: None,
                unit: series.unit.as_deref(),
                method: None,
                end: None,
            };
            Some(((series.metric.as_str(), Some(at)), expected))
        })
    });
    let intervals = truth.intervals.iter().map(|interval| {
        let expected = Expected {
            value: None,
            symbol: Some(&interval.symbol),
            unit: None,
            method: None,
            end: Some(interval.end),
        };
        ((interval.metric.as_str(), Some(interval.start)), expected)
    });
    single.chain(series).chain(intervals)
}

/// How far a value may be from the true one, as a share of it: conversions differ in the sixth digit.
const TOLERANCE: f64 = 1e-5;

fn is_it(expected: &Expected<'_>, reading: &Reading) -> bool {
    let value = match (expected.value, reading.value) {
        (Some(is), Some(said)) => (is - said).abs() <= is.abs() * TOLERANCE + 1e-9,
        (is, said) => is == said,
    };
    let said = reading.method.as_deref();
    value
        && expected.symbol == reading.symbol.as_deref()
        && expected.unit == reading.unit.as_deref()
        && expected.method.is_none_or(|method| Some(method) == said)
        && expected.end.is_none_or(|end| Some(end) == reading.end_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contract::Topic;
    use crate::model::event::Origin;
    use crate::model::id::{ConnectionId, EventId, Source, User};
    use crate::model::metric;
    use crate::model::time::Day;

    fn truth(order: u32, hrv: f64) -> Truth {
        let mut truth = Truth {
            vendor: "whoop".to_owned(),
            vendor_user: "43".to_owned(),
            user: "sim-user-1-0".to_owned(),
            record_type: "recovery".to_owned(),
            record_id: "recovery:a".to_owned(),
            order,
            at: i64::from(order) * 1_000,
            told: true,
            state: Some("final".to_owned()),
            ..Truth::default()
        };
        truth.during((10, 3_600), Some((20, 3_600)), Day(20_541));
        truth.made("hrv_rmssd_sleep_avg", hrv, "sleep_weighted");
        truth
    }

    /// The event that a faultless system makes of a truth.
    fn event(truth: &Truth, revision: i32) -> BiometricEvent {
        let user = User::parse(&truth.user).expect("a user");
        let connection_id = ConnectionId::derive("whoop", "43", &user);
        let readings = truth.values.iter().map(|value| {
            let metric = metric::find(&value.metric).expect("a metric");
            let reading = metric.reading(value.value, 10, Some(20));
            Reading { method: value.method.clone(), ..reading }
        });
        let content = Content {
            start_at: truth.start,
            end_at: truth.end,
            start_offset_s: truth.start_offset_s,
            end_offset_s: truth.end_offset_s,
            local_date: truth.day.as_deref().and_then(Day::parse).map(|day| day.0),
            state: truth.state.clone().unwrap_or_default(),
            readings: readings.collect(),
            ..Content::default()
        };
        BiometricEvent {
            event_id: EventId::derive(connection_id, "recovery", "recovery:a"),
            revision,
            op: if truth.gone { Op::Delete } else { Op::Upsert },
            user_id: user,
            connection_id,
            vendor: truth.vendor.clone(),
            device_type: "whoop".to_owned(),
            via: "direct".to_owned(),
            record_type: truth.record_type.clone(),
            record_id: truth.record_id.clone(),
            merge: Merge::Replace,
            version: Some(truth.at),
            received_at: 0,
            freshness_us: None,
            source: Source { topic: Topic::RawWebhooks, partition: 0, offset: 0, index: 0 },
            origin: Origin::Live,
            normaliser: 1,
            content,
            triggers: Vec::new(),
        }
    }

    fn run(truths: &[Truth], excuses: &[Excuse], events: &[BiometricEvent]) -> Found {
        held(truths, excuses, (&[], &HashSet::new()), events)
    }

    fn held(
        truths: &[Truth],
        excuses: &[Excuse],
        (ends, given_up): (&[End], &HashSet<ConnectionId>),
        events: &[BiometricEvent],
    ) -> Found {
        let mut lines: Vec<Line> =
            truths.iter().map(|truth| Line::Version(Box::new(truth.clone()))).collect();
        lines.extend(excuses.iter().cloned().map(Line::Excuse));
        lines.extend(ends.iter().cloned().map(Line::End));
        compare(&lines, &events.iter().collect::<Vec<_>>(), given_up)
    }

    fn sizes(found: &Found) -> [usize; 4] {
        [&found.missing, &found.wrong, &found.doubled, &found.explained].map(Vec::len)
    }

    #[test]
    fn what_is_as_it_was_is_clean() {
        let (one, two) = (truth(1, 40.5), truth(2, 41.5));
        let both = [event(&one, 1), event(&two, 2)];
        assert_eq!(sizes(&run(&[one.clone(), two.clone()], &[], &both)), [0; 4]);
        let late = [event(&two, 1)];
        assert_eq!(sizes(&run(&[one, two], &[], &late)), [0; 4], "asked for once, and late");
    }

    /// An event of a bucket that takes these samples away, and adds those: their values by their places, which name them.
    fn gathers(
        truth: &Truth,
        revision: i32,
        (gone, new): (&[&str], &[(i64, f64)]),
    ) -> BiometricEvent {
        let mut event = BiometricEvent { merge: Merge::Union, ..event(truth, revision) };
        event.content.removed = gone.iter().map(|id| (*id).to_owned()).collect();
        let metric = metric::find("blood_glucose").expect("a metric");
        let reading = |(place, value): &(i64, f64)| Reading {
            sample_id: Some(place.to_string()),
            ..metric.reading(*value, place * 300_000_000, None)
        };
        event.content.readings = new.iter().map(reading).collect();
        event
    }

    #[test]
    fn a_bucket_is_what_its_events_come_to() {
        let version = |order: i32, values: &[Option<i32>]| {
            let mut truth = truth(u32::try_from(order).expect("small"), 0.0);
            truth.values.clear();
            truth.sampled("blood_glucose", (0, 300), values);
            let last = i64::try_from(values.len()).expect("small") - 1;
            (truth.start, truth.end, truth.day) = (Some(0), Some(last * 300_000_000), None);
            truth
        };
        let versions =
            [version(1, &[Some(90), Some(95)]), version(2, &[Some(90), Some(96), Some(99)])];
        let first = gathers(&versions[0], 1, (&[], &[(0, 90.0), (1, 95.0)]));
        let second = |gone: &[&str], new: &[(i64, f64)]| gathers(&versions[1], 2, (gone, new));
        let fine = second(&["1"], &[(1, 96.0), (2, 99.0)]);
        assert_eq!(sizes(&run(&versions, &[], &[first.clone(), fine])), [0; 4]);
        assert_eq!(
            sizes(&run(&versions, &[], std::slice::from_ref(&first))),
            [1, 0, 0, 0],
            "a part is missing"
        );
        for wrong in [
            second(&[], &[(1, 96.0), (2, 99.0)]),
            second(&["1"], &[(2, 99.0)]),
            second(&["1"], &[(1, 95.5), (2, 99.0)]),
        ] {
            let found = sizes(&run(&versions, &[], &[first.clone(), wrong]));
            assert_eq!(found, [1, 1, 0, 0]);
        }
    }

    #[test]
    fn each_kind_of_finding_is_found() {
        let (one, two) = (truth(1, 40.5), truth(2, 41.5));
        let truths = [one.clone(), two.clone()];
        assert_eq!(sizes(&run(&truths, &[], &[event(&one, 1)])), [1, 0, 0, 0]);
        assert_eq!(sizes(&run(&truths, &[], &[])), [1, 0, 0, 0]);
        let twice = [event(&two, 1), event(&two, 2)];
        assert_eq!(sizes(&run(&truths, &[], &twice)), [0, 0, 1, 0]);
        let back = [event(&two, 1), event(&one, 2)];
        assert_eq!(sizes(&run(&truths, &[], &back)), [0, 1, 0, 0]);
        let excuse = Excuse {
            vendor: "whoop".to_owned(),
            vendor_user: "43".to_owned(),
            record_type: "recovery".to_owned(),
            record_id: "recovery:a".to_owned(),
            order: 2,
            reason: "consent".to_owned(),
        };
        assert_eq!(
            sizes(&run(&truths, std::slice::from_ref(&excuse), &[event(&one, 1)])),
            [0, 0, 0, 1]
        );
        let for_later = Excuse { order: 3, ..excuse };
        assert_eq!(sizes(&run(&truths, &[for_later], &[event(&one, 1)])), [1, 0, 0, 0]);
        let untold = Truth { told: false, ..two };
        assert_eq!(sizes(&run(&[one.clone(), untold], &[], &[event(&one, 1)])), [0; 4]);
    }

    #[test]
    fn the_end_of_a_persons_tokens_explains_what_was_under_way_and_was_given_up() {
        let one = Truth { at: UNDER_WAY_US, ..truth(1, 40.5) };
        let connection = event(&one, 1).connection_id;
        let explained = |at: Micros, given_up: &[ConnectionId]| {
            let end = End {
                vendor: "whoop".to_owned(),
                vendor_user: "43".to_owned(),
                at,
                reason: "consent was withdrawn".to_owned(),
            };
            let given_up = given_up.iter().copied().collect();
            let found = held(std::slice::from_ref(&one), &[], (&[end], &given_up), &[]);
            sizes(&found) == [0, 0, 0, 1]
        };
        assert!(explained(1, &[connection]) && explained(2 * UNDER_WAY_US, &[connection]));
        assert!(!explained(2 * UNDER_WAY_US + 1, &[connection]), "more than a day before");
        assert!(!explained(1, &[]), "nobody says that it was given up");
    }

    #[test]
    fn every_field_counts() {
        let one = truth(1, 40.5);
        type Change = fn(&mut BiometricEvent);
        let changes: [(&str, Change); 11] = [
            ("hrv_rmssd_sleep_avg is 40.5", |it| it.content.readings[0].value = Some(40.6)),
            ("hrv_rmssd_sleep_avg", |it| it.content.readings[0].unit = Some("s".to_owned())),
            ("hrv_rmssd_sleep_avg", |it| it.content.readings[0].method = None),
            ("hrv_sdnn is nothing", |it| it.content.readings[0].metric = "hrv_sdnn".to_owned()),
            ("is not published", |it| it.content.readings.clear()),
            ("hrv_rmssd", |it| it.content.readings.push(it.content.readings[0].clone())),
            ("day is 2026-03-29, published 2026-03-30", |it| it.content.local_date = Some(20_542)),
            ("start is 10", |it| it.content.start_at = Some(11)),
            ("end offset is 3600, published none", |it| it.content.end_offset_s = None),
            ("state", |it| it.content.state = "tentative".to_owned()),
            ("DELETE where it is there", |it| it.op = Op::Delete),
        ];
        for (expected, change) in changes {
            let mut changed = event(&one, 1);
            change(&mut changed);
            let found = run(std::slice::from_ref(&one), &[], &[changed]);
            assert_eq!(sizes(&found), [1, 1, 0, 0], "{expected}");
            assert!(found.wrong[0].contains(expected), "{}", found.wrong[0]);
        }
        let mut stranger = event(&one, 1);
        stranger.record_id = "recovery:b".to_owned();
        let found = run(std::slice::from_ref(&one), &[], &[event(&one, 1), stranger]);
        assert_eq!(sizes(&found), [0, 1, 0, 0], "a record that is not true");
        let gone = Truth { gone: true, ..truth(2, 1.0) };
        let events = [event(&one, 1), event(&gone, 2)];
        assert_eq!(sizes(&run(&[one.clone(), gone.clone()], &[], &events)), [0; 4]);
        assert_eq!(sizes(&run(&[one.clone(), gone.clone()], &[], &[])), [0; 4], "never heard of");
        assert_eq!(sizes(&run(&[one, gone], &[], &events[..1])), [1, 0, 0, 0], "it still stands");
    }
}
