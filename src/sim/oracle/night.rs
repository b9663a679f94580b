//! A night out of samples, the slow way: every moment asks every sample of its group.

use crate::model::event::{Content, Reading, flag};
use crate::model::metric;
use crate::model::time::{Day, Micros};

/// The record type of samples of sleep.
pub(super) const SAMPLES: &str = "samples.sleep_stage";

const HOUR_US: Micros = 3_600_000_000;

/// Weak to strong.
const STRENGTH: [&str; 7] =
    ["in_bed", "unknown", "asleep_unspecified", "light", "rem", "deep", "awake"];
const SLEEP: [&str; 4] = ["asleep_unspecified", "light", "rem", "deep"];
const STAGES: [&str; 3] = ["light", "rem", "deep"];

#[derive(Clone, Debug)]
struct Sample {
    from: Micros,
    to: Micros,
    strength: usize,
    offsets: Offsets,
}

/// UTC offsets at the start and at the end.
pub(super) type Offsets = (Option<i32>, Option<i32>);

/// The record of a date, of these readings and their offsets.
pub(super) fn night(date: i32, readings: Vec<(Reading, Offsets)>) -> Option<Content> {
    let samples = readings.into_iter().filter_map(|(reading, offsets)| {
        let to = reading.end_at?;
        let length = to.checked_sub(reading.start_at)?;
        let good = reading.is_plausible() && length > 0 && length <= 24 * HOUR_US;
        let strength = STRENGTH.iter().position(|name| reading.symbol.as_deref() == Some(name))?;
        good.then_some(Sample { from: reading.start_at, to, strength, offsets })
    });
    let mut samples: Vec<Sample> = samples.collect();
    samples.sort_by_key(|sample| sample.from);
    // What begins within an hour of all that went before belongs to it.
    let mut groups: Vec<Vec<Sample>> = Vec::new();
    let mut until = Micros::MIN;
    for sample in samples {
        let to = sample.to;
        match groups.last_mut().filter(|_| sample.from <= until.saturating_add(HOUR_US)) {
            Some(group) => group.push(sample),
            None => groups.push(vec![sample]),
        }
        until = until.max(to);
    }
    let mut nights: Vec<Night> = groups.iter().filter_map(|group| Night::of(group)).collect();
    nights.retain(|night| night.date() == date);
    nights.sort_by_key(|night| (night.us(&SLEEP), night.to, night.from));
    let main = nights.pop()?;
    nights.sort_by_key(|night| night.from);
    let mut content = main.content();
    for nap in nights {
        let mut reading = nap.reading("sleep_total_duration", nap.us(&SLEEP), None)?;
        reading.context = Some("nap".to_owned());
        content.readings.push(reading);
    }
    Some(content)
}

fn hull(group: &[Sample]) -> (Micros, Micros) {
    let from = group.iter().map(|sample| sample.from).min().unwrap_or(0);
    (from, group.iter().map(|sample| sample.to).max().unwrap_or(0))
}

#[derive(Debug)]
struct Night {
    from: Micros,
    to: Micros,
    /// Offset and whether it is the end's own.
    begins: Option<(i32, bool)>,
    ends: Option<(i32, bool)>,
    in_bed: bool,
    /// From, to, strength.
    parts: Vec<(Micros, Micros, usize)>,
}

impl Night {
    fn of(group: &[Sample]) -> Option<Self> {
        let (from, to) = hull(group);
        let mut moments: Vec<Micros> =
            group.iter().flat_map(|sample| [sample.from, sample.to]).collect();
        moments.sort_unstable();
        moments.dedup();
        let mut parts: Vec<(Micros, Micros, usize)> = Vec::new();
        for pair in moments.windows(2) {
            let &[start, end] = pair else { continue };
            let covers = |sample: &&Sample| sample.from <= start && sample.to >= end;
            let strongest = group.iter().filter(covers).map(|sample| sample.strength).max();
            let Some(strength) = strongest else { continue };
            match parts.last_mut() {
                Some(last) if last.1 == start && last.2 == strength => last.1 = end,
                _ => parts.push((start, end, strength)),
            }
        }
        let begins = group.iter().filter_map(|sample| Some((sample, sample.offsets.0?)));
        let ends = group.iter().filter_map(|sample| Some((sample, sample.offsets.1?)));
        let first = begins.min_by_key(|(sample, offset)| (sample.from, -offset));
        let last = ends.max_by_key(|(sample, offset)| (sample.to, *offset));
        let night = Self {
            from,
            to,
            begins: first.map(|(sample, offset)| (offset, sample.from == from)),
            ends: last.map(|(sample, offset)| (offset, sample.to == to)),
            in_bed: group.iter().any(|sample| sample.strength == 0),
            parts,
        };
        (night.us(&SLEEP) > 0 && to - from >= HOUR_US / 12).then_some(night)
    }

    fn date(&self) -> i32 {
        let offset = self.ends.map_or(0, |(offset, _)| i64::from(offset));
        Day::of_utc(self.to + offset * 1_000_000).0
    }

