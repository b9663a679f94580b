//! Garmin's API: summaries by the window in which they were uploaded. Numbers are of `vendors.md`
//! §5.2 and §5.3 unless a line says that they are ours.

use crate::error::Reject;
use crate::vendors::Named;
use crate::vendors::ask::{Answer, Api, Call, Need, Per, Quota, Renewal, usual};
use crate::vendors::garmin::{Garmin, Read, TYPES};
use crate::vendors::wire::json::At;

/// What makes an item a ping.
pub(super) const CALLBACK: &str = "callbackURL";
/// Where Garmin's links lead.
const HOSTS: [&str; 2] = ["apis.garmin.com", "healthapi.garmin.com"];
const FROM: &str = "uploadStartTimeInSeconds";
const TO: &str = "uploadEndTimeInSeconds";

/// An evaluation key's limit, the lower of the two that are known.
const QUOTAS: &[Quota] = &[Quota { per: Per::App, window_s: 60, calls: 100 }];
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
        let path = TYPES.iter().find_map(|(_, read)| match read {
            Read::Summary(name, path, _) if *name == need.record_type => Some(*path),
            _ => None,
        })?;
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
}
