//! Consent at Google (`vendors.md` §6.3). Subscribers are the project's, made once by an operator with its own account,
//! and are of every person who consents; there is nothing to subscribe for one.

use crate::vendors::ask::Call;
use crate::vendors::consent::{By, Consent, Request, Verb, Who, is_id};
use crate::vendors::google::Google;
use crate::vendors::wire::json;

/// Those of what is taken. Reading is all that is done.
const SCOPES: &[&str] = &[
    "https://www.googleapis.com/auth/googlehealth.activity_and_fitness.readonly",
    "https://www.googleapis.com/auth/googlehealth.health_metrics_and_measurements.readonly",
    "https://www.googleapis.com/auth/googlehealth.sleep.readonly",
];

impl Consent for Google {
    fn authorise(&self) -> &'static str {
        "https://accounts.google.com/o/oauth2/v2/auth"
    }

    fn token(&self) -> &'static str {
        "https://oauth2.googleapis.com/token"
    }

    fn scopes(&self) -> &'static [&'static str] {
        SCOPES
    }

    /// Without the first two there is a refresh token at most once, and not for who reconnects.
    fn besides(&self) -> &'static [(&'static str, &'static str)] {
        &[("access_type", "offline"), ("prompt", "consent"), ("include_granted_scopes", "true")]
    }

    fn pkce(&self) -> bool {
        true
    }

    fn who(&self) -> Who {
        Who::Ask(Call::get("/users/me/identity"))
    }

    /// The id that notifications name; the one of a Fitbit account beside it is another.
    fn user(&self, body: &[u8]) -> Option<String> {
        let json = json::parse(body).ok()?;
        let id = json.root().get("healthUserId")?.text().ok()?.to_owned();
        is_id(&id).then_some(id)
    }

    /// The tokens end, and with them what subscribers hear of the person.
    fn withdraw(&self, _vendor_user: &str) -> Option<Request> {
        let plain = Request::plain(Verb::Post, "/revoke", By::PersonIn("token"), &[200]);
        Some(Request { at_host: true, ..plain })
    }

    fn withdraws_at_token(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::google::VENDOR;

    #[test]
    fn the_user_is_the_one_that_notifications_name() {
        let body =
            br#"{"name":"users/me/identity","healthUserId":"3f7a9c21","legacyUserId":"AB12"}"#;
        assert_eq!(VENDOR.user(body).as_deref(), Some("3f7a9c21"));
        for body in ["{}", "[]", "<html>", r#"{"healthUserId":7}"#, r#"{"healthUserId":"a/b"}"#, ""]
        {
            assert_eq!(VENDOR.user(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn nothing_is_asked_for_that_writes() {
        assert!(VENDOR.scopes().iter().all(|scope| scope.ends_with(".readonly")));
    }
}
