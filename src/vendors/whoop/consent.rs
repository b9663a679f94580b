//! Consent at WHOOP (`vendors.md` §2.3). Webhooks go to the address on its developers' page: there is nothing to
//! subscribe. Without `offline` there is no refresh token, and the connection would end within the hour.

use crate::vendors::ask::Call;
use crate::vendors::consent::{By, Consent, Request, Verb, Who};
use crate::vendors::whoop::Whoop;
use crate::vendors::wire::json;

const SCOPES: &[&str] = &[
    "offline",
    "read:recovery",
    "read:cycles",
    "read:workout",
    "read:sleep",
    "read:profile",
    "read:body_measurement",
];

impl Consent for Whoop {
    fn authorise(&self) -> &'static str {
        "https://api.prod.whoop.com/oauth/oauth2/auth"
    }

    fn token(&self) -> &'static str {
        "https://api.prod.whoop.com/oauth/oauth2/token"
    }

    fn scopes(&self) -> &'static [&'static str] {
        SCOPES
    }

    fn who(&self) -> Who {
        Who::Ask(Call::get("/v2/user/profile/basic"))
    }

    /// The number that notifications have, written as they are read.
    fn user(&self, body: &[u8]) -> Option<String> {
        let json = json::parse(body).ok()?;
        let number = json.root().get("user_id")?.integer().ok()?;
        (number > 0).then(|| number.to_string())
    }

    /// It stops the person's webhooks, too.
    fn withdraw(&self, _vendor_user: &str) -> Option<Request> {
        Some(Request::plain(Verb::Delete, "/v2/user/access", By::Person, &[204, 404]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::whoop::VENDOR;

    #[test]
    fn the_user_is_the_one_that_notifications_name() {
        let body = br#"{"user_id":8589934592,"email":"canary","first_name":"canary"}"#;
        assert_eq!(VENDOR.user(body).as_deref(), Some("8589934592"), "beyond 32 bits");
        for body in ["{}", "[]", "<html>", r#"{"user_id":"1"}"#, r#"{"user_id":0}"#, ""] {
            assert_eq!(VENDOR.user(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_refresh_token_is_asked_for() {
        assert!(VENDOR.scopes().contains(&"offline"));
    }
}
