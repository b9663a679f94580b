//! Sleep sessions, made of samples of sleep: a pure function of what three buckets hold.
//!
//! A phone or a watch writes no nights, only samples: asleep from here to there, in bed, awake. A *session* is a run of
//! one source's samples without a pause of more than [`PAUSE_MAX_US`] in which somebody slept; it belongs to the
//! person's local date at its end (`domain.md` §2.3), and what a date has is one record: its longest session, the
//! shorter ones beside it as naps. Nobody flags a nap, so nothing but its length tells it from a night.
//!
//! # Why three buckets, and why that is enough
//! The record of a date is made of the bucket of that UTC day and its two neighbours, whatever came last: so it
//! depends on what is in the buckets and on nothing else, no order of arrival, no batch, no push. A session that
//! ends on a local date ends, in UTC, from 18 h before that day to 18 h after it, so no later bucket can go on with
//! it; a part of it that began before the three buckets, which takes a session of 10 h and the most eastern
//! zones there are, is left out. What stands in a bucket can show in the records of its own date and of the two
//! beside it: that is all that a change must look at.
//!
//! # What counts
//! - At each moment a person does one thing: where samples overlap, the strongest of them ([`Doing::ALL`]). So no
//!   minute counts twice, and time in bed never counts as sleep.
//! - A sample without a length, or longer than a day, is none; a session shorter than five minutes is none.
//! - An offset that the last sample lacks is taken from the session's others; where none has one, the date is not
//!   known: the record then stands under the UTC date of its end and has no local date. Never silently UTC.
//! - Deep, light and rapid-eye-movement sleep are told where the source tells stages apart at all, and are then
//!   truly 0; else they are absent.

use std::collections::BTreeMap;

use crate::model::event::{Content, Reading, flag};
use crate::model::metric;
use crate::model::sample::{Doing, Stage};
use crate::model::time::{Day, Micros};

/// Two samples with a longer pause between them are of two sessions. Ours: no source says where a night ends, getting
/// up for half an hour does not end one, and a watch writes being awake as samples anyway.
pub const PAUSE_MAX_US: Micros = 60 * 60 * 1_000_000;

/// A longer sample is a mistake: the longest session that is plausible (`metrics.json`, `sleep_session`).
const SAMPLE_MAX_US: Micros = 24 * 3600 * 1_000_000;

/// A shorter session is none (`metrics.json`, `sleep_session`).
const SESSION_MIN_US: Micros = 300 * 1_000_000;

/// The most stages that are told one by one, one a minute for a day: samples are bounded only by what a body can hold,
/// and an event must fit into its topic. What is finer stands in the buckets.
const STAGES_MAX: usize = 1_440;

/// The date of a session without any offset stands here as the rule.
const BY_UTC: &str = "utc_end";
const BY_END: &str = "sleep_end";

/// What the samples of a date's bucket and of its two neighbours say about that date's sleep, one source's; nothing
/// where nobody slept. App and device are for the caller to fill in.
#[must_use]
pub fn session<'a>(date: Day, samples: impl IntoIterator<Item = &'a Stage>) -> Option<Content> {
    let mut sessions: Vec<Session> = runs(samples)
        .into_iter()
        .filter_map(|run| Session::of(&run))
        .filter(|session| session.day() == date)
        .collect();
    sessions
        .sort_unstable_by_key(|session| (session.asleep_us(), session.end_at, session.start_at));
    let main = sessions.pop()?;
    // As they came in the day.
    sessions.sort_unstable_by_key(|session| session.start_at);
    Some(main.content(&sessions))
}

/// Samples in runs without a pause, in order of time.
fn runs<'a>(samples: impl IntoIterator<Item = &'a Stage>) -> Vec<Vec<Stage>> {
    let has_length = |stage: &&Stage| {
        stage.end_at > stage.start_at
            && stage.end_at.saturating_sub(stage.start_at) <= SAMPLE_MAX_US
    };
    let mut sorted: Vec<Stage> = samples.into_iter().filter(has_length).copied().collect();
    // By all that they say, so that the order they came in shows nowhere.
    sorted.sort_unstable();
    let mut runs: Vec<Vec<Stage>> = Vec::new();
    let mut end_at = Micros::MIN;
    for stage in sorted {
        match runs.last_mut() {
            Some(run) if stage.start_at <= end_at.saturating_add(PAUSE_MAX_US) => run.push(stage),
            _ => runs.push(vec![stage]),
        }
        end_at = end_at.max(stage.end_at);
    }
    runs
}

