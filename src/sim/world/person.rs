//! Invented people and what happens to them: they sleep, train, fall ill, travel, and their clocks change.
//!
//! One life, whoever measures it: two devices of one person tell of the same night, each in its own way. All values
//! are whole numbers of a named fraction, so that a vendor's text and the ledger agree to the last digit.

use super::dice::{Draw, Seed};
use super::place::{HOUR, MINUTE, Place, SECOND};
use super::truth::Interval;
use crate::model::time::{Day, Micros};

/// Where people live, and whither they go: places of one row are near enough for a night's flight.
pub(super) const ROUTES: &[(&str, &str)] = &[
    ("Europe/Berlin", "America/New_York"),
    ("Europe/London", "Asia/Kolkata"),
    ("America/New_York", "America/Los_Angeles"),
    ("America/Los_Angeles", "Pacific/Honolulu"),
    ("Australia/Sydney", "Asia/Tokyo"),
    ("Asia/Kolkata", "Europe/Berlin"),
    ("America/Sao_Paulo", "Europe/Lisbon"),
];

/// How long a phase of sleep is in which a device looks, s.
pub const PHASE_S: i32 = 300;

/// Somebody who does not exist.
#[derive(Clone, Debug)]
pub struct Person {
    /// The number, from 0.
    pub number: u32,
    seed: Seed,
    home: &'static str,
    away: &'static str,
    /// From which day to which (of the simulated ones, from 0) they are away.
    trip: (i32, i32),
    /// From which day to which they are ill.
    illness: (i32, i32),
    /// From which day on their clock is an hour ahead, whatever the season.
    changed: Option<i32>,
    /// When they go to bed, minutes after midnight; before it where negative.
    bedtime: i32,
    /// How long they sleep, phases.
    phases: i32,
    /// Resting heart rate, /min.
    resting: i32,
    /// rMSSD of a good night, µs.
    rmssd_us: i32,
    /// Breaths in a hundred minutes.
    breaths: i32,
    /// Skin, hundredths of a degree Celsius.
    skin: i32,
}

/// What the phases of a night are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Deep sleep.
    Deep,
    /// Light sleep.
    Light,
    /// Sleep with rapid eye movements.
    Rem,
    /// Awake in bed.
    Awake,
}

impl Phase {
    /// Its name in our vocabulary.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Deep => "deep",
            Self::Light => "light",
            Self::Rem => "rem",
            Self::Awake => "awake",
        }
    }
}

/// The mean of samples, times a number, rounded down.
#[must_use]
pub fn mean(samples: &[Option<i32>], times: i32) -> i32 {
    let count = i32::try_from(samples.iter().flatten().count()).unwrap_or(1).max(1);
    samples.iter().flatten().sum::<i32>() * times / count
}

/// A sleep, by night or by day.
#[derive(Clone, Debug)]
pub struct Sleep {
    /// Its number among this person's: a day has one night, and may have a nap.
    pub number: u64,
    /// When it began, µs; a whole number of phases before its end.
    pub start: Micros,
    /// When it ended, µs.
    pub end: Micros,
    /// The offset where it began, seconds.
    pub start_offset_s: i32,
    /// The offset where it ended.
    pub end_offset_s: i32,
    /// The day on which it ended there.
    pub day: Day,
    /// Whether it is a nap.
    pub nap: bool,
    /// Its phases, one each [`PHASE_S`].
    pub phases: Vec<Phase>,
    /// The rMSSD of each phase, ms; absent where it was not measured.
    pub hrv: Vec<Option<i32>>,
    /// The heart rate of each phase, /min.
    pub heart: Vec<Option<i32>>,
    /// rMSSD of the whole, µs.
    pub rmssd_us: i32,
    /// Resting heart rate, /min.
    pub resting: i32,
    /// Breaths in a hundred minutes.
    pub breaths: i32,
    /// Oxygen, tenths of a percent.
    pub oxygen: i32,
    /// Skin, hundredths of a degree Celsius.
    pub skin: i32,
    /// Skin against this person's own, hundredths of a degree.
    pub deviation: i32,
    /// Whether the person was ill.
    pub ill: bool,
}

