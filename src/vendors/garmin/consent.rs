//! Consent at Garmin (`vendors.md` §5.2 and §5.3): a code is bound to who asked for it (PKCE), and what is given stands among
//! the person's permissions, not in scopes. Webhooks go to the addresses on the developers' page.

use crate::vendors::ask::Call;
use crate::vendors::consent::{By, Consent, Request, Verb, Who, is_id};
use crate::vendors::garmin::Garmin;
use crate::vendors::wire::json;

impl Consent for Garmin {
    fn authorise(&self) -> &'static str {
        "https://connect.garmin.com/oauth2Confirm"
    }

    fn token(&self) -> &'static str {
        "https://diauth.garmin.com/di-oauth2-service/oauth/token"
    }

    fn scopes(&self) -> &'static [&'static str] {
        &[]
    }

    fn pkce(&self) -> bool {
        true
    }

    fn who(&self) -> Who {
        Who::Ask(Call::get("/user/id"))
    }

    fn user(&self, body: &[u8]) -> Option<String> {
        let json = json::parse(body).ok()?;
        let id = json.root().get("userId")?.text().ok()?.to_owned();
        is_id(&id).then_some(id)
    }

    /// Garmin then announces that the person is deregistered, as it does where the person ends it there.
    fn withdraw(&self, _vendor_user: &str) -> Option<Request> {
        let path = "/partner-gateway/rest/user/registration";
        let plain = Request::plain(Verb::Delete, path, By::Person, &[200, 204, 404]);
        Some(Request { at_host: true, ..plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendors::garmin::VENDOR;

    #[test]
    fn an_id_that_could_be_more_than_one_is_none() {
        let user = |id: &str| VENDOR.user(format!(r#"{{"userId":"{id}"}}"#).as_bytes());
        assert_eq!(user("d3315b1072421d0dd7c8f6b8e1de4df8").as_deref().map(str::len), Some(32));
        for id in ["", "a/b", "a b", "..", "a?b"] {
            assert_eq!(user(id), None, "{id}");
        }
    }
}
