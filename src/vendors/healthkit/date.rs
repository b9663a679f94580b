//! Dates as HealthKit's clients write them.
//!
//! - Our SDK writes RFC 3339. Its usual form is read here, without a detour, because a push has two of them for every
//!   sample; every other form goes to [`Moment::parse`], and a test holds the two to one meaning.
//! - Health Auto Export and `export.xml` write `2026-03-29 06:41:12 +0200`. On a phone with a 12-hour clock the former
//!   writes `2026-03-29 6:41:12 AM +0200`, with U+202F before the `AM` since iOS 17, in either case; its seconds may
//!   be missing.
//!
//! The offset of such a date is the phone's at the time of writing: where the person was *then*.

use crate::model::time::{Day, Micros, Moment, NotAMoment};

/// The instant of an RFC 3339 date and time with an offset, µs.
///
/// # Errors
/// As [`Moment::parse`].
pub(super) fn instant(text: &str) -> Result<Micros, NotAMoment> {
    match usual(text.as_bytes()) {
        Some(at_us) => Ok(at_us),
        None => Moment::parse(text).map(|moment| moment.at_us),
    }
}

/// `YYYY-MM-DDTHH:MM:SS[.f…](Z|±HH:MM)` of the years 1970 to 9998; nothing for any other form.
fn usual(text: &[u8]) -> Option<Micros> {
    let (date, rest) = text.split_first_chunk::<10>()?;
    let (time, rest) = rest.split_first_chunk::<9>()?;
    let [b'T', h1, h2, b':', m1, m2, b':', s1, s2] = *time else { return None };
    let days = i64::from(civil(date)?);
    let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction_us, rest) = fraction(rest)?;
    let offset_s = match *rest {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
            if hours > 18 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    Some(seconds * 1_000_000 + fraction_us)
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
fn civil(text: &[u8; 10]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else { return None };
    let (year, month, day) = (two(y1, y2)? * 100 + two(y3, y4)?, two(m1, m2)?, two(d1, d2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1970..=9998).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    i32::try_from(days - 719_468).ok()
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    let both = tens.is_ascii_digit() && ones.is_ascii_digit();
    both.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// A fraction of a second, cut to µs, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', digits @ ..] = text else { return Some((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let (digits, rest) = digits.split_at_checked(count)?;
    let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(6);
    Some((padded.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')), rest))
}

/// A date as a phone spells it: `2026-03-29 06:41:12 +0200`, with a 12-hour clock or without seconds as well.
///
/// # Errors
/// [`NotAMoment::NoOffset`] where all but the offset is there, else [`NotAMoment::Malformed`].
pub fn spelled(text: &str) -> Result<Moment, NotAMoment> {
    if text.len() > 48 {
        return Err(NotAMoment::Malformed);
    }
    let mut words = text.split([' ', '\u{202f}', '\u{a0}']).filter(|word| !word.is_empty());
    let (date, time) = (words.next(), words.next());
    let (Some(date), Some(time)) = (date, time) else {
        // The very same clients write ISO 8601 in some settings.
        return Moment::parse(text);
    };
    let mut word = words.next();
    let mut hours_added = None;
    if let Some(half) = word.and_then(half_of_day) {
        hours_added = Some(half);
        word = words.next();
    }
    let (Some(seconds), true) = (clock(time, hours_added), words.next().is_none()) else {
        return Err(NotAMoment::Malformed);
    };
    let date: &[u8; 10] = date.as_bytes().try_into().map_err(|_| NotAMoment::Malformed)?;
    let days = civil(date).ok_or(NotAMoment::Malformed)?;
    let offset = word.ok_or(NotAMoment::NoOffset)?;
    let offset_s = offset_s(offset).ok_or(NotAMoment::Malformed)?;
    let at_s = i64::from(days) * 86_400 + seconds - i64::from(offset_s.unwrap_or(0));
    Ok(Moment { at_us: at_s * 1_000_000, offset_s })
}

/// An offset as it stands behind a date; `Z` and `GMT` say nothing about a person.
#[expect(clippy::option_option, reason = "not an offset, and an offset that is not known, differ")]
fn offset_s(text: &str) -> Option<Option<i32>> {
    match text {
        "Z" | "GMT" | "UTC" => Some(None),
        _ => crate::model::time::parse_offset(text).map(Some),
    }
}

/// How many hours a word adds to an hour on the dial.
fn half_of_day(word: &str) -> Option<i64> {
    ["am", "a.m."]
        .iter()
        .any(|am| word.eq_ignore_ascii_case(am))
        .then_some(0)
        .or_else(|| ["pm", "p.m."].iter().any(|pm| word.eq_ignore_ascii_case(pm)).then_some(12))
}

/// Seconds since midnight of `[H]H:MM[:SS]`, on a dial of 12 hours where a half of the day is given.
fn clock(text: &str, half: Option<i64>) -> Option<i64> {
    let mut parts = text.split(':').map(|part| {
        let plain = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<i64>().ok().filter(|_| plain)
    });
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    if parts.next().is_some() || minute > 59 || second > 59 {
        return None;
    }
    let hour = match half {
        // 12 is the first hour of either half.
        Some(added) if (1..=12).contains(&hour) => hour % 12 + added,
        None if hour <= 23 => hour,
        _ => return None,
    };
    Some(hour * 3600 + minute * 60 + second)
}

/// The civil day with which a spelled date begins.
pub(super) fn day(text: &str) -> Option<Day> {
    civil(text.as_bytes().first_chunk::<10>()?).map(Day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_form_is_what_the_full_reader_makes_of_it() {
        let mut seen = 0;
        for day in (0..60_000).step_by(97) {
            let date = Day(day).to_string();
            for rest in ["T00:00:00Z", "T23:59:59.5+02:00", "T12:30:05.123456789-07:30"] {
                let text = format!("{date}{rest}");
                assert_eq!(usual(text.as_bytes()), Moment::parse(&text).ok().map(|at| at.at_us));
                seen += 1;
            }
        }
        assert!(seen > 1000);
        for other in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-03-29T24:00:00Z",
            "2026-03-29T00:60:00Z",
            "2026-03-29T00:00:60Z",
            "2026-03-29T00:00:00.Z",
            "2026-03-29T00:00:00.1234567890Z",
            "2026-03-29T00:00:00+2:00",
            "2026-03-29T00:00:00",
            "2026-03-29T00:00:00Z ",
            "1969-12-31T23:59:59Z",
            "٢٠٢٦-03-29T00:00:00Z",
        ] {
            assert_eq!(usual(other.as_bytes()), None, "{other}");
            assert_eq!(instant(other), Moment::parse(other).map(|at| at.at_us), "{other}");
        }
    }

    /// Trap 10.
    #[test]
    fn a_date_is_read_however_the_phone_spells_it() {
        let is = Moment { at_us: 1_774_759_272_000_000, offset_s: Some(7200) };
        for text in [
            "2026-03-29 06:41:12 +0200",
            "2026-03-29 06:41:12 +02:00",
            "2026-03-29 6:41:12 AM +0200",
            "2026-03-29 6:41:12\u{202f}AM +0200",
            "2026-03-29 6:41:12\u{202f}am +0200",
            "2026-03-29 6:41:12\u{a0}a.m. +02:00",
            "2026-03-29T06:41:12+02:00",
        ] {
            assert_eq!(spelled(text), Ok(is), "{text}");
        }
        let at = |text: &str| spelled(text).map(|moment| moment.at_us - is.at_us);
        assert_eq!(at("2026-03-29 06:41 +0200"), Ok(-12_000_000), "no seconds");
        assert_eq!(at("2026-03-29 6:41:12 PM +0200"), Ok(12 * 3_600_000_000));
        assert_eq!(at("2026-03-29 12:41:12 AM +0200"), Ok(-6 * 3_600_000_000), "midnight is 12 AM");
        assert_eq!(at("2026-03-29 12:41:12 PM +0200"), Ok(6 * 3_600_000_000), "noon is 12 PM");
        assert_eq!(at("2026-03-28 21:41:12 -0700"), Ok(0));
        assert_eq!(spelled("2026-03-29 04:41:12 Z").map(|at| at.offset_s), Ok(None));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2026-03-29",
            "2026-03-29 13:41:12 PM +0200",
            "2026-03-29 0:41:12 AM +0200",
            "2026-03-29 24:00:00 +0200",
            "2026-03-29 06:61:12 +0200",
            "2026-03-29 06:41:12 CEST",
            "2026-03-29 06:41:12 +0200 Berlin",
            "2026-03-29 06:41:12:00 +0200",
            "2026-03-29 +6:41:12 +0200",
            "29.03.2026 06:41:12 +0200",
            "2026-02-30 06:41:12 +0200",
        ] {
            assert_eq!(spelled(text), Err(NotAMoment::Malformed), "{text}");
        }
        for text in ["2026-03-29 06:41:12", "2026-03-29 6:41:12\u{202f}AM"] {
            assert_eq!(spelled(text), Err(NotAMoment::NoOffset), "{text}");
        }
    }
}