/// A run in which somebody slept.
#[derive(Debug)]
struct Session {
    start_at: Micros,
    end_at: Micros,
    start_offset: Offset,
    end_offset: Offset,
    /// What was done, moment by moment, in order; equal neighbours are one.
    spans: Vec<Span>,
    /// Whether the source said when the person was in bed.
    in_bed: bool,
}

/// One thing done from here to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start_at: Micros,
    end_at: Micros,
    doing: Doing,
}

/// An offset, and whether the sample that it is needed of said it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offset {
    seconds: Option<i32>,
    own: bool,
}

impl Session {
    fn of(run: &[Stage]) -> Option<Self> {
        let spans = spans(run);
        let start_at = run.iter().map(|stage| stage.start_at).min()?;
        let end_at = run.iter().map(|stage| stage.end_at).max()?;
        let slept = spans.iter().any(|span| span.doing.is_asleep());
        (slept && end_at - start_at >= SESSION_MIN_US).then(|| Self {
            start_at,
            end_at,
            start_offset: offset(run, |one| (start_at - one.start_at, one.start_offset_s)),
            end_offset: offset(run, |one| (one.end_at - end_at, one.end_offset_s)),
            in_bed: run.iter().any(|stage| stage.doing == Doing::InBed),
            spans,
        })
    }

    /// The date that it belongs to: the person's at its end, or where that is not known the UTC date.
    fn day(&self) -> Day {
        let offset = Micros::from(self.end_offset.seconds.unwrap_or(0));
        Day::of_utc(self.end_at.saturating_add(offset * 1_000_000))
    }

    /// How long something was done, µs.
    fn doing_us(&self, is: impl Fn(Doing) -> bool) -> Micros {
        self.spans
            .iter()
            .filter(|span| is(span.doing))
            .map(|span| span.end_at - span.start_at)
            .sum()
    }

    fn asleep_us(&self) -> Micros {
        self.doing_us(Doing::is_asleep)
    }

    /// How often somebody woke up and slept again.
    fn awakenings(&self) -> i32 {
        let (mut count, mut slept, mut woke) = (0, false, false);
        for span in &self.spans {
            if span.doing.is_asleep() {
                count += i32::from(slept && woke);
                (slept, woke) = (true, false);
            } else if span.doing == Doing::Awake {
                woke = true;
            }
        }
        count
    }

    fn content(&self, naps: &[Self]) -> Content {
        let (start, end) = (self.start_offset, self.end_offset);
        let provenance = match (start.seconds, end.seconds) {
            (None, None) => "unknown",
            _ if start.own && end.own => "device",
            _ => "inferred",
        };
        let moved = matches!((start.seconds, end.seconds), (Some(from), Some(to)) if from != to);
        let known = end.seconds.is_some();
        let mut readings = self.readings();
        readings.extend(naps.iter().filter_map(Self::nap));
        Content {
            start_at: Some(self.start_at),
            end_at: Some(self.end_at),
            start_offset_s: start.seconds,
            end_offset_s: end.seconds,
            offset_provenance: provenance.to_owned(),
            local_date: known.then(|| self.day().0),
            day_rule: Some(if known { BY_END } else { BY_UTC }.to_owned()),
            state: "final".to_owned(),
            attributes: BTreeMap::new(),
            flags: moved.then(|| flag::OFFSET_CHANGE.to_owned()).into_iter().collect(),
            readings,
            ..Content::default()
        }
    }

