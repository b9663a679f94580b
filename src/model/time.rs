//! Moments, days and offsets. No clock is read here: a time comes in with the record that has it.

use jiff::civil::Date;
use jiff::tz::Offset;
use jiff::{Timestamp, Unit};

/// µs since the Unix epoch, UTC.
pub type Micros = i64;

/// A moment as text gave it: the instant, and the UTC offset that stood beside it, if one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The instant, µs.
    pub at_us: Micros,
    /// The offset from UTC in seconds; absent means not known, never UTC.
    pub offset_s: Option<i32>,
}

/// Why a text is not a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAMoment {
    /// Not an RFC 3339 date and time at all.
    Malformed,
    /// A date and time without an offset: local to somewhere, and we are not told where.
    NoOffset,
}

impl Moment {
    /// Reads RFC 3339 with an offset (`2026-03-28T23:14:30.000000+01:00`, `…Z`).
    ///
    /// `Z` says where the instant is and nothing about the person, so it gives no offset; `+00:00` gives zero.
    ///
    /// # Errors
    /// [`NotAMoment::NoOffset`] where the text is a local time, else [`NotAMoment::Malformed`].
    pub fn parse(text: &str) -> Result<Self, NotAMoment> {
        if text.len() < 16 || text.len() > 40 {
            return Err(NotAMoment::Malformed);
        }
        match text.parse::<Timestamp>() {
            Ok(at) => Ok(Self { at_us: at.as_microsecond(), offset_s: offset_of(text) }),
            Err(_) if text.parse::<jiff::civil::DateTime>().is_ok() => Err(NotAMoment::NoOffset),
            Err(_) => Err(NotAMoment::Malformed),
        }
    }

    /// The civil date at this moment where the person was, if the offset is known.
    #[must_use]
    pub fn local_date(&self) -> Option<Day> {
        let offset = Offset::from_seconds(self.offset_s?).ok()?;
        let at = Timestamp::from_microsecond(self.at_us).ok()?;
        Some(Day::of(offset.to_datetime(at).date()))
    }

    /// The whole hour of the day (0..24) at this moment where the person was, if the offset is known.
    #[must_use]
    pub fn local_hour(&self) -> Option<i8> {
        let offset = Offset::from_seconds(self.offset_s?).ok()?;
        let at = Timestamp::from_microsecond(self.at_us).ok()?;
        Some(offset.to_datetime(at).hour())
    }
}

/// The offset that a text ends with, in seconds; none for `Z`, `z` or no offset.
fn offset_of(text: &str) -> Option<i32> {
    let sign_at = text.rfind(['+', '-']).filter(|at| *at > 9)?;
    let sign = if text.as_bytes().get(sign_at) == Some(&b'-') { -1 } else { 1 };
    let digits: Vec<i32> = text
        .bytes()
        .skip(sign_at + 1)
        .filter(u8::is_ascii_digit)
        .map(|digit| i32::from(digit - b'0'))
        .collect();
    let [h1, h2, rest @ ..] = digits.as_slice() else { return None };
    let minutes = match rest {
        [m1, m2, ..] => m1 * 10 + m2,
        _ => 0,
    };
    Some(sign * ((h1 * 10 + h2) * 3600 + minutes * 60))
}

/// Reads an offset alone, `+02:00`, `-0730` or `Z` (which is unknown: see [`Moment::parse`]).
#[must_use]
pub fn parse_offset(text: &str) -> Option<i32> {
    let plain = matches!(text.as_bytes(), [b'+' | b'-', rest @ ..]
        if (4..=5).contains(&rest.len()) && rest.iter().all(|b| b.is_ascii_digit() || *b == b':'));
    if !plain {
        return None;
    }
    let found = offset_of(&format!("0000-00-00T{text}"))?;
    (found.abs() <= 18 * 3600).then_some(found)
}

/// A civil date: the day or the night that a record belongs to. Days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub i32);

impl Day {
    /// The day of a civil date.
    #[must_use]
    pub fn of(date: Date) -> Self {
        let days =
            date.since((Unit::Day, Date::constant(1970, 1, 1))).map_or(0, |span| span.get_days());
        Self(days)
    }

    /// Reads `2026-03-29`, exactly ten characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 10).then(|| text.parse::<Date>().ok()).flatten().map(Self::of)
    }

    /// The UTC day of an instant.
    #[must_use]
    pub fn of_utc(at_us: Micros) -> Self {
        let days = at_us.div_euclid(86_400_000_000);
        Self(i32::try_from(days).unwrap_or(i32::MAX))
    }

    /// The next day.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Midnight UTC at its start, µs.
    #[must_use]
    pub fn start_utc_us(self) -> Micros {
        i64::from(self.0) * 86_400_000_000
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Timestamp::from_second(i64::from(self.0) * 86_400) {
            Ok(at) => Offset::UTC.to_datetime(at).date().fmt(out),
            Err(_) => out.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_kept_and_z_is_none() {
        let night = Moment::parse("2026-03-28T23:14:30.000000+01:00").expect("a moment");
        assert_eq!(night.offset_s, Some(3600));
        assert_eq!(night.at_us, 1_774_736_070_000_000);
        assert_eq!(Moment::parse("2026-03-29T03:10:05Z").expect("a moment").offset_s, None);
        let west = Moment::parse("2026-03-29T03:10:05-07:30").expect("a moment");
        assert_eq!(west.offset_s, Some(-27_000));
        assert_eq!(Moment::parse("2026-03-29T03:10:05"), Err(NotAMoment::NoOffset));
        assert_eq!(Moment::parse("yesterday, I think"), Err(NotAMoment::Malformed));
    }

    #[test]
    fn a_local_date_is_the_persons_date() {
        let late = Moment::parse("2026-03-28T23:30:00Z").expect("a moment");
        assert_eq!(late.local_date(), None, "not known is not UTC");
        let late = Moment::parse("2026-03-29T01:30:00+02:00").expect("a moment");
        assert_eq!(late.local_date(), Day::parse("2026-03-29"));
    }

    #[test]
    fn offsets_alone() {
        assert_eq!(parse_offset("+02:00"), Some(7200));
        assert_eq!(parse_offset("-0730"), Some(-27_000));
        for bad in ["Z", "", "+2", "+99:00", "02:00", "+02:00x"] {
            assert_eq!(parse_offset(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_are_counted_and_printed() {
        assert_eq!(Day::parse("1970-01-02"), Some(Day(1)));
        assert_eq!(Day(20_541).to_string(), "2026-03-29");
        assert_eq!(Day::of_utc(-1), Day(-1));
        assert_eq!(Day::parse("2026-3-29"), None);
    }
}
