//! What a vendor has of a person from before we knew, and what it announces to nobody: both are asked for.
//!
//! # A window is a record
//! A collection's history is cut into windows of whole days in UTC, and each is to be fetched as any record is: its type
//! names the collection (`window.sleep`), its id the window (`2026-08-23/2026-09-22`). So it is claimed, counted by the
//! quotas, fetched again after a crash, archived and given up as everything else; and what its answers hold is read by
//! what reads a single record, so both come to the same event.
//!
//! What is never announced is polled: the vendor's day is a record, too, and is asked for over and over while it can
//! still grow.

use std::fmt;

use crate::model::time::{Day, Micros};

/// What stands before a collection in the type of its windows.
const WINDOW: &str = "window.";

/// A collection that a vendor gives the history of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    /// The type of its windows: `window.` and the collection.
    pub windows: &'static str,
    /// How many days one of them has.
    pub days: i32,
    /// How many days the vendor goes back at most, where it has such a bound.
    pub back_days: Option<i32>,
}

/// A collection with windows of so many days, as far back as there is something.
#[must_use]
pub const fn collection(windows: &'static str, days: i32) -> Collection {
    Collection { windows, days, back_days: None }
}

/// What no webhook announces: one record for each day in UTC, which is its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Its type.
    pub record_type: &'static str,
    /// How many days before today can still grow, because the vendor has them late.
    pub late_days: i32,
    /// How many days are asked for at most after a time in which nobody asked.
    pub back_days: i32,
}

/// The collection of a type of windows; none where it is the type of single records.
#[must_use]
pub fn of(record_type: &str) -> Option<&str> {
    record_type.strip_prefix(WINDOW)
}

/// Some days of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub from: Day,
    /// The one after the last.
    pub to: Day,
}

impl Window {
    /// The window of an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('/')?;
        let window = Self { from: Day::parse(from)?, to: Day::parse(to)? };
        (window.from < window.to).then_some(window)
    }

    /// Its two halves; none where it is a single day.
    #[must_use]
    pub fn halves(self) -> Option<[Self; 2]> {
        let middle = Day(self.from.0 + (self.to.0 - self.from.0) / 2);
        let halves = [Self { to: middle, ..self }, Self { from: middle, ..self }];
        (middle > self.from).then_some(halves)
    }

    /// The same with so many days more before and behind it.
    #[must_use]
    pub const fn widened(self, before: i32, behind: i32) -> Self {
        let from = Day(self.from.0.saturating_sub(before));
        Self { from, to: Day(self.to.0.saturating_add(behind)) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.from, self.to)
    }
}

/// A window that is to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its type.
    pub record_type: &'static str,
    /// Which.
    pub window: Window,
    /// Which comes first: the latest days have 1, and live records 0.
    pub priority: i16,
}

/// A reader's day may have begun while ours has not.
const AHEAD: i32 = 2;
/// How far what was had is asked for again: what came about late, and what nobody told us at the end.
const OVERLAP: i32 = 2;

/// The windows of what is missing between these moments (from ever, where the first is absent), no further back than
/// `days`, and than each collection goes; the latest first. None where `days` is 0.
#[must_use]
pub fn windows(
    collections: &[Collection],
    (from, to): (Option<Micros>, Micros),
    days: i32,
) -> Vec<Wanted> {
    let end = Day(Day::of_utc(to).0.saturating_add(AHEAD));
    let had = from.map(|from| Day::of_utc(from).0.saturating_sub(OVERLAP));
    let mut wanted = Vec::new();
    for collection in collections.iter().filter(|_| days > 0) {
        let most = collection.back_days.map_or(days, |back| back.min(days));
        let bound = Day::of_utc(to).0.saturating_sub(most);
        let first = had.map_or(bound, |had| had.max(bound));
        let (mut until, mut priority) = (end.0, 1);
        while until > first {
            let from = until.saturating_sub(collection.days.max(1)).max(first);
            let window = Window { from: Day(from), to: Day(until) };
            wanted.push(Wanted { record_type: collection.windows, window, priority });
            (until, priority) = (from, priority.saturating_add(1));
        }
    }
    wanted.sort_by_key(|one| one.priority);
    wanted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_US: Micros = 86_400_000_000;

    proptest! {
        /// The windows of a collection touch each other, cover what is missing and no more than a few days besides, and
        /// are as long as they may be at most; the later ones come first.
        #[test]
        fn windows_cover_what_is_missing_without_a_hole(
            from in prop::option::of(19_000_i64..20_000),
            length in 0_i64..1_000,
            span in 1_i32..40,
            days in 1_i32..400,
        ) {
            let to = from.unwrap_or(19_500) + length;
            let gap = (from.map(|day| day * DAY_US + 7), to * DAY_US + 5);
            let found = windows(&[collection("window.sleep", span)], gap, days);
            prop_assert!(found.windows(2).all(|two| two[0].window.from == two[1].window.to));
            prop_assert!((1..).zip(&found).all(|(nth, one)| one.priority == nth));
            let lengths = found.iter().map(|one| one.window.to.0 - one.window.from.0);
            prop_assert!(lengths.clone().all(|length| (1..=span).contains(&length)));
            let first = i64::from(found.last().expect("a window").window.from.0);
            let asked = from.map_or(to - i64::from(days), |from| (to - i64::from(days)).max(from - 2));
            prop_assert_eq!(first, asked);
            prop_assert_eq!(i64::from(found[0].window.to.0), to + 2, "today is whole, wherever one is");
        }
    }

    #[test]
    fn the_vendor_s_bound_wins_and_no_days_are_none() {
        let month = Collection { back_days: Some(28), ..collection("window.sleep", 28) };
        let all = [month, collection("window.workout", 30)];
        let found = windows(&all, (None, 20_000 * DAY_US), 90);
        let of = |name| found.iter().filter(|one| one.record_type == name).count();
        assert_eq!((of("window.sleep"), of("window.workout")), (2, 4));
        let first = |name| found.iter().rfind(|one| one.record_type == name).expect("one").window;
        assert_eq!(first("window.sleep").from, Day(20_000 - 28));
        assert_eq!(first("window.workout").from, Day(20_000 - 90));
        assert!(found.is_sorted_by_key(|one| one.priority), "no collection waits for another");
        assert!(windows(&all, (None, 20_000 * DAY_US), 0).is_empty());
    }

    #[test]
    fn a_window_is_its_id_and_comes_apart_down_to_a_day() {
        let window = Window::parse("2026-08-23/2026-08-26").expect("a window");
        assert_eq!(window.to_string(), "2026-08-23/2026-08-26");
        let halves = window.halves().expect("halves").map(|half| half.to_string());
        assert_eq!(halves, ["2026-08-23/2026-08-24", "2026-08-24/2026-08-26"]);
        assert_eq!(Window::parse("2026-08-23/2026-08-24").expect("a window").halves(), None);
        for text in ["2026-08-23", "2026-08-26/2026-08-23", "2026-08-23/2026-08-23", "a/b", ""] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
        assert_eq!(window.widened(2, 1).to_string(), "2026-08-21/2026-08-27");
        assert_eq!((of("window.sleep"), of("sleep")), (Some("sleep"), None));
    }
}
