//! Consent and subscriptions at Withings (`vendors.md` §7.1 and §7.3).
//!
//! A code lives for thirty seconds, so it is exchanged before anything else is done; the answer is wrapped and says whose
//! it is. Subscriptions are each person's own, one for each kind, made with the person's token; Withings ends them after
//! deliveries that failed, and tells nobody. While one is made, it asks the callback by HEAD.
//!
//! A consent is revoked by a request that the app signs, over a nonce that it has had for another signature; a nonce
//! is good once.

use bytes::Bytes;

use crate::model::time::Micros;
use crate::vendors::ask::Call;
use crate::vendors::consent::{
    By, Consent, Request, Signer, Subject, Subscription, Subscriptions, Verb, Who, is_id,
};
use crate::vendors::wire::json::{self, At, Json};
use crate::vendors::withings::Withings;
use crate::vendors::withings::api::TOKEN;

/// The kinds that are read; those of a bed and of devices are not asked for.
const APPLIS: [&str; 7] = ["1", "2", "4", "16", "44", "46", "54"];
const EVENT: &str = "notify";
const PATH: &str = "/notify";

impl Consent for Withings {
    fn authorise(&self) -> &'static str {
        "https://account.withings.com/oauth2_user/authorize2"
    }

    fn token(&self) -> &'static str {
        TOKEN
    }

    /// Withings parts them by commas.
    fn scopes(&self) -> &'static [&'static str] {
        &["user.info,user.metrics,user.activity"]
    }

    fn who(&self) -> Who {
        Who::WithTokens
    }

    fn user(&self, body: &[u8]) -> Option<String> {
        let json = json::parse(body).ok()?;
        let root = json.root();
        let inner = root.get("body")?;
        let user = match inner.get("userid")?.json() {
            Json::Text(text) => text.to_string(),
            Json::Integer(number) => number.to_string(),
            _ => return None,
        };
        let plain = user.bytes().all(|byte| byte.is_ascii_digit());
        Some(user).filter(|user| plain && is_id(user))
    }

    /// A nonce, and then the revocation.
    fn withdraw_signed(
        &self,
        vendor_user: &str,
        signer: &Signer<'_>,
        answers: &[Bytes],
    ) -> Option<Request> {
        let user = Some(vendor_user).filter(|user| is_id(user))?;
        let signed = |action: &str, last: (&'static str, String)| {
            let signature =
                signer.key.hex(&[format!("{action},{},{}", signer.id, last.1).as_bytes()]);
            vec![
                ("action", action.to_owned()),
                ("client_id", signer.id.to_owned()),
                last,
                ("signature", signature),
            ]
        };
        let (path, form) = match answers {
            [] => ("/v2/signature", signed("getnonce", ("timestamp", signer.now_s.to_string()))),
            [nonce] => {
                let mut form = signed("revoke", ("nonce", self::nonce(nonce)?));
                form.push(("userid", user.to_owned()));
                ("/v2/oauth2", form)
            }
            _ => return None,
        };
        let plain = request(form);
        Some(Request { call: Call { path: path.to_owned(), ..plain.call }, by: By::Form, ..plain })
    }

    fn own_subscriptions(&self) -> Option<&'static dyn Subscriptions> {
        Some(&super::VENDOR)
    }
}

impl Subscriptions for Withings {
    fn wanted(&self) -> Vec<Subject> {
        APPLIS.map(|record| Subject { event: EVENT, record }).to_vec()
    }

    fn list(&self) -> Request {
        request(vec![("action", "list".to_owned())])
    }

    fn read(&self, body: &[u8]) -> Option<Vec<Subscription>> {
        let json = json::parse(body).ok()?;
        let root = json.root();
        let inner = root.get("body")?;
        let profiles = inner.get("profiles")?;
        profiles.items().ok()?.map(|item| subscription(&item)).collect()
    }

    fn make(&self, subject: Subject, callback: &str, _token: &str) -> Request {
        request(vec![
            ("action", "subscribe".to_owned()),
            ("callbackurl", callback.to_owned()),
            ("appli", subject.record.to_owned()),
        ])
    }

    /// They do not end by themselves.
    fn renew(&self, _id: &str) -> Option<Request> {
        None
    }

    fn end(&self, id: &str) -> Option<Request> {
        let (appli, callback) = id.split_once(' ')?;
        Some(request(vec![
            ("action", "revoke".to_owned()),
            ("callbackurl", callback.to_owned()),
            ("appli", appli.to_owned()),
        ]))
    }

    fn ahead_us(&self) -> Micros {
        0
    }
}