/// A workout.
#[derive(Clone, Debug)]
pub struct Workout {
    /// Its number among this person's.
    pub number: u64,
    /// What it was.
    pub running: bool,
    /// When it began, µs.
    pub start: Micros,
    /// When it ended.
    pub end: Micros,
    /// The offset there, seconds.
    pub offset_s: i32,
    /// The day there.
    pub day: Day,
    /// Mean heart rate, /min.
    pub mean: i32,
    /// Highest heart rate.
    pub highest: i32,
    /// Energy, cal (thousandths of a kcal).
    pub energy: i32,
    /// How far, m.
    pub distance: i32,
    /// How hard, thousandths of WHOOP's strain.
    pub strain: i32,
}

/// A simulated day of a person, which a night begins.
#[derive(Clone, Debug)]
pub struct Lived {
    /// Its number, from 0.
    pub number: i32,
    /// The night that ended on it.
    pub night: Sleep,
    /// A nap in the afternoon.
    pub nap: Option<Sleep>,
    /// A workout in the evening.
    pub workout: Option<Workout>,
    /// Steps.
    pub steps: i32,
    /// Energy of being active, kcal.
    pub active: i32,
    /// Energy in all, kcal.
    pub energy: i32,
    /// The offset in the middle of the day.
    pub offset_s: i32,
    /// When midday was there, µs.
    pub noon: Micros,
}

/// The offset of a person's clock at a moment: it changes over night.
#[must_use]
pub fn offset_at(life: &[Lived], at: Micros) -> i32 {
    let lived = life.iter().rev().find(|lived| lived.night.start <= at).or(life.first());
    lived.map_or(
        0,
        |lived| {
            if at < lived.night.end { lived.night.start_offset_s } else { lived.offset_s }
        },
    )
}

impl Person {
    /// The person of this number.
    #[must_use]
    pub fn new(seed: Seed, number: u32, days: i32) -> Self {
        let seed = seed.of("person", u64::from(number));
        let mut dice = seed.dice();
        let (home, away) = dice.pick(ROUTES, ("Europe/Berlin", "America/New_York"));
        let spell = |dice: &mut Draw, low, high| {
            let from = dice.between(2, days.max(4) - 2);
            (from, from + dice.between(low, high))
        };
        Self {
            number,
            seed,
            home,
            away,
            trip: spell(&mut dice, 3, 12),
            illness: spell(&mut dice, 2, 5),
            changed: None,
            bedtime: dice.between(-90, 60),
            phases: dice.between(84, 104),
            resting: dice.between(44, 64),
            rmssd_us: dice.between(28_000, 95_000),
            breaths: dice.between(1_250, 1_650),
            skin: dice.between(3_300, 3_450),
        }
    }

    /// The same person, whose clock changes in a night of these days.
    #[must_use]
    pub fn changing_clocks(mut self, days: i32) -> Self {
        self.changed = Some(self.seed.of("clock", 0).dice().between(1, days.max(2) - 1));
        self
    }

    /// The seed of what only this person has.
    #[must_use]
    pub const fn seed(&self) -> Seed {
        self.seed
    }

    /// The days from this one on, so many of them.
    #[must_use]
    pub fn life(&self, first: Day, days: i32) -> Vec<Lived> {
        let mut lived: Vec<Lived> = Vec::new();
        for number in 0..days {
            let before = lived.last().map(|day| day.night.end);
            lived.push(self.day(first, number, before));
        }
        lived
    }

    fn place(&self, number: i32) -> Place {
        let away = (self.trip.0..self.trip.1).contains(&number);
        let ahead = self.changed.is_some_and(|changed| changed <= number);
        Place::named(if away { self.away } else { self.home }).ahead(3_600 * i32::from(ahead))
    }

