//! Consent and subscriptions at Oura (`vendors.md` §1.1 and §1.3).
//!
//! A person consents scope by scope, so a scope may be missing from what was asked for: that collection then answers 403,
//! and the others go on. There is a subscription for every kind of change of every kind of record, made with the app's
//! own id and secret for all of its people; while one is made, Oura asks the ingress for a handshake.

use crate::model::time::{Micros, Moment};
use crate::vendors::ask::Call;
use crate::vendors::consent::{
    By, Consent, Request, Subject, Subscription, Subscriptions, Verb, Who,
};
use crate::vendors::oura::{Oura, RECORD_TYPES, is_id};
use crate::vendors::wire::json::{self, At};

const SCOPES: &[&str] =
    &["email", "personal", "daily", "heartrate", "workout", "tag", "session", "spo2Daily"];

/// Every kind of change.
const EVENTS: [&str; 3] = ["create", "update", "delete"];
/// The app's own headers.
const APP: By = By::App(["x-client-id", "x-client-secret"]);
const PATH: &str = "/v2/webhook/subscription";
/// How long one lives is not documented; it is renewed a week ahead.
const AHEAD_US: Micros = 7 * 24 * 3_600 * 1_000_000;

impl Consent for Oura {
    fn authorise(&self) -> &'static str {
        "https://cloud.ouraring.com/oauth/authorize"
    }

    /// Apps of the new portal exchange elsewhere: `vendors.oura.renewal_url`.
    fn token(&self) -> &'static str {
        "https://api.ouraring.com/oauth/token"
    }

    fn scopes(&self) -> &'static [&'static str] {
        SCOPES
    }

    fn who(&self) -> Who {
        Who::Ask(Call::get("/v2/usercollection/personal_info"))
    }

    fn user(&self, body: &[u8]) -> Option<String> {
        let json = json::parse(body).ok()?;
        let id = json.root().get("id")?.text().ok()?.to_owned();
        crate::vendors::consent::is_id(&id).then_some(id)
    }

    fn subscriptions(&self) -> Option<&'static dyn Subscriptions> {
        Some(&super::VENDOR)
    }
}

impl Subscriptions for Oura {
    fn wanted(&self) -> Vec<Subject> {
        let of = |record: &&'static str| EVENTS.map(|event| Subject { event, record });
        RECORD_TYPES.iter().flat_map(of).collect()
    }

    fn list(&self) -> Request {
        Request::plain(Verb::Get, PATH, APP, &[200])
    }

    fn read(&self, body: &[u8]) -> Option<Vec<Subscription>> {
        let json = json::parse(body).ok()?;
        json.root().items().ok()?.map(|item| subscription(&item)).collect()
    }

    fn make(&self, subject: Subject, callback: &str, token: &str) -> Request {
        let body = serde_json::json!({
            "callback_url": callback,
            "verification_token": token,
            "event_type": subject.event,
            "data_type": subject.record,
        });
        let plain = Request::plain(Verb::Post, PATH, APP, &[200, 201]);
        Request { body: Some(body.to_string()), ..plain }
    }

    fn renew(&self, id: &str) -> Option<Request> {
        is_id(id).then(|| Request::plain(Verb::Put, format!("{PATH}/renew/{id}"), APP, &[200]))
    }

    fn end(&self, id: &str) -> Option<Request> {
        is_id(id)
            .then(|| Request::plain(Verb::Delete, format!("{PATH}/{id}"), APP, &[200, 204, 404]))
    }

    fn ahead_us(&self) -> Micros {
        AHEAD_US
    }
}