    /// The session's readings: lengths first, then its stages, unless there are more than an event can hold.
    fn readings(&self) -> Vec<Reading> {
        let asleep = self.asleep_us();
        let length = self.end_at - self.start_at;
        // In bed is what the source says, and all else that it says the person did there; else the whole of it.
        let (bed, denominator) =
            if self.in_bed { (self.doing_us(|_| true), "in_bed") } else { (length, "session") };
        let staged = self.spans.iter().any(|span| span.doing.is_stage());
        let mut lengths =
            vec![("sleep_session", length, None), ("sleep_total_duration", asleep, None)];
        if staged {
            for (name, doing) in [
                ("sleep_deep_duration", Doing::Deep),
                ("sleep_light_duration", Doing::Light),
                ("sleep_rem_duration", Doing::Rem),
            ] {
                lengths.push((name, self.doing_us(|one| one == doing), None));
            }
        }
        let awake = self.doing_us(|doing| doing == Doing::Awake);
        if staged || awake > 0 {
            lengths.push(("sleep_awake_duration", awake, None));
        }
        lengths.push(("sleep_time_in_bed", bed, Some(denominator)));
        let mut readings: Vec<Reading> = lengths
            .into_iter()
            .filter_map(|(name, us, method)| self.reading(name, seconds(us), method))
            .collect();
        let share = percent(asleep, bed);
        readings.extend(self.reading("sleep_efficiency", share, Some(denominator)));
        if staged || awake > 0 {
            let count = f64::from(self.awakenings());
            readings.extend(self.reading("sleep_awakenings", count, None));
        }
        if self.spans.len() <= STAGES_MAX {
            readings.extend(self.spans.iter().filter_map(Span::reading));
        }
        readings
    }

    fn nap(&self) -> Option<Reading> {
        let reading = self.reading("sleep_total_duration", seconds(self.asleep_us()), None)?;
        Some(Reading { context: Some("nap".to_owned()), ..reading })
    }

    fn reading(&self, name: &str, value: f64, method: Option<&str>) -> Option<Reading> {
        let reading = metric::find(name)?.reading(value, self.start_at, Some(self.end_at));
        Some(Reading { method: method.map(str::to_owned), ..reading })
    }
}

impl Span {
    fn reading(&self) -> Option<Reading> {
        let metric = metric::find("sleep_stage")?;
        metric.symbol(self.doing.symbol(), self.start_at, Some(self.end_at))
    }
}

/// The offset of the sample that lies nearest to an end of its run, or of the nearest one that has any; of two as near,
/// the more eastern. `of` gives how near a sample lies, 0 at the end and below it elsewhere, and its offset there.
fn offset(run: &[Stage], of: impl Fn(&Stage) -> (Micros, Option<i32>)) -> Offset {
    let known = run.iter().map(of).filter_map(|(nearness, offset)| Some((nearness, offset?)));
    let nearest = known.max();
    Offset {
        seconds: nearest.map(|(_, offset)| offset),
        own: nearest.is_some_and(|(nearness, _)| nearness == 0),
    }
}

/// What was done at each moment of a run: the strongest of what its samples say.
fn spans(run: &[Stage]) -> Vec<Span> {
    // Where a sample begins and where one ends, in order of time.
    let mut edges: Vec<(Micros, Doing, i32)> = run
        .iter()
        .flat_map(|stage| [(stage.start_at, stage.doing, 1), (stage.end_at, stage.doing, -1)])
        .collect();
    edges.sort_unstable();
    let mut open: BTreeMap<Doing, i32> = BTreeMap::new();
    let mut spans: Vec<Span> = Vec::new();
    let mut from = Micros::MIN;
    for (at, doing, step) in edges {
        let strongest = open.iter().rev().find(|(_, count)| **count > 0).map(|(doing, _)| *doing);
        if let Some(doing) = strongest.filter(|_| at > from) {
            match spans.last_mut() {
                Some(last) if last.end_at == from && last.doing == doing => last.end_at = at,
                _ => spans.push(Span { start_at: from, end_at: at, doing }),
            }
        }
        from = at;
        *open.entry(doing).or_default() += step;
    }
    spans
}

/// Whole seconds. A session of more than 68 years is no session.
fn seconds(us: Micros) -> f64 {
    f64::from(i32::try_from(us / 1_000_000).unwrap_or(i32::MAX))
}

