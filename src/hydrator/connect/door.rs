//! The two requests of a person's browser, each to its answer.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};

use super::subscription::{Kept, Looking};
use super::{Desk, Settings, link, permit};
use crate::error::{Error, Kind, Result};
use crate::hydrator::fetch::{Base, Code, Credentials, Done, Exchanged, Fetcher, parameters};
use crate::hydrator::plan::Outcome;
use crate::model::id::{ConnectionId, User, sha256_hex};
use crate::stream::clock::now_us;
use crate::stream::connecting::{Begun, Consents, Found, Returned};
use crate::stream::hydration::{Pair, Queue, Vault};
use crate::telemetry::health::Answering;
use crate::telemetry::metrics::Metrics;
use crate::vendors::ask::{Answer, Need};
use crate::vendors::consent::Who;
use crate::vendors::wire::hmac::Key;

/// What the door has.
pub struct Door<C, V, Q> {
    /// Consents and connections.
    pub consents: C,
    /// Tokens at rest.
    pub vault: V,
    /// The quotas.
    pub queue: Q,
    /// What calls vendors.
    pub fetcher: Fetcher,
    /// The vendors that people can connect to.
    pub desks: Vec<Desk>,
    /// Those of them of which each person has subscriptions of their own.
    pub kept: Vec<Kept>,
    /// What links are signed with.
    pub key: Key,
    /// Under which address people reach us.
    pub public: Base,
    /// How long what may take.
    pub settings: Settings,
    /// `hydrator.speed`.
    pub speed: u32,
    /// What is counted.
    pub metrics: Metrics,
}

/// What a person is told.
#[derive(Clone, Debug)]
enum Page {
    /// Goes on at the vendor's.
    Ask { location: String, cookie: String },
    /// It is done.
    Connected,
    /// Nothing is here.
    Nowhere,
    /// The method is not GET.
    Method,
    /// The link is not ours, or has ended.
    Link(link::Refused),
    /// The answer belongs to nothing that was begun here.
    State,
    /// The person did not consent.
    Denied,
    /// The vendor did not take what it gave itself.
    Code,
    /// The vendor does not answer, or not as it should.
    Vendor,
    /// The vendor's quota is used up.
    Busy,
    /// Something of ours does not answer.
    Ours,
}

impl Page {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Ask { .. } => StatusCode::FOUND,
            Self::Connected => StatusCode::OK,
            Self::Nowhere => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Link(_) | Self::Denied => StatusCode::FORBIDDEN,
            Self::State | Self::Code => StatusCode::BAD_REQUEST,
            Self::Vendor => StatusCode::BAD_GATEWAY,
            Self::Busy | Self::Ours => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn text(&self) -> &'static str {
        match self {
            Self::Ask { .. } | Self::Nowhere | Self::Method => "",
            Self::Connected => "Connected. You can close this page.\n",
            Self::Link(link::Refused::Forged) => "This link is not complete. Ask for a new one.\n",
            Self::Link(link::Refused::Ended) => "This link has ended. Ask for a new one.\n",
            Self::State => "This page has been used, or has ended. Follow your link again.\n",
            Self::Denied => "You did not agree, so nothing is connected.\n",
            Self::Code => "The other side did not confirm it. Follow your link again.\n",
            Self::Vendor => "The other side does not answer. Follow your link again later.\n",
            Self::Busy | Self::Ours => "It does not work now. Follow your link again later.\n",
        }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(self.text().as_bytes())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            // The address of the callback has a code in it: no cache keeps it, no other page is told.
            (header::CACHE_CONTROL, "no-store"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        match self {
            Self::Ask { location, cookie } => {
                for (name, text) in [(header::LOCATION, location), (header::SET_COOKIE, cookie)] {
                    if let Ok(value) = HeaderValue::from_str(&text) {
                        headers.insert(name, value);
                    }
                }
            }
            Self::Method => drop(headers.insert(header::ALLOW, HeaderValue::from_static("GET"))),
            Self::Busy | Self::Ours => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            }
            _ => {}
        }
        response
    }
}

/// What the browser keeps until it comes back.
const COOKIE: &str = "connect";

impl<C: Consents, V: Vault, Q: Queue> Door<C, V, Q> {
    /// This door, as a listener asks it.
    #[must_use]
    pub fn answering(self) -> Answering {
        let door = Arc::new(self);
        Arc::new(move |head| {
            let door = Arc::clone(&door);
            Box::pin(async move { door.answer(&head).await })
        })
    }

