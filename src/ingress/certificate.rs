//! When a certificate ends: the one thing of it that we want to know and that rustls does not tell.
//! Pure.
//!
//! A certificate is DER: a tag, a length, a content. On the way to the end of its validity there is
//! nothing that needs more of X.509 than that.

use jiff::civil::date;
use jiff::tz::Offset;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALISED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version, which only certificates after the first version have.
const VERSION: u8 = 0xa0;

/// The end of a certificate's validity, seconds since the epoch; absent where it is no certificate.
pub(super) fn not_after_s(der: &[u8]) -> Option<i64> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (body, _) = element(certificate, SEQUENCE)?;
    let rest = element(body, VERSION).map_or(body, |(_, rest)| rest);
    let (_, rest) = element(rest, INTEGER)?; // its number
    let (_, rest) = element(rest, SEQUENCE)?; // how it is signed
    let (_, rest) = element(rest, SEQUENCE)?; // by whom
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, rest) = time(validity)?;
    time(rest).and_then(|(end, _)| end)
}

/// The content of the element that begins here, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if !(1..=4).contains(&digits.len()) {
                return None;
            }
            let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
    };
    if *found != tag {
        return None;
    }
    rest.split_at_checked(length)
}

/// A time, and what follows it; the inner one is absent where it cannot be read.
fn time(bytes: &[u8]) -> Option<(Option<i64>, &[u8])> {
    match element(bytes, UTC_TIME) {
        // Two digits of a year: from 1950 to 2049.
        Some((text, rest)) => {
            let century: &[u8] = if text.first()? < &b'5' { b"20" } else { b"19" };
            Some((seconds(&[century, text].concat()), rest))
        }
        None => element(bytes, GENERALISED_TIME).map(|(text, rest)| (seconds(text), rest)),
    }
}

/// `YYYYMMDDhhmmssZ` as seconds since the epoch.
fn seconds(text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z").filter(|digits| digits.len() == 14)?;
    let number = |from: usize, to: usize| -> Option<i16> {
        let part = digits.get(from..to)?;
        part.iter().all(u8::is_ascii_digit).then_some(())?;
        std::str::from_utf8(part).ok()?.parse().ok()
    };
    let small = |from: usize| number(from, from + 2).and_then(|number| i8::try_from(number).ok());
    let (year, month, day) = (number(0, 4)?, small(4)?, small(6)?);
    let (hour, minute, second) = (small(8)?, small(10)?, small(12)?);
    if !(1..=12).contains(&month) || !(1..=28).contains(&day) && !is_day(year, month, day) {
        return None;
    }
    if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) {
        return None;
    }
    let moment = date(year, month, day).at(hour, minute, second, 0);
    Offset::UTC.to_timestamp(moment).ok().map(jiff::Timestamp::as_second)
}

fn is_day(year: i16, month: i8, day: i8) -> bool {
    jiff::civil::Date::new(year, month, day).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], content].concat()
    }

    fn certificate(version: bool, end: &[u8]) -> Vec<u8> {
        let validity = wrapped(SEQUENCE, &[&wrapped(UTC_TIME, b"260101000000Z"), end].concat());
        let version = if version { vec![VERSION, 3, INTEGER, 1, 2] } else { Vec::new() };
        let parts = [&version[..], &[INTEGER, 1, 7], &[SEQUENCE, 0], &[SEQUENCE, 0], &validity];
        wrapped(SEQUENCE, &wrapped(SEQUENCE, &parts.concat()))
    }

    #[test]
    fn the_end_is_read_in_both_forms() {
        let utc = wrapped(UTC_TIME, b"261121074200Z");
        for version in [true, false] {
            assert_eq!(not_after_s(&certificate(version, &utc)), Some(1_795_246_920));
        }
        let before_2000 = wrapped(UTC_TIME, b"991231235959Z");
        assert_eq!(not_after_s(&certificate(true, &before_2000)), Some(946_684_799));
        let late = wrapped(GENERALISED_TIME, b"20500101000000Z");
        assert_eq!(not_after_s(&certificate(true, &late)), Some(2_524_608_000));
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let good = certificate(true, &wrapped(UTC_TIME, b"261121074200Z"));
        for length in 0..good.len() {
            assert_eq!(not_after_s(&good[..length]), None);
        }
        for end in [&b"2611210742Z"[..], b"261321074200Z", b"260230074200Z", b"26112107420xZ", b""]
        {
            assert_eq!(not_after_s(&certificate(true, &wrapped(UTC_TIME, end))), None);
        }
        assert_eq!(not_after_s(&[SEQUENCE, 0x85, 1, 1, 1, 1, 1]), None);
    }
}