    fn day(&self, first: Day, number: i32, before: Option<Micros>) -> Lived {
        let civil = Day(first.0.saturating_add(number));
        let seed = self.seed.of("day", u64::from(number.unsigned_abs()));
        let mut dice = seed.dice();
        let (yesterday, today) = (self.place(number - 1), self.place(number));
        let late = dice.between(-40, 70);
        let bed = yesterday.at(civil, self.bedtime + late);
        // Who came from far in the east is not tired yet.
        let bed = before.map_or(bed, |before| bed.max(before + 11 * HOUR));
        let phases = (self.phases + dice.between(-14, 10)).max(40);
        let night = self.sleep(seed, u64::from(number.unsigned_abs()) * 2, (bed, phases), number);
        let ended = |mut sleep: Sleep, from: &Place| {
            sleep.start_offset_s = from.offset_s(sleep.start);
            sleep.end_offset_s = today.offset_s(sleep.end);
            sleep.day = today.day(sleep.end);
            sleep
        };
        let night = ended(night, &yesterday);
        let nap = dice.percent(12).then(|| {
            let number_of_nap = u64::from(number.unsigned_abs()) * 2 + 1;
            let start = night.end + 6 * HOUR + i64::from(dice.between(0, 60)) * MINUTE;
            let nap = self.sleep(seed, number_of_nap, (start, dice.between(5, 11)), number);
            Sleep { nap: true, ..ended(nap, &today) }
        });
        let workout = dice.percent(45).then(|| {
            let start = night.end + 9 * HOUR + i64::from(dice.between(0, 90)) * MINUTE;
            self.workout(&mut dice, number, start, &today)
        });
        let noon = night.end + 5 * HOUR;
        let active = dice.between(180, 620) + workout.as_ref().map_or(0, |it| it.energy / 1_000);
        Lived {
            number,
            nap,
            workout,
            steps: dice.between(1_800, 16_000),
            active,
            energy: active + dice.between(1_450, 1_950),
            offset_s: today.offset_s(noon),
            noon,
            night,
        }
    }

    fn sleep(&self, seed: Seed, number: u64, (start, phases): (Micros, i32), day: i32) -> Sleep {
        let ill = (self.illness.0..self.illness.1).contains(&day);
        let mut dice = seed.of("sleep", number).dice();
        let worse = |well, ill_by| if ill { well + ill_by } else { well };
        let resting = worse(self.resting + dice.between(-3, 3), dice.between(6, 12));
        let rmssd_us = self.rmssd_us * if ill { 55 } else { dice.between(85, 115) } / 100;
        let mut sleep = Sleep {
            number,
            start,
            end: start + i64::from(phases * PHASE_S) * SECOND,
            start_offset_s: 0,
            end_offset_s: 0,
            day: Day(0),
            nap: false,
            phases: Vec::new(),
            hrv: Vec::new(),
            heart: Vec::new(),
            rmssd_us: rmssd_us + dice.between(0, 999),
            resting,
            breaths: worse(self.breaths + dice.between(-40, 40), dice.between(100, 220)),
            oxygen: dice.between(948, 983),
            skin: worse(self.skin + dice.between(-30, 30), dice.between(50, 120)),
            deviation: worse(dice.between(-35, 35), dice.between(50, 120)),
            ill,
        };
        for at in 0..phases {
            let cycle = at % 18;
            let phase = match (at, cycle) {
                (0 | 1, _) | (_, 17) => Phase::Awake,
                (_, 3..=6) => Phase::Deep,
                (_, 12..=15) => Phase::Rem,
                _ => Phase::Light,
            };
            let stray = dice.percent(6);
            sleep.phases.push(if stray { Phase::Light } else { phase });
            let gap = dice.percent(7) || at == 0;
            let beat = (rmssd_us / 1_000 + dice.between(-9, 9)).clamp(6, 190);
            sleep.hrv.push((!gap).then_some(beat));
            sleep.heart.push((!gap).then(|| resting + dice.between(0, 9)));
        }
        sleep
    }

    fn workout(&self, dice: &mut Draw, number: i32, start: Micros, place: &Place) -> Workout {
        let minutes = dice.between(25, 80);
        let mean = self.resting + dice.between(65, 95);
        Workout {
            number: u64::from(number.unsigned_abs()),
            running: dice.percent(60),
            start,
            end: start + i64::from(minutes) * MINUTE,
            offset_s: place.offset_s(start),
            day: place.day(start),
            mean,
            highest: mean + dice.between(8, 30),
            energy: minutes * dice.between(7_000, 12_500),
            distance: minutes * dice.between(120, 210),
            strain: dice.between(6_000, 17_500),
        }
    }
}