    /// Answers a request.
    pub async fn answer(&self, head: &Parts) -> Response<Full<Bytes>> {
        let mut path = head.uri.path().trim_start_matches('/').split('/');
        let (first, vendor, rest) = (path.next(), path.next(), path.next());
        let found = self.desks.iter().find(|desk| Some(desk.name) == vendor);
        let (Some("connect"), Some(desk), None) = (first, found, path.next()) else {
            return Page::Nowhere.response();
        };
        if !matches!(rest, None | Some("callback")) {
            return Page::Nowhere.response();
        }
        if head.method != Method::GET {
            return Page::Method.response();
        }
        let parameters = parameters(head.uri.query().unwrap_or_default());
        let page = match rest {
            None => self.begin(desk, &parameters).await,
            Some(_callback) => self.back(desk, &parameters, &head.headers).await,
        };
        page.unwrap_or_else(|error| self.failed(desk, &error)).response()
    }

    fn failed(&self, desk: &Desk, error: &Error) -> Page {
        self.metrics.errors.at([error.kind.name()]).inc();
        tracing::warn!(vendor = desk.name, kind = error.kind.name(), doing = error.doing,
            code = %error.code, "a person could not connect");
        match error.kind {
            Kind::RateLimitError => Page::Busy,
            Kind::AuthenticationError => Page::Code,
            Kind::WearableApiError | Kind::PayloadMalformed => Page::Vendor,
            _ => Page::Ours,
        }
    }

    fn callback(&self, desk: &Desk) -> String {
        let path = format!("/connect/{}/callback", desk.name);
        format!("{}{path}", self.settings.public_url.as_deref().unwrap_or_default())
    }

    /// A link was followed: the person is asked.
    async fn begin(&self, desk: &Desk, parameters: &[(String, String)]) -> Result<Page> {
        let now_s = now_us().div_euclid(1_000_000);
        let user = match link::read(&self.key, desk.name, parameters, now_s) {
            Ok(user) => user,
            Err(refused) => return Ok(Page::Link(refused)),
        };
        let lives = Duration::from_secs(self.settings.consent_s);
        let begun = self.consents.begin(desk.name, &user, lives).await?;
        let location = self.location(desk, &begun);
        let secure = if self.public.is_https() { "; Secure" } else { "" };
        let cookie = format!(
            "{COOKIE}={}; Path=/connect/{}/callback; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
            begun.browser.expose_secret(),
            desk.name,
            self.settings.consent_s,
        );
        Ok(Page::Ask { location, cookie })
    }

