//! Consent at Polar (`vendors.md` §8.1 and §8.3). A token lives for years and is not renewed; who it is of stands beside
//! it. A person is registered once with the app, and what was measured before is not given. The webhook is one for the whole
//! app, made by an operator: its secret is told once, when it is made, and is the ingress's.

use crate::vendors::consent::{By, Consent, Request, Verb, Who};
use crate::vendors::polar::Polar;
use crate::vendors::wire::json;

impl Consent for Polar {
    fn authorise(&self) -> &'static str {
        "https://flow.polar.com/oauth2/authorization"
    }

    fn token(&self) -> &'static str {
        "https://polarremote.com/v2/oauth2/token"
    }

    fn scopes(&self) -> &'static [&'static str] {
        &["accesslink.read_all"]
    }

    fn basic(&self) -> bool {
        true
    }

    fn who(&self) -> Who {
        Who::WithTokens
    }

    fn user(&self, body: &[u8]) -> Option<String> {
        let json = json::parse(body).ok()?;
        let number = json.root().get("x_user_id")?.integer().ok()?;
        (number > 0).then(|| number.to_string())
    }

    /// A person who is registered already is a 409.
    fn register(&self, label: &str) -> Option<Request> {
        let body = serde_json::json!({ "member-id": label }).to_string();
        let plain = Request::plain(Verb::Post, "/v3/users", By::Person, &[200, 201, 409]);
        Some(Request { body: Some(body), ..plain })
    }

    fn withdraw(&self, vendor_user: &str) -> Option<Request> {
        let user = vendor_user.parse::<u64>().ok()?;
        Some(Request::plain(Verb::Delete, format!("/v3/users/{user}"), By::Person, &[204, 404]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::polar::VENDOR;

    #[test]
    fn the_user_stands_beside_the_token_and_is_registered() {
        let answer = br#"{"access_token":"canary","expires_in":1,"x_user_id":62713944}"#;
        assert_eq!(VENDOR.user(answer).as_deref(), Some("62713944"));
        assert_eq!(VENDOR.user(br#"{"access_token":"canary"}"#), None);
        let request = VENDOR.register("a-connection").expect("a request");
        assert_eq!(request.body.as_deref(), Some(r#"{"member-id":"a-connection"}"#));
        assert!(request.good.contains(&409), "again is once");
    }

    #[test]
    fn nothing_but_a_number_gets_into_a_path() {
        let path = |user| VENDOR.withdraw(user).map(|request| request.call.path);
        assert_eq!(path("62713944").as_deref(), Some("/v3/users/62713944"));
        assert_eq!(path("../webhooks"), None);
    }
}