/// A share in per cent, to a hundredth.
fn percent(part: Micros, whole: Micros) -> f64 {
    let hundredths = part.saturating_mul(10_000).checked_div(whole).unwrap_or(0);
    f64::from(i32::try_from(hundredths).unwrap_or(i32::MAX)) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Micros = 60_000_000;
    /// Midnight UTC of the date that most of these nights belong to.
    const DAY: Day = Day(20_541);

    /// Minutes from midnight of [`DAY`].
    fn slept(from: i64, to: i64, doing: Doing, offset_s: Option<i32>) -> Stage {
        let at = |minute| DAY.start_utc_us() + minute * MINUTE;
        let (start_offset_s, end_offset_s) = (offset_s, offset_s);
        Stage { start_at: at(from), end_at: at(to), doing, start_offset_s, end_offset_s }
    }

    fn value(content: &Content, name: &str) -> Option<f64> {
        let mut found = content.readings.iter().filter(|reading| reading.metric == name);
        found.next().and_then(|reading| reading.value)
    }

    fn minutes(content: &Content, name: &str) -> Option<f64> {
        value(content, name).map(|seconds| seconds / 60.0)
    }

    #[test]
    fn a_night_over_midnight_belongs_to_the_morning() {
        let zone = Some(7200);
        let night = [
            slept(-140, 310, Doing::InBed, zone),
            slept(-120, 0, Doing::Light, zone),
            slept(0, 90, Doing::Deep, zone),
            slept(90, 100, Doing::Awake, zone),
            slept(100, 300, Doing::Rem, zone),
        ];
        let content = session(DAY, &night).expect("a night");
        assert_eq!(content.local_date, Some(DAY.0));
        assert_eq!(content.day_rule.as_deref(), Some("sleep_end"));
        assert_eq!((content.start_offset_s, content.end_offset_s), (zone, zone));
        assert_eq!(content.offset_provenance, "device");
        assert_eq!(content.flags, [""; 0]);
        for (name, expected) in [
            ("sleep_session", 450.0),
            ("sleep_total_duration", 410.0),
            ("sleep_light_duration", 120.0),
            ("sleep_deep_duration", 90.0),
            ("sleep_rem_duration", 200.0),
            ("sleep_awake_duration", 10.0),
            ("sleep_time_in_bed", 450.0),
        ] {
            assert_eq!(minutes(&content, name), Some(expected), "{name}");
        }
        assert_eq!(value(&content, "sleep_awakenings"), Some(1.0));
        assert_eq!(value(&content, "sleep_efficiency"), Some(91.11));
        let stages = content.readings.iter().filter(|one| one.metric == "sleep_stage");
        let stages: Vec<_> = stages.filter_map(|one| one.symbol.as_deref()).collect();
        assert_eq!(stages, ["in_bed", "light", "deep", "awake", "rem", "in_bed"]);
        for other in [Day(DAY.0 - 1), Day(DAY.0 + 1)] {
            assert_eq!(session(other, &night), None);
        }
    }

    #[test]
    fn overlapping_samples_count_a_minute_once_and_the_strongest_wins() {
        let night = [
            slept(0, 480, Doing::Asleep, None),
            slept(0, 480, Doing::Asleep, None),
            slept(60, 120, Doing::Deep, None),
            slept(90, 150, Doing::Light, None),
            slept(100, 110, Doing::Awake, None),
        ];
        let content = session(DAY, &night).expect("a night");
        assert_eq!(minutes(&content, "sleep_total_duration"), Some(470.0));
        assert_eq!(minutes(&content, "sleep_deep_duration"), Some(50.0));
        assert_eq!(minutes(&content, "sleep_light_duration"), Some(30.0));
        assert_eq!(minutes(&content, "sleep_awake_duration"), Some(10.0));
    }

    #[test]
    fn lying_in_bed_is_no_sleep() {
        assert_eq!(session(DAY, &[slept(0, 480, Doing::InBed, None)]), None);
        assert_eq!(session(DAY, &[slept(0, 480, Doing::Awake, None)]), None);
        let content = session(DAY, &[slept(0, 480, Doing::Asleep, None)]).expect("a night");
        assert_eq!(value(&content, "sleep_deep_duration"), None, "absent is not 0");
        assert_eq!(value(&content, "sleep_awake_duration"), None);
        assert_eq!(minutes(&content, "sleep_time_in_bed"), Some(480.0), "the whole of it");
    }

    #[test]
    fn without_an_offset_the_date_is_not_known() {
        let content = session(DAY, &[slept(0, 480, Doing::Asleep, None)]).expect("a night");
        assert_eq!((content.local_date, content.end_offset_s), (None, None));
        assert_eq!(content.offset_provenance, "unknown");
        assert_eq!(content.day_rule.as_deref(), Some("utc_end"));
    }

    #[test]
    fn an_offset_is_taken_from_the_nearest_sample_that_has_one() {
        let tokyo = Some(9 * 3600);
        let night = [
            slept(-600, -400, Doing::Asleep, None),
            slept(-400, -300, Doing::Asleep, tokyo),
            slept(-300, -200, Doing::Asleep, Some(0)),
            slept(-200, -100, Doing::Asleep, None),
        ];
        // Ends 22:20 UTC the day before: with the nearest offset, 0, on that day.
        let before = Day(DAY.0 - 1);
        let content = session(before, &night).expect("a night");
        assert_eq!((content.start_offset_s, content.end_offset_s), (tokyo, Some(0)));
        assert_eq!(content.offset_provenance, "inferred");
        assert_eq!(content.flags, [flag::OFFSET_CHANGE]);
        // With Tokyo's, in the morning after.
        let content = session(DAY, &night[..2]).map(|content| content.local_date);
        assert_eq!(content, Some(Some(DAY.0)));
        assert_eq!(session(before, &night[..2]), None);
    }

    #[test]
    fn a_pause_of_an_hour_ends_no_night_and_a_longer_one_makes_a_nap() {
        let first = slept(0, 240, Doing::Light, Some(0));
        let joined = session(DAY, &[first, slept(300, 400, Doing::Deep, Some(0))]).expect("one");
        assert_eq!(minutes(&joined, "sleep_total_duration"), Some(340.0));
        assert_eq!(minutes(&joined, "sleep_session"), Some(400.0));
        assert_eq!(minutes(&joined, "sleep_time_in_bed"), Some(400.0));
        let apart = session(DAY, &[first, slept(301, 401, Doing::Deep, Some(0))]).expect("two");
        assert_eq!(minutes(&apart, "sleep_total_duration"), Some(240.0), "the longest");
        let nap = apart.readings.last().expect("readings");
        assert_eq!(nap.context.as_deref(), Some("nap"));
        assert_eq!((nap.metric.as_str(), nap.value), ("sleep_total_duration", Some(6000.0)));
        // The longest by sleep, not by time in bed; of two as long, the later.
        let later = [
            slept(-480, -10, Doing::InBed, Some(0)),
            slept(-240, -10, Doing::Asleep, Some(0)),
            slept(100, 330, Doing::Asleep, Some(0)),
            slept(400, 630, Doing::Asleep, Some(0)),
        ];
        let content = session(DAY, &later).expect("a night");
        assert_eq!(content.start_at, Some(later[3].start_at));
    }

    #[test]
    fn what_has_no_length_or_is_too_long_is_none() {
        for bad in [
            slept(10, 10, Doing::Asleep, None),
            slept(10, 5, Doing::Asleep, None),
            slept(10, 14, Doing::Asleep, None),
            slept(-1000, 441, Doing::Asleep, None),
        ] {
            assert_eq!(session(DAY, &[bad]), None, "{bad:?}");
        }
        assert!(session(DAY, &[slept(-1000, 440, Doing::Asleep, None)]).is_some(), "a day is");
        assert!(session(DAY, &[slept(10, 15, Doing::Asleep, None)]).is_some(), "five minutes are");
        let ends =
            |at| Stage { start_at: at, end_at: Micros::MAX, ..slept(0, 1, Doing::Deep, None) };
        assert_eq!(session(DAY, &[ends(Micros::MIN), ends(Micros::MAX - 1), ends(0)]), None);
    }

    #[test]
    fn more_stages_than_an_event_can_hold_are_not_told_one_by_one() {
        let doing = |n: i64| if n % 2 == 0 { Doing::Light } else { Doing::Deep };
        let many = |count: i64| -> Vec<Stage> {
            let at = |n: i64| DAY.start_utc_us() + n * 1_000_000;
            let stage =
                |n| Stage { start_at: at(n), end_at: at(n + 1), ..slept(0, 0, doing(n), None) };
            (0..count).map(stage).collect()
        };
        let told = |count| {
            let content = session(DAY, &many(count)).expect("a night");
            assert_eq!(
                value(&content, "sleep_total_duration").map(|s| s.to_string()),
                Some(count.to_string())
            );
            content.readings.iter().filter(|reading| reading.metric == "sleep_stage").count()
        };
        assert_eq!(told(1_440), 1_440);
        assert_eq!(told(1_441), 0);
    }

    #[test]
    fn a_night_has_the_offset_of_each_end() {
        // Summer time begins at 01:00 UTC, in the middle of a sample.
        let mut night = slept(-60, 300, Doing::Asleep, Some(3600));
        night.end_offset_s = Some(7200);
        let content = session(DAY, &[night]).expect("a night");
        assert_eq!((content.start_offset_s, content.end_offset_s), (Some(3600), Some(7200)));
        assert_eq!(content.offset_provenance, "device");
        assert_eq!(content.flags, [flag::OFFSET_CHANGE]);
        assert_eq!(minutes(&content, "sleep_total_duration"), Some(360.0), "by UTC, not the clock");
    }

    fn stage() -> impl Strategy<Value = Stage> {
        let offset = prop_oneof![Just(None), (-18..=18_i32).prop_map(|hours| Some(hours * 3600))];
        (-1440..2880_i64, 1..200_i64, 0..7_usize, offset).prop_map(
            |(from, length, doing, offset)| slept(from, from + length, Doing::ALL[doing], offset),
        )
    }

    /// The UTC days that the record of a date is made of.
    fn around(date: Day, all: &[Stage]) -> Vec<Stage> {
        let near = |stage: &&Stage| (Day::of_utc(stage.start_at).0 - date.0).abs() <= 1;
        all.iter().filter(near).copied().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_order_of_samples_shows_nowhere(
            (stages, shuffled) in prop::collection::vec(stage(), 0..24)
                .prop_flat_map(|stages| (Just(stages.clone()), Just(stages).prop_shuffle()))
        ) {
            for date in DAY.0 - 2..=DAY.0 + 3 {
                prop_assert_eq!(session(Day(date), &stages), session(Day(date), &shuffled));
            }
        }

        #[test]
        fn no_minute_counts_twice(stages in prop::collection::vec(stage(), 0..30)) {
            let mut asleep: Vec<(Micros, Micros)> = Vec::new();
            for date in DAY.0 - 4..=DAY.0 + 5 {
                let Some(content) = session(Day(date), &around(Day(date), &stages)) else { continue };
                let known = content.local_date.unwrap_or(date);
                prop_assert_eq!(known, date);
                let length = content.end_at.zip(content.start_at).map(|(end, start)| end - start);
                let spans = content.readings.iter().filter(|one| one.metric == "sleep_stage");
                let mut sum = 0;
                for span in spans {
                    let doing = span.symbol.as_deref().and_then(Doing::parse).expect("a stage");
                    let end = span.end_at.expect("an end");
                    let covered = stages.iter().any(|stage| stage.doing == doing
                        && stage.start_at <= span.start_at && stage.end_at > span.start_at);
                    prop_assert!(covered, "nothing is made up");
                    if doing.is_asleep() {
                        sum += end - span.start_at;
                        asleep.push((span.start_at, end));
                    }
                }
                prop_assert_eq!(value(&content, "sleep_total_duration"), Some(seconds(sum)));
                prop_assert!(Some(sum) <= length);
                let bed = value(&content, "sleep_time_in_bed").expect("told");
                prop_assert!(seconds(sum) <= bed);
                let stages = ["sleep_deep_duration", "sleep_light_duration", "sleep_rem_duration"];
                let staged: f64 = stages.into_iter().filter_map(|name| value(&content, name)).sum();
                prop_assert!(staged <= seconds(sum));
            }
            // Nor in two sessions of two dates.
            asleep.sort_unstable();
            for pair in asleep.windows(2) {
                prop_assert!(pair[0].1 <= pair[1].0, "{:?}", pair);
            }
        }
    }
}
