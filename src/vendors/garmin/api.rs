//! Garmin's API: summaries by the window in which they were uploaded. Numbers are of `vendors.md`
//! §5.2 and §5.3 unless a line says that they are ours.

use crate::error::Reject;
use crate::model::time::Day;
use crate::vendors::Named;
use crate::vendors::ask::{Answer, Api, Call, Need, Per, Quota, Renewal, usual};
use crate::vendors::garmin::{Garmin, Read, TYPES};
use crate::vendors::history::{self, Collection, Window};
use crate::vendors::wire::json::At;

/// What makes an item a ping.
pub(super) const CALLBACK: &str = "callbackURL";
/// Where Garmin's links lead.
const HOSTS: [&str; 2] = ["apis.garmin.com", "healthapi.garmin.com"];
const FROM: &str = "uploadStartTimeInSeconds";
const TO: &str = "uploadEndTimeInSeconds";
/// Between when history was measured.
const SINCE: &str = "summaryStartTimeInSeconds";
const UNTIL: &str = "summaryEndTimeInSeconds";

/// An evaluation key's limit, the lower of the two that are known.
const QUOTAS: &[Quota] = &[
    Quota { per: Per::App, window_s: 60, calls: 100 },
    Quota { per: Per::History, window_s: 60, calls: 20 },
];

/// Garmin is asked to send it: a request is accepted, and what there is comes as any webhook does. Some keys have it for a
/// month a request, others for three; how far back it goes differs by key, too.
const HISTORY: &[Collection] = &[
    of_type("window.sleep"),
    of_type("window.daily"),
    of_type("window.hrv"),
    of_type("window.stress"),
    of_type("window.activity"),
    of_type("window.epoch"),
    of_type("window.pulse_ox"),
    of_type("window.respiration"),
    of_type("window.skin_temperature"),
    of_type("window.body"),
    of_type("window.user_metrics"),
    of_type("window.blood_pressure"),
    of_type("window.health_snapshot"),
    of_type("window.menstrual_cycle"),
    of_type("window.activity_samples"),
];

const fn of_type(windows: &'static str) -> Collection {
    Collection { windows, days: 30, back_days: Some(90) }
}
/// How long Garmin wants to be left alone after a 429, which says nothing itself.
const LIMITED_S: u32 = 60;
/// Ours: a window is there once it is announced, and an empty one is an empty list; so a 404 is not
/// expected at all.
const AGAIN_S: [u32; 3] = [60, 600, 3_600];

/// What a ping announces, as the id of a record: its upload window, `<from>-<to>` in seconds.
///
/// Nothing else of the link goes on: not its host, not its path, and not a token that it may have.
pub(super) fn window(item: &At<'_>) -> Result<String, Reject> {
    let link = item.need(CALLBACK)?;
    let query = query(link.text()?)
        .ok_or_else(|| link.invalid("a link to an address that is not the vendor's"))?;
    let of = |name: &'static str| match item.get(name) {
        Some(at) => u64::try_from(at.integer()?).map_err(|_| at.invalid("a time before 1970")),
        None => parameter(query, name)
            .ok_or_else(|| link.malformed("a ping that names no upload window")),
    };
    let (from, to) = (of(FROM)?, of(TO)?);
    if from > to {
        return Err(item.invalid("an upload window that ends before it begins"));
    }
    Ok(format!("{from}-{to}"))
}

/// The query of a link of Garmin's; nothing where it leads elsewhere.
fn query(link: &str) -> Option<&str> {
    let rest = link.strip_prefix("https://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    if !HOSTS.iter().any(|known| host.eq_ignore_ascii_case(known)) {
        return None;
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    Some(query.split('#').next().unwrap_or_default())
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().filter(|_| values.next().is_none())?;
    value.parse().ok()
}

impl Api for Garmin {
    fn base(&self) -> &'static str {
        "https://apis.garmin.com/wellness-api/rest"
    }

    fn ask(&self, need: &Need<'_>) -> Option<Call> {
        let collected = history::of(need.record_type);
        let record_type = collected.unwrap_or(need.record_type);
        let path = TYPES.iter().find_map(|(_, read)| match read {
            Read::Summary(name, path, _) if *name == record_type => Some(*path),
            _ => None,
        })?;
        if collected.is_some() {
            let window = Window::parse(need.record_id)?;
            let at = |day: Day| day.start_utc_us().div_euclid(1_000_000).to_string();
            let query = vec![(SINCE, at(window.from)), (UNTIL, at(window.to))];
            return Some(Call::get_with(format!("/backfill/{path}"), query));
        }
        let (from, to) = need.record_id.split_once('-')?;
        let seconds = |text: &str| text.parse::<u64>().ok().map(|seconds| seconds.to_string());
        let query = vec![(FROM, seconds(from)?), (TO, seconds(to)?)];
        Some(Call::get_with(format!("/{path}"), query))
    }

    fn answer(&self, status: u16, headers: &dyn Named) -> Answer {
        match usual(status, headers) {
            Answer::Limited(after) => Answer::Limited(after.or(Some(LIMITED_S))),
            other => other,
        }
    }

    /// What was accepted comes by itself, and what overlaps with what was asked for before (409) has come.
    fn answer_to(&self, need: &Need<'_>, status: u16, headers: &dyn Named) -> Answer {
        match status {
            200..=299 | 409 if history::of(need.record_type).is_some() => Answer::Nothing,
            _ => self.answer(status, headers),
        }
    }

    fn again_s(&self, attempt: u32) -> Option<u32> {
        let before = usize::try_from(attempt.checked_sub(1)?).ok()?;
        AGAIN_S.get(before).copied()
    }

    fn renewal(&self) -> Option<Renewal> {
        Some(Renewal {
            url: "https://diauth.garmin.com/di-oauth2-service/oauth/token",
            scope: None,
        })
    }

    fn quotas(&self) -> &'static [Quota] {
        QUOTAS
    }

    fn history(&self) -> &'static [Collection] {
        HISTORY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::garmin::VENDOR;

    #[test]
    fn history_is_asked_for_and_comes_by_itself() {
        let id = "2026-03-01/2026-03-31";
        for collection in VENDOR.history() {
            let need = Need { record_type: collection.windows, record_id: id, vendor_user: "u" };
            let call = VENDOR.ask(&need).expect(collection.windows);
            assert!(call.path.starts_with("/backfill/"), "{}", call.path);
            let seconds = ["1772323200", "1774915200"].map(str::to_owned);
            assert_eq!(call.query, [SINCE, UNTIL].into_iter().zip(seconds).collect::<Vec<_>>());
            for (status, answer) in
                [(202, Answer::Nothing), (409, Answer::Nothing), (400, Answer::Refused)]
            {
                assert_eq!(VENDOR.answer_to(&need, status, &Vec::new()), answer, "{status}");
            }
            let minute = Answer::Limited(Some(LIMITED_S));
            assert_eq!(VENDOR.answer_to(&need, 429, &Vec::new()), minute);
        }
        let sleep = Need { record_type: "sleep", record_id: "1-2", vendor_user: "u" };
        assert_eq!(VENDOR.ask(&sleep).expect("a call").path, "/sleeps");
        assert_eq!(VENDOR.answer_to(&sleep, 200, &Vec::new()), Answer::Document);
    }
}