impl Sleep {
    /// How long it spent in a phase, seconds.
    #[must_use]
    pub fn seconds(&self, phase: Phase) -> i32 {
        let count = self.phases.iter().filter(|one| **one == phase).count();
        i32::try_from(count).unwrap_or(0) * PHASE_S
    }

    /// Its phases as intervals of one stage each.
    #[must_use]
    pub fn stages(&self) -> Vec<Interval> {
        let mut stages: Vec<Interval> = Vec::new();
        for (nth, phase) in (0_i64..).zip(&self.phases) {
            let symbol = phase.symbol();
            let length = i64::from(PHASE_S) * SECOND;
            let start = self.start + nth * length;
            match stages.last_mut().filter(|last| last.symbol == symbol) {
                Some(last) => last.end = start + length,
                None => stages.push(Interval {
                    metric: "sleep_stage".to_owned(),
                    symbol: symbol.to_owned(),
                    start,
                    end: start + length,
                }),
            }
        }
        stages
    }

    /// From its start to its end, seconds.
    #[must_use]
    pub fn length_s(&self) -> i32 {
        i32::try_from((self.end - self.start) / SECOND).unwrap_or(0)
    }

    /// The same sleep scored again: stages and values move a little, its times do not.
    #[must_use]
    pub fn scored_again(&self, seed: Seed, times: u64) -> Self {
        let mut dice = seed.of("scored again", self.number * 16 + times).dice();
        let mut again = self.clone();
        again.rmssd_us += dice.between(400, 2_500);
        again.resting += 1;
        again.breaths += dice.between(3, 20);
        if let Some(phase) = again.phases.iter_mut().find(|phase| **phase == Phase::Light) {
            *phase = Phase::Rem;
        }
        for beat in again.hrv.iter_mut().flatten() {
            *beat += 1;
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Day {
        Day::parse("2026-09-23").expect("a day")
    }

    #[test]
    fn a_life_is_a_matter_of_the_seed() {
        let life = |seed| format!("{:?}", Person::new(Seed(seed), 3, 60).life(first(), 60));
        assert_eq!(life(1), life(1));
        assert_ne!(life(1), life(2));
        let long = Person::new(Seed(1), 3, 60).life(first(), 60);
        let short = Person::new(Seed(1), 3, 60).life(first(), 30);
        assert_eq!(format!("{:?}", &long[..30]), format!("{short:?}"));
    }

    #[test]
    fn nights_follow_each_other_and_are_made_of_their_phases() {
        for number in 0..40 {
            let mut last = Micros::MIN;
            for day in Person::new(Seed(5), number, 60).life(first(), 60) {
                let night = &day.night;
                assert!(night.start > last, "{number} {}: {last}", day.number);
                last = day.workout.as_ref().map_or(night.end, |workout| workout.end);
                let phases = [Phase::Deep, Phase::Light, Phase::Rem, Phase::Awake];
                let all: i32 = phases.into_iter().map(|phase| night.seconds(phase)).sum();
                assert_eq!(all, night.length_s());
                assert_eq!(night.hrv.len(), night.phases.len());
                let again = night.scored_again(Seed(9), 1);
                assert_eq!((again.start, again.end), (night.start, night.end));
                assert_ne!(again.rmssd_us, night.rmssd_us);
            }
        }
    }

    #[test]
    fn people_fall_ill_travel_and_change_their_clocks() {
        let people = (0..40).map(|number| Person::new(Seed(5), number, 60));
        let nights: Vec<Sleep> =
            people.flat_map(|it| it.life(first(), 60)).map(|day| day.night).collect();
        assert!(nights.iter().any(|night| night.ill));
        let moved = |by: fn(i32) -> bool| {
            nights.iter().any(|night| by((night.end_offset_s - night.start_offset_s).abs()))
        };
        assert!(moved(|by| by > 3_600), "a journey");
        assert!(moved(|by| by == 3_600), "a night over a clock change");
        let changing = (0..20).map(|number| Person::new(Seed(5), number, 9).changing_clocks(9));
        let summer = Day::parse("2026-06-01").expect("no zone here changes in these days");
        for nights in changing.map(|it| it.life(summer, 9)) {
            let by = |day: &Lived| day.night.end_offset_s - day.night.start_offset_s;
            assert!(nights.iter().any(|day| by(day) % 86_400 != 0), "whatever the season");
        }
    }
}
