//! IANA zones: where a vendor names one instead of an offset, the offset is the zone's at that moment.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;

use crate::model::time::Micros;

/// The zones of this build, and of no machine: the same bytes must read the same everywhere.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The UTC offset of an IANA zone at this instant, seconds; nothing for a name that is none.
#[must_use]
pub fn offset_in(zone: &str, at_us: Micros) -> Option<i32> {
    let zone = ZONES.get(zone).ok()?;
    Some(zone.to_offset(Timestamp::from_microsecond(at_us).ok()?).seconds())
}

/// The same at two instants.
#[must_use]
pub fn offsets_in(zone: &str, start_us: Micros, end_us: Micros) -> Option<(i32, i32)> {
    Some((offset_in(zone, start_us)?, offset_in(zone, end_us)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A night over the change to summer time has two offsets.
    #[test]
    fn a_zone_has_the_offset_of_its_moment() {
        let (start, end) = (1_774_738_800_000_000, 1_774_760_400_000_000);
        assert_eq!(offsets_in("Europe/Berlin", start, end), Some((3600, 7200)));
        assert_eq!(offsets_in("America/Phoenix", start, end), Some((-25_200, -25_200)));
        for none in ["", "Berlin", "../etc/passwd", "canary"] {
            assert_eq!(offsets_in(none, start, end), None, "{none}");
        }
    }
}