fn subscription(item: &At<'_>) -> Option<Subscription> {
    let text = |name| Some(item.get(name)?.text().ok()?.to_owned());
    let ends_at = text("expiration_time").and_then(|text| Moment::parse(&text).ok());
    Some(Subscription {
        id: text("id")?,
        callback: text("callback_url")?,
        event: text("event_type")?,
        record: text("data_type")?,
        ends_at: ends_at.map(|moment| moment.at_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::consent::{Step, steps};
    use crate::vendors::oura::VENDOR;

    const OURS: &str = "https://bridge.example.com/webhooks/oura";
    const NOW: Micros = 1_774_742_400_000_000;

    /// All that are wanted, each ending so many days from now.
    fn there(days: i64) -> Vec<Subscription> {
        let of = |(number, subject): (usize, Subject)| Subscription {
            id: format!("id-{number}"),
            callback: OURS.into(),
            event: subject.event.into(),
            record: subject.record.into(),
            ends_at: Some(NOW + days * 24 * 3_600 * 1_000_000),
        };
        VENDOR.wanted().into_iter().enumerate().map(of).collect()
    }

    #[test]
    fn every_change_of_every_type_has_one() {
        assert_eq!(VENDOR.wanted().len(), 3 * RECORD_TYPES.len());
        let made = steps(&VENDOR, &[], OURS, NOW);
        assert_eq!(made.len(), 3 * RECORD_TYPES.len());
        assert!(made.iter().all(|step| matches!(step, Step::Make(_))));
        assert_eq!(steps(&VENDOR, &there(30), OURS, NOW), []);
    }

    #[test]
    fn one_that_ends_soon_is_renewed_and_one_that_died_is_made_again() {
        let renewed = steps(&VENDOR, &there(6), OURS, NOW);
        assert_eq!(renewed.len(), 3 * RECORD_TYPES.len());
        assert!(renewed.iter().all(|step| matches!(step, Step::Renew(..))));
        let mut some = there(30);
        let died = some.remove(7);
        let subject = VENDOR.wanted()[7];
        assert_eq!((subject.event, subject.record), (&*died.event, &*died.record));
        assert_eq!(steps(&VENDOR, &some, OURS, NOW), [Step::Make(subject)]);
        let mut unread = there(30);
        unread[0].ends_at = None;
        let first = VENDOR.wanted()[0];
        assert_eq!(steps(&VENDOR, &unread, OURS, NOW), [Step::Renew("id-0".into(), first)]);
    }

    #[test]
    fn one_too_many_is_withdrawn_and_somebody_else_s_is_left_alone() {
        let mut some = there(30);
        let mut twice = some[3].clone();
        (twice.id, twice.ends_at) = ("older".into(), Some(NOW));
        let mut unread = some[0].clone();
        (unread.id, unread.record) = ("meal".into(), "meal".into());
        let mut another = some[0].clone();
        another.callback = "https://staging.example.com/webhooks/oura".into();
        some.extend([twice, unread, another]);
        let withdrawn = ["older", "meal"].map(|id| Step::End(id.into()));
        assert_eq!(steps(&VENDOR, &some, OURS, NOW), withdrawn);
    }

    #[test]
    fn a_list_is_read_or_is_none() {
        let body = br#"[{"id":"7d1c0a52-5b1e-4f0e-9a60-2f6d1d5a9b11","callback_url":"https://a/b",
            "event_type":"create","data_type":"sleep","expiration_time":"2026-04-29T06:41:12+00:00"}]"#;
        let read = VENDOR.read(body).expect("a list");
        assert_eq!((&*read[0].event, &*read[0].record), ("create", "sleep"));
        assert!(read[0].ends_at > Some(NOW));
        for body in ["{}", "<html>", r#"[{"id":"a"}]"#] {
            assert_eq!(VENDOR.read(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_request_has_no_room_for_more_than_an_id() {
        let body = VENDOR.make(VENDOR.wanted()[0], OURS, "not-a-secret-test-key").body;
        let body: serde_json::Value = serde_json::from_str(&body.expect("a body")).expect("JSON");
        assert_eq!(body["callback_url"], OURS);
        assert_eq!(body["verification_token"], "not-a-secret-test-key");
        let path = |id| VENDOR.renew(id).map(|request| request.call.path);
        assert_eq!(path("a-1").as_deref(), Some("/v2/webhook/subscription/renew/a-1"));
        assert_eq!(path("../a"), None);
        assert!(VENDOR.end("a/b").is_none());
    }
}