    fn us(&self, names: &[&str]) -> Micros {
        let is = |strength: usize| STRENGTH.get(strength).is_some_and(|name| names.contains(name));
        self.parts.iter().filter(|part| is(part.2)).map(|part| part.1 - part.0).sum()
    }

    /// Sleep, then awake, then sleep.
    fn awakenings(&self) -> usize {
        let symbols: String = self
            .parts
            .iter()
            .filter_map(|part| match STRENGTH.get(part.2) {
                Some(name) if SLEEP.contains(name) => Some('s'),
                Some(name) if *name == "awake" => Some('w'),
                _ => None,
            })
            .collect();
        let inner = symbols.trim_matches('w');
        inner.split('s').filter(|between| !between.is_empty()).count()
    }

    fn reading(&self, name: &str, us: Micros, method: Option<&str>) -> Option<Reading> {
        let seconds = f64::from(i32::try_from(us / 1_000_000).ok()?);
        self.number(name, seconds, method)
    }

    fn number(&self, name: &str, value: f64, method: Option<&str>) -> Option<Reading> {
        let mut reading = metric::find(name)?.reading(value, self.from, Some(self.to));
        reading.method = method.map(str::to_owned);
        Some(reading)
    }

    fn content(&self) -> Content {
        let staged = self.us(&STAGES) > 0;
        let awake = self.us(&["awake"]);
        let (bed, of) = if self.in_bed {
            (self.us(&STRENGTH), Some("in_bed"))
        } else {
            (self.to - self.from, Some("session"))
        };
        let mut readings = Vec::new();
        let mut add = |reading: Option<Reading>| readings.extend(reading);
        add(self.reading("sleep_session", self.to - self.from, None));
        add(self.reading("sleep_total_duration", self.us(&SLEEP), None));
        if staged {
            add(self.reading("sleep_deep_duration", self.us(&["deep"]), None));
            add(self.reading("sleep_light_duration", self.us(&["light"]), None));
            add(self.reading("sleep_rem_duration", self.us(&["rem"]), None));
        }
        if staged || awake > 0 {
            add(self.reading("sleep_awake_duration", awake, None));
        }
        add(self.reading("sleep_time_in_bed", bed, of));
        let share = i32::try_from(self.us(&SLEEP) * 10_000 / bed.max(1)).unwrap_or(0);
        add(self.number("sleep_efficiency", f64::from(share) / 100.0, of));
        if staged || awake > 0 {
            let count = f64::from(i32::try_from(self.awakenings()).unwrap_or(0));
            add(self.number("sleep_awakenings", count, None));
        }
        if self.parts.len() <= 1_440 {
            for (from, to, strength) in &self.parts {
                let symbol = STRENGTH.get(*strength).copied().unwrap_or_default();
                let metric = metric::find("sleep_stage");
                add(metric.and_then(|metric| metric.symbol(symbol, *from, Some(*to))));
            }
        }
        let provenance = match (self.begins, self.ends) {
            (Some((_, true)), Some((_, true))) => "device",
            (None, None) => "unknown",
            _ => "inferred",
        };
        let (begins, ends) = (self.begins.map(|at| at.0), self.ends.map(|at| at.0));
        Content {
            start_at: Some(self.from),
            end_at: Some(self.to),
            start_offset_s: begins,
            end_offset_s: ends,
            offset_provenance: provenance.to_owned(),
            local_date: ends.map(|_| self.date()),
            day_rule: Some(if ends.is_some() { "sleep_end" } else { "utc_end" }.to_owned()),
            state: "final".to_owned(),
            flags: match (begins, ends) {
                (Some(begins), Some(ends)) if begins != ends => {
                    vec![flag::OFFSET_CHANGE.to_owned()]
                }
                _ => vec![],
            },
            readings,
            ..Content::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::{Doing, Stage};
    use crate::pipeline::sessions::session;
    use proptest::prelude::*;

    const MINUTE: Micros = 60_000_000;

    fn hours() -> impl Strategy<Value = Option<i32>> {
        prop::option::of(-18..=18_i32)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Two that were written apart say the same: the pipeline's and this one.
        #[test]
        fn the_fast_way_is_the_slow_way(samples in prop::collection::vec(
            (0..4320_i64, -5..200_i64, 0..7_usize, hours(), hours()), 0..16
        )) {
            let metric = metric::find("sleep_stage").expect("a metric");
            let stages: Vec<Stage> = samples.iter().map(|(from, length, doing, start, end)| Stage {
                start_at: from * MINUTE,
                end_at: (from + length) * MINUTE,
                doing: Doing::ALL[*doing],
                start_offset_s: start.map(|hours| hours * 3600),
                end_offset_s: end.map(|hours| hours * 3600),
            }).collect();
            let readings = || stages.iter().map(|stage| {
                let reading = metric.symbol(stage.doing.symbol(), stage.start_at, Some(stage.end_at));
                (reading.expect("a stage"), (stage.start_offset_s, stage.end_offset_s))
            }).collect();
            for date in -1..=5 {
                prop_assert_eq!(session(Day(date), &stages), night(date, readings()));
            }
        }
    }
}