/// A POST of a form, whose answer's status stands in its body.
fn request(form: Vec<(&'static str, String)>) -> Request {
    let plain = Request::plain(Verb::Post, PATH, By::Person, &[0]);
    Request { call: Call::post(PATH, form), status_in: Some("status"), ..plain }
}

/// The nonce of an answer; none that could not stand in a signature.
fn nonce(answer: &[u8]) -> Option<String> {
    let json = json::parse(answer).ok()?;
    let root = json.root();
    let inner = root.get("body")?;
    let nonce = inner.get("nonce")?.text().ok()?.to_owned();
    is_id(&nonce).then_some(nonce)
}

fn subscription(item: &At<'_>) -> Option<Subscription> {
    let appli = item.get("appli")?.integer().ok()?.to_string();
    let callback = item.get("callbackurl")?.text().ok()?.to_owned();
    let ends_at = match item.get("expires") {
        Some(at) => Some(at.integer().ok()?.saturating_mul(1_000_000)),
        None => Some(Micros::MAX),
    };
    let id = format!("{appli} {callback}");
    Some(Subscription { id, callback, event: EVENT.to_owned(), record: appli, ends_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::consent::{Step, steps};
    use crate::vendors::wire::hmac::Key;
    use crate::vendors::withings::VENDOR;

    const OURS: &str = "https://bridge.example.com/webhooks/withings/not-a-secret-path";
    const NOW: Micros = 1_774_742_400_000_000;

    #[test]
    fn whose_it_is_stands_beside_the_wrapped_tokens() {
        for body in [
            r#"{"status":0,"body":{"userid":"363","access_token":"canary"}}"#,
            r#"{"status":0,"body":{"userid":363,"access_token":"canary"}}"#,
        ] {
            assert_eq!(VENDOR.user(body.as_bytes()).as_deref(), Some("363"));
        }
        for body in ["{}", r#"{"userid":"363"}"#, r#"{"body":{"userid":"../1"}}"#, "<html>"] {
            assert_eq!(VENDOR.user(body.as_bytes()), None, "{body}");
        }
    }

    /// Trap 10: what is there is what the list shows.
    #[test]
    fn what_is_not_on_the_list_is_made_and_what_nobody_reads_is_ended() {
        let one = |appli: u32, callback: &str| {
            format!(
                r#"{{"appli":{appli},"callbackurl":"{callback}","expires":2147483647,"comment":"canary"}}"#
            )
        };
        let list = |all: &[String]| {
            let body = format!(r#"{{"status":0,"body":{{"profiles":[{}]}}}}"#, all.join(","));
            VENDOR.read(body.as_bytes()).expect("a list")
        };
        let all: Vec<String> =
            APPLIS.iter().map(|appli| one(appli.parse().expect("a number"), OURS)).collect();
        assert_eq!(steps(&VENDOR, &list(&all), OURS, NOW), []);
        let subject = |record| Subject { event: EVENT, record };
        assert_eq!(steps(&VENDOR, &list(&all[1..]), OURS, NOW), [Step::Make(subject("1"))]);
        let mut more = all.clone();
        more.extend([one(50, OURS), one(44, "https://another.example.com/hook")]);
        let end = Step::End(format!("50 {OURS}"));
        assert_eq!(steps(&VENDOR, &list(&more), OURS, NOW), [end], "another's is left alone");
        for body in ["{}", "<html>", r#"{"body":{"profiles":[{"appli":"x"}]}}"#] {
            assert_eq!(VENDOR.read(body.as_bytes()), None, "{body}");
        }
    }

    /// The golden vectors of `vendors.md` §0.1.
    #[test]
    fn a_consent_is_revoked_by_what_we_sign() {
        let key = Key::new(b"not-a-secret-test-key");
        let signer = Signer { id: "client-1", key: &key, now_s: 1_774_766_800 };
        let form = |answers: &[Bytes]| {
            let asked = VENDOR.withdraw_signed("363", &signer, answers)?;
            assert_eq!((asked.by, asked.status_in), (By::Form, Some("status")));
            let form = asked.call.form?.into_iter().map(|(name, value)| format!("{name}={value}"));
            Some((asked.call.path, form.collect::<Vec<_>>().join("&")))
        };
        let first = "action=getnonce&client_id=client-1&timestamp=1774766800&signature=\
            cf81c07788898800d8868618ba292f0576cf01b365e42e88681e7bfda3898cf5";
        assert_eq!(form(&[]), Some(("/v2/signature".to_owned(), first.to_owned())));
        let nonce = Bytes::from(r#"{"status":0,"body":{"nonce":"nonce-1"}}"#);
        let second = "action=revoke&client_id=client-1&nonce=nonce-1&signature=\
            d6bdd15267a800a1e3a212d6b5f67c7a4821cd02786b8afec806cbee2e72703b&userid=363";
        let asked = form(std::slice::from_ref(&nonce));
        assert_eq!(asked, Some(("/v2/oauth2".to_owned(), second.to_owned())));
        assert_eq!(form(&[nonce.clone(), nonce]), None, "and that is all");
        assert_eq!(form(&[Bytes::from(r#"{"status":0,"body":{"nonce":"a,b"}}"#)]), None);
    }

    #[test]
    fn a_subscription_is_a_form_whose_answer_has_its_status_inside() {
        let made = VENDOR.make(Subject { event: EVENT, record: "44" }, OURS, "");
        let form = made.call.form.expect("a form");
        assert_eq!(form[1], ("callbackurl", OURS.to_owned()));
        assert_eq!(form[2], ("appli", "44".to_owned()));
        assert_eq!((made.status_in, made.good), (Some("status"), &[0][..]));
        let ended = VENDOR.end(&format!("44 {OURS}")).expect("a request");
        assert_eq!(ended.call.form.expect("a form")[0].1, "revoke");
    }
}
