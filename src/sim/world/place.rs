//! Where a person is, and what the clock there shows: civil times as instants, instants as texts of vendors.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::model::time::{Day, Micros};

/// A second, µs.
pub const SECOND: Micros = 1_000_000;
/// A minute, µs.
pub const MINUTE: Micros = 60 * SECOND;
/// An hour, µs.
pub const HOUR: Micros = 60 * MINUTE;

/// A place with a clock of its own.
#[derive(Clone, Debug)]
pub struct Place {
    zone: TimeZone,
    /// How far its clocks are ahead of its zone's, seconds.
    ahead_s: i32,
}

impl Place {
    /// The place of this name in the time zone database, UTC where it has no such name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { zone: TimeZone::get(name).unwrap_or(TimeZone::UTC), ahead_s: 0 }
    }

    /// The same place after somebody has put its clocks on by so many seconds.
    #[must_use]
    pub fn ahead(self, ahead_s: i32) -> Self {
        Self { ahead_s, ..self }
    }

    /// The offset from UTC there at this instant, seconds.
    #[must_use]
    pub fn offset_s(&self, at_us: Micros) -> i32 {
        let offset = |at| self.zone.to_offset(at).seconds() + self.ahead_s;
        Timestamp::from_microsecond(at_us).map_or(0, offset)
    }

    /// The instant at which the clock there shows so many minutes after midnight of this day; minutes beyond a day or
    /// below zero are of its neighbours. A time that a clock change leaves out is moved past it.
    #[must_use]
    pub fn at(&self, day: Day, minutes: i32) -> Micros {
        let midnight = Timestamp::from_microsecond(day.start_utc_us())
            .map(|at| Offset::UTC.to_datetime(at))
            .unwrap_or_default();
        let civil = midnight.saturating_add(SignedDuration::from_mins(i64::from(minutes)));
        self.instant(civil)
    }

    fn instant(&self, civil: DateTime) -> Micros {
        let at = civil.to_zoned(self.zone.clone()).map_or(0, |at| at.timestamp().as_microsecond());
        at - i64::from(self.ahead_s) * SECOND
    }

    /// The civil day there at this instant.
    #[must_use]
    pub fn day(&self, at_us: Micros) -> Day {
        day_at(at_us, self.offset_s(at_us))
    }
}

/// The civil day at this instant under this offset.
#[must_use]
pub fn day_at(at_us: Micros, offset_s: i32) -> Day {
    Day::of_utc(at_us + i64::from(offset_s) * SECOND)
}

/// An instant in UTC with milliseconds, `2026-03-29T06:31:04.120Z`.
#[must_use]
pub fn utc(at_us: Micros) -> String {
    Timestamp::from_microsecond(at_us)
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
        .unwrap_or_default()
}

/// An instant as the clock under this offset shows it, `2026-03-28T23:14:30.000+01:00`.
#[must_use]
pub fn local(at_us: Micros, offset_s: i32) -> String {
    let shown = utc(at_us + i64::from(offset_s) * SECOND);
    format!("{}{}", shown.trim_end_matches('Z'), offset(offset_s))
}

/// An offset as `+02:00`.
#[must_use]
pub fn offset(offset_s: i32) -> String {
    let sign = if offset_s < 0 { '-' } else { '+' };
    let minutes = offset_s.abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_changes_is_told() {
        let berlin = Place::named("Europe/Berlin");
        let day = Day::parse("2026-03-29").expect("a day");
        let bed = berlin.at(day, -60);
        let up = berlin.at(day, 7 * 60);
        assert_eq!(up - bed, 7 * HOUR, "one hour of eight is left out");
        assert_eq!((berlin.offset_s(bed), berlin.offset_s(up)), (3_600, 7_200));
        assert_eq!(berlin.day(up), day);
        assert_eq!(local(bed, 3_600), "2026-03-28T23:00:00.000+01:00");
        assert_eq!(utc(up), "2026-03-29T05:00:00.000Z");
        assert_eq!(offset(-12_600), "-03:30");
    }
}