    fn location(&self, desk: &Desk, begun: &Begun) -> String {
        let (callback, scopes) = (self.callback(desk), desk.consent.scopes().join(" "));
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", &*desk.client.id),
            ("redirect_uri", &*callback),
            ("state", begun.state.expose_secret()),
        ];
        if !scopes.is_empty() {
            query.push(("scope", &*scopes));
        }
        query.extend(desk.consent.besides());
        let challenge = challenge(&begun.verifier);
        if desk.consent.pkce() {
            query.extend([("code_challenge", &*challenge), ("code_challenge_method", "S256")]);
        }
        desk.authorise.with(&query)
    }

    /// The person comes back from the vendor.
    async fn back(
        &self,
        desk: &Desk,
        parameters: &[(String, String)],
        headers: &HeaderMap,
    ) -> Result<Page> {
        let (Some(state), Some(browser)) = (one(parameters, "state"), cookie(headers)) else {
            return Ok(Page::State);
        };
        let Some(returned) = self.consents.end(desk.name, state, browser).await? else {
            return Ok(Page::State);
        };
        match (one(parameters, "code"), one(parameters, "error")) {
            (Some(code), None) => self.connect(desk, &returned, &code.into()).await,
            (None, Some("access_denied")) => Ok(Page::Denied),
            (None, Some(_)) => {
                Err(Error::new(Kind::WearableApiError, "ask for consent", "refused"))
            }
            _ => Ok(Page::Code),
        }
    }

    /// The person agreed.
    async fn connect(&self, desk: &Desk, returned: &Returned, code: &SecretString) -> Result<Page> {
        let (pair, lives, named) = self.redeem(desk, returned, code).await?;
        let vendor_user = match desk.consent.who() {
            Who::WithTokens => named,
            Who::Ask(call) => {
                permit(&self.queue, desk, self.speed).await?;
                let access = Credentials::Person(&pair.access);
                let asked = (&Need::NO_RECORD, &call);
                let fetched = self.fetcher.call(desk.api, &desk.base, asked, access).await?;
                let document = fetched.document.ok_or_else(|| away(fetched.outcome))?;
                desk.consent.user(&document.1)
            }
        };
        let vendor_user = vendor_user.ok_or_else(|| {
            Error::new(Kind::PayloadMalformed, "read whose consent it is", desk.name)
        })?;
        let (user, vendor) = (&returned.user, desk.name);
        let found = self.consents.find(vendor, &vendor_user, user).await?;
        let lives = lives.map(|lives| lives / self.speed.max(1));
        // In place of whatever is there: this is what the person agreed to last.
        self.vault.store(vendor, found.connection, 0, &pair, lives).await?;
        self.register(desk, found.connection, &pair.access).await?;
        self.hold(desk, &vendor_user, user, found).await?;
        self.subscribe(desk, &pair.access).await;
        Ok(Page::Connected)
    }

    /// Makes the person's own subscriptions. Who is connected stays so where that fails: the next look makes them.
    async fn subscribe(&self, desk: &Desk, access: &SecretString) {
        let Some(kept) = self.kept.iter().find(|kept| kept.desk.name == desk.name) else { return };
        let (queue, fetcher, speed) = (&self.queue, &self.fetcher, self.speed);
        let by = Credentials::Person(access);
        let (_, looked) = (Looking { queue, fetcher, speed, kept, by }).look().await;
        if let Err(error) = looked {
            self.metrics.errors.at([error.kind.name()]).inc();
            tracing::warn!(vendor = desk.name, kind = error.kind.name(), doing = error.doing,
                code = %error.code, "subscriptions are not kept");
        }
    }

    /// Exchanges the code; the vendor's user too, where it stands with the tokens.
    async fn redeem(
        &self,
        desk: &Desk,
        returned: &Returned,
        code: &SecretString,
    ) -> Result<(Pair, Option<Duration>, Option<String>)> {
        let verifier = desk.consent.pkce().then_some(&returned.verifier);
        let code = Code { code, callback: &self.callback(desk), verifier };
        let with_tokens = desk.consent.who() == Who::WithTokens;
        let read = |body: &[u8]| with_tokens.then(|| desk.consent.user(body)).flatten();
        let basic = desk.consent.basic();
        match self.fetcher.redeem(&desk.client, &code, basic, read).await {
            (Exchanged::Pair { pair, lives }, named) => Ok((pair, lives, named)),
            (Exchanged::Refused, _) => {
                Err(Error::new(Kind::AuthenticationError, "exchange a code", "refused"))
            }
            (Exchanged::Failed(outcome), _) => Err(away(outcome)),
        }
    }

    /// What the vendor wants to be told once of a person.
    async fn register(
        &self,
        desk: &Desk,
        connection: ConnectionId,
        access: &SecretString,
    ) -> Result<()> {
        let Some(asked) = desk.consent.register(&connection.to_string()) else { return Ok(()) };
        permit(&self.queue, desk, self.speed).await?;
        match self.fetcher.send(&desk.base, &asked, Credentials::Person(access)).await? {
            Done::Well(_body) => Ok(()),
            Done::Refused(status) => {
                let code = status.to_string();
                Err(Error::new(Kind::WearableApiError, "register a person", code))
            }
            Done::Failed(outcome) => Err(away(outcome)),
        }
    }

    /// The connection holds.
    async fn hold(&self, desk: &Desk, vendor_user: &str, user: &User, found: Found) -> Result<()> {
        let others = self.consents.connect(desk.name, vendor_user, user, found).await?;
        tracing::info!(vendor = desk.name, connection = %found.connection, others,
            again = found.fed_until.is_some(), "a person connected");
        Ok(())
    }
}

/// A vendor that did not answer, or not as it should.
fn away(outcome: Outcome) -> Error {
    let kind = match outcome {
        Outcome::Answered(Answer::Limited(_)) => Kind::RateLimitError,
        _ => Kind::WearableApiError,
    };
    Error::new(kind, "connect a person", outcome.name())
}

/// The value of a parameter that stands there once.
pub(super) fn one<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = parameters.iter().filter(|(known, _)| known == name);
    let (_, value) = found.next().filter(|_| found.next().is_none())?;
    Some(value)
}

/// What the browser kept.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).map(str::trim);
    pairs.find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))
}

/// What a verifier is checked by (RFC 7636, §4.2).
fn challenge(verifier: &SecretString) -> String {
    let digest = sha256_hex(verifier.expose_secret().as_bytes());
    URL_SAFE_NO_PAD.encode(hex::decode(digest).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7636, appendix B.
    #[test]
    fn a_challenge_is_the_standard_s() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into();
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; connected=x; connect=yes"));
        assert_eq!(cookie(&headers), Some("yes"));
        assert_eq!(cookie(&HeaderMap::new()), None);
    }
}
