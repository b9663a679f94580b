//! Performs the request that a vendor's file described, and nothing more: every way in which it can end is a value.
//!
//! # What a vendor's API can cost us
//! A connection, a deadline and a capped body. It cannot choose where we go: the host is the configured one, calls
//! are relative to it, redirects are not followed, no proxy is read from anywhere. It cannot hold us: connecting, the
//! first byte and the whole each have a deadline. It cannot fill us: reading stops at the cap. And what is not JSON is
//! not taken for a document, because a page for people comes with 200, too. Nor is what the vendor's file judges to be a
//! refusal that came with 200.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Kind, Result};
use crate::hydrator::plan::Outcome;
use crate::hydrator::tokens::Client as OAuth;
use crate::stream::hydration::Pair;
use crate::vendors::ask::{Answer, Api, Call, Need, Per, Told, With, Wrapped};
use crate::vendors::consent::{By, Request as Asked, Verb};
use crate::vendors::wire::json::{self, Json};

/// What a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the request to the head of its answer.
    pub first_byte: Duration,
    /// From the request to the answer's last byte.
    pub whole: Duration,
    /// The largest body, bytes.
    pub body_bytes: usize,
}

/// Where a vendor's API is: https, or plain http on this very machine (a vendor that is played).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(Url);

impl Base {
    /// The base of this text: scheme, host, and a path that may be empty, without a slash at the end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let loopback = match url.host_str()? {
            "localhost" => true,
            host => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        };
        let scheme = url.scheme() == "https" || (url.scheme() == "http" && loopback);
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && !text.ends_with('/');
        (scheme && plain).then_some(Self(url))
    }

    /// This address with a query of these parameters.
    #[must_use]
    pub fn with(&self, parameters: &[(&str, &str)]) -> String {
        let mut url = self.0.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        url.into()
    }

    /// Whether it is https; else it is this very machine.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Its host alone.
    fn host(&self) -> Self {
        let mut url = self.0.clone();
        url.set_path("");
        Self(url)
    }

    /// The address of a call: under this base, or none.
    fn of(&self, call: &Call) -> Option<Url> {
        let shared = self.0.path().trim_end_matches('/');
        let path = format!("{shared}{}", call.path);
        let mut url = self.0.clone();
        url.set_path(&path);
        // What the parser changes (dots, spaces, a question mark) was no path of a vendor's file.
        if !call.path.starts_with('/') || url.path() != path {
            return None;
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Some(url)
    }
}

/// The parameters of a query, decoded.
#[must_use]
pub fn parameters(query: &str) -> Vec<(String, String)> {
    let url = Url::parse(&format!("http://localhost/?{query}"));
    url.map_or_else(|_text| Vec::new(), |url| url.query_pairs().into_owned().collect())
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// How.
    pub outcome: Outcome,
    /// The status, where there was an answer.
    pub status: Option<u16>,
    /// Whose calls a refusal for too many stops.
    pub whose: Per,
    /// What the vendor tells of its quota.
    pub told: Option<Told>,
    /// The content type and the body, of a document.
    pub document: Option<(String, Bytes)>,
}

impl Fetched {
    const fn without_answer(outcome: Outcome) -> Self {
        Self { outcome, status: None, whose: Per::App, told: None, document: None }
    }
}

/// The one client, with its pool of connections. Clones share it.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    limits: Limits,
}

/// How long a connection waits for its next call.
const IDLE: Duration = Duration::from_secs(60);
/// What we call ourselves.
const AGENT: &str = concat!("biometric-bridge/", env!("CARGO_PKG_VERSION"));

impl Fetcher {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(limits: Limits) -> Result<Self> {
        let client = Client::builder()
            .connect_timeout(limits.connect)
            .pool_idle_timeout(IDLE)
            .user_agent(AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|_text| Error::internal("make a client for vendors' APIs"))?;
        Ok(Self { client, limits })
    }

    /// Makes a call with these credentials; what its answer means depends on what is needed.
    ///
    /// # Errors
    /// [`Kind::ValidationError`] where the call is none, or the credentials are none or not those that the vendor's calls
    /// are made with: neither is the vendor's fault.
    pub async fn call(
        &self,
        api: &dyn Api,
        base: &Base,
        (need, call): (&Need<'_>, &Call),
        credentials: Credentials<'_>,
    ) -> Result<Fetched> {
        let wrong = |code: &str| Error::new(Kind::ValidationError, "describe a call", code);
        let url = base.of(call).ok_or_else(|| wrong("path"))?;
        let secret = |text: &str| hidden(text).ok_or_else(|| wrong("credentials"));
        let request = match &call.form {
            Some(form) => posted(self.client.post(url), form),
            None => self.client.get(url),
        };
        let request = match (api.with(), credentials) {
            (With::Token, Credentials::Person(token)) => {
                let bearer = format!("Bearer {}", token.expose_secret());
                request.header(AUTHORIZATION, secret(&bearer)?)
            }
            (With::Key(names), Credentials::App(id, key)) => request
                .header(names.id, secret(id)?)
                .header(names.key, secret(key.expose_secret())?),
            _ => return Err(wrong("credentials")),
        };
        let request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
        Ok(self.ask(api, need, request, is_json).await)
    }

    /// Opens a link that is its own permission: without a token, and what stands there is named as its writer pleased.
    /// The caller knows that it leads to where it may.
    pub async fn open_link(&self, api: &dyn Api, address: &str) -> Fetched {
        match Url::parse(address) {
            Ok(url) => self.ask(api, &Need::NO_RECORD, self.client.get(url), is_object).await,
            Err(_text) => Fetched::without_answer(Outcome::Answered(Answer::Refused)),
        }
    }

    /// Asks, within the limits; a body of another content type than this is no document.
    async fn ask(
        &self,
        api: &dyn Api,
        need: &Need<'_>,
        request: RequestBuilder,
        is_document: fn(&str) -> bool,
    ) -> Fetched {
        let whole = async {
            match tokio::time::timeout(self.limits.first_byte, request.send()).await {
                Ok(Ok(response)) => self.read(api, need, response, is_document).await,
                Ok(Err(error)) if error.is_connect() => {
                    Fetched::without_answer(Outcome::Unreachable)
                }
                Ok(Err(_text)) => Fetched::without_answer(Outcome::BrokenOff),
                Err(_elapsed) => Fetched::without_answer(Outcome::Silent),
            }
        };
        let ended = tokio::time::timeout(self.limits.whole, whole).await;
        ended.unwrap_or(Fetched::without_answer(Outcome::TooSlow))
    }

    /// Reads an answer as far as it is worth reading.
    async fn read(
        &self,
        api: &dyn Api,
        need: &Need<'_>,
        mut response: Response,
        is_document: fn(&str) -> bool,
    ) -> Fetched {
        let status = response.status().as_u16();
        let headers = response.headers();
        let told = api.told(headers);
        let (answer, whose) = (api.answer_to(need, status, headers), api.limits(headers));
        let without_body =
            |outcome| Fetched { outcome, status: Some(status), whose, told, document: None };
        if (300..400).contains(&status) {
            return without_body(Outcome::Redirected);
        }
        if answer != Answer::Document {
            return without_body(Outcome::Answered(answer));
        }
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let content_type = text(CONTENT_TYPE).unwrap_or_default().to_owned();
        let plain = text(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
        if !plain || !is_document(&content_type) {
            return without_body(Outcome::NotJson);
        }
        let cap = self.limits.body_bytes;
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > cap) {
            return without_body(Outcome::TooLarge);
        }
        let mut body = BytesMut::with_capacity(announced.unwrap_or(0));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) > cap => {
                    return without_body(Outcome::TooLarge);
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(_text) => return without_body(Outcome::BrokenOff),
            }
        }
        let judged = api.judge(need, &body);
        if judged != Answer::Document {
            return without_body(Outcome::Answered(judged));
        }
        let document = Some((content_type, body.freeze()));
        Fetched { outcome: Outcome::Answered(answer), status: Some(status), whose, told, document }
    }
}

/// A header's value that is shown nowhere; none where it is no value of a header.
fn hidden(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A POST with this form as its body.
fn posted<V: AsRef<str>>(request: RequestBuilder, form: &[(&str, V)]) -> RequestBuilder {
    let mut body = String::new();
    for (name, value) in form {
        if !body.is_empty() {
            body.push('&');
        }
        escape(&mut body, name);
        body.push('=');
        escape(&mut body, value.as_ref());
    }
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.header(CONTENT_TYPE, form).body(body)
}

/// Writes a text as a form has it.
fn escape(body: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                body.push(char::from(byte));
            }
            b' ' => body.push('+'),
            other => {
                body.push('%');
                body.push_str(&hex::encode_upper([other]));
            }
        }
    }
}

/// Whether a content type is what object stores say of JSON: JSON's, or that they were told nothing.
fn is_object(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let untold = ["", "application/octet-stream", "binary/octet-stream"];
    is_json(content_type) || untold.iter().any(|known| essence.eq_ignore_ascii_case(known))
}

/// Whether a content type is JSON's, or one built on it.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// How an exchange of a refresh token ended.
#[derive(Clone, Debug)]
pub enum Exchanged {
    /// Another pair, living so long.
    Pair {
        /// The pair; without a refresh token where the vendor keeps the old one.
        pair: Pair,
        /// How long the access token lives, where the vendor says so.
        lives: Option<Duration>,
    },
    /// The refresh token is not taken.
    Refused,
    /// Neither; it may be tried again.
    Failed(Outcome),
}

/// What a token endpoint answers (RFC 6749, §5.1); of the rest nothing is read.
#[derive(Deserialize)]
struct Answered {
    access_token: SecretString,
    #[serde(default)]
    refresh_token: Option<SecretString>,
    #[serde(default, deserialize_with = "lenient")]
    expires_in: Option<u64>,
}

/// A number of seconds however it is written; nothing where it is none. A pair of tokens is not lost for it: the refresh
/// token that it came for is dead.
fn lenient<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    let text = match serde_json::Value::deserialize(from)? {
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::String(text) => text,
        _ => return Ok(None),
    };
    let whole = text.trim().split_once('.').map_or(text.trim(), |(whole, _)| whole);
    Ok(whole.parse().ok())
}

/// The largest answer of a token endpoint, bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

impl Fetcher {
    /// Exchanges a refresh token for another pair.
    pub async fn exchange(&self, client: &OAuth, refresh: &SecretString) -> Exchanged {
        let own = [("client_id", &*client.id), ("client_secret", client.secret.expose_secret())];
        let mut form = client.manner.also.to_vec();
        form.push(("grant_type", "refresh_token"));
        form.push(("refresh_token", refresh.expose_secret()));
        form.extend(own);
        form.extend(client.scope.map(|scope| ("scope", scope)));
        let (exchanged, ()) = self.trade(client, &form, false, |_body| ()).await;
        exchanged
    }

    /// Exchanges a code of a person's consent for the first pair; `read` is given the body that has it.
    pub async fn redeem<T: Default>(
        &self,
        client: &OAuth,
        code: &Code<'_>,
        basic: bool,
        read: impl FnOnce(&[u8]) -> T,
    ) -> (Exchanged, T) {
        let own = [("client_id", &*client.id), ("client_secret", client.secret.expose_secret())];
        let mut form = client.manner.also.to_vec();
        form.push(("grant_type", "authorization_code"));
        form.push(("code", code.code.expose_secret()));
        form.push(("redirect_uri", code.callback));
        form.extend(code.verifier.map(|verifier| ("code_verifier", verifier.expose_secret())));
        form.extend(own.into_iter().filter(|_| !basic));
        self.trade(client, &form, basic, read).await
    }

    async fn trade<T: Default>(
        &self,
        client: &OAuth,
        form: &[(&str, &str)],
        basic: bool,
        read: impl FnOnce(&[u8]) -> T,
    ) -> (Exchanged, T) {
        let mut request = posted(self.client.post(client.url.0.clone()), form)
            .header(ACCEPT, HeaderValue::from_static("application/json"));
        if basic {
            request = request.basic_auth(&client.id, Some(client.secret.expose_secret()));
        }
        let failed = |outcome| (Exchanged::Failed(outcome), T::default());
        let whole = async {
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) if error.is_connect() => return failed(Outcome::Unreachable),
                Err(_text) => return failed(Outcome::BrokenOff),
            };
            read_pair(client.manner.wrapped, response, read).await
        };
        let ended = tokio::time::timeout(self.limits.whole, whole).await;
        ended.unwrap_or_else(|_elapsed| failed(Outcome::TooSlow))
    }
}

/// What a person's consent is exchanged by.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// What the vendor gave.
    pub code: &'a SecretString,
    /// Where it gave it.
    pub callback: &'a str,
    /// What proves that it is ours, where the vendor asks for that.
    pub verifier: Option<&'a SecretString>,
}

/// How a request that is no fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// What it wants is so; the body.
    Well(Bytes),
    /// The vendor says that it is not, with this status.
    Refused(u16),
    /// There was no whole answer.
    Failed(Outcome),
}

/// What a request is made with.
#[derive(Clone, Copy, Debug)]
pub enum Credentials<'a> {
    /// A person's access token.
    Person(&'a SecretString),
    /// The app's id and secret.
    App(&'a str, &'a SecretString),
}

impl Fetcher {
    /// Makes a request that a vendor's file described.
    ///
    /// # Errors
    /// [`Kind::ValidationError`] where it is none, or the credentials are not the ones that it is made with.
    pub async fn send(
        &self,
        base: &Base,
        asked: &Asked,
        credentials: Credentials<'_>,
    ) -> Result<Done> {
        let wrong = |code: &str| Error::new(Kind::ValidationError, "describe a request", code);
        let base = if asked.at_host { &base.host() } else { base };
        let url = base.of(&asked.call).ok_or_else(|| wrong("path"))?;
        let secret = |text: &str| hidden(text).ok_or_else(|| wrong("credentials"));
        let mut request = match asked.verb {
            Verb::Get => self.client.get(url),
            Verb::Post => self.client.post(url),
            Verb::Put => self.client.put(url),
            Verb::Delete => self.client.delete(url),
        };
        request = match (asked.by, credentials) {
            (By::Person, Credentials::Person(token)) => {
                let bearer = format!("Bearer {}", token.expose_secret());
                request.header(AUTHORIZATION, secret(&bearer)?)
            }
            (By::PersonIn(field), Credentials::Person(token)) => {
                posted(request, &[(field, token.expose_secret())])
            }
            (By::App([name, key]), Credentials::App(id, given)) => {
                request.header(name, secret(id)?).header(key, secret(given.expose_secret())?)
            }
            (By::Form, _) if asked.call.form.is_some() => request,
            _ => return Err(wrong("credentials")),
        };
        request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(form) = &asked.call.form {
            request = posted(request, form);
        } else if let Some(body) = &asked.body {
            let json = HeaderValue::from_static("application/json");
            request = request.header(CONTENT_TYPE, json).body(body.clone());
        }
        let whole = async {
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) if error.is_connect() => return Done::Failed(Outcome::Unreachable),
                Err(_text) => return Done::Failed(Outcome::BrokenOff),
            };
            let status = response.status().as_u16();
            let inside = asked.status_in.filter(|_| status == 200);
            if inside.is_none() && !asked.good.contains(&status) {
                return Done::Refused(status);
            }
            let body = match read_small(response).await {
                Ok(body) => body.freeze(),
                Err(outcome) => return Done::Failed(outcome),
            };
            match inside.map(|member| status_of(&body, member)) {
                Some(None) => Done::Failed(Outcome::NotJson),
                Some(Some(status)) if !asked.good.contains(&status) => Done::Refused(status),
                _ => Done::Well(body),
            }
        };
        let ended = tokio::time::timeout(self.limits.whole, whole).await;
        Ok(ended.unwrap_or(Done::Failed(Outcome::TooSlow)))
    }
}

/// The status that stands in this member of a body; none where there is none that could be one.
fn status_of(body: &[u8], member: &str) -> Option<u16> {
    let Ok(Json::Object(members)) = json::parse(body) else { return None };
    match members.into_iter().find(|(name, _)| name == member)? {
        (_, Json::Integer(status)) => u16::try_from(status).ok(),
        _ => None,
    }
}

/// What a token endpoint says where it refuses (RFC 6749, §5.2).
#[derive(Deserialize)]
struct Denied {
    error: String,
}

/// Refusals that are about us, not about the person: nobody has to consent anew for our misconfiguration.
const OURS: [&str; 4] =
    ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"];

async fn read_pair<T: Default>(
    wrapped: Option<Wrapped>,
    response: Response,
    read: impl FnOnce(&[u8]) -> T,
) -> (Exchanged, T) {
    let status = response.status().as_u16();
    let failed = |outcome| (Exchanged::Failed(outcome), T::default());
    match status {
        200..=299 | 400 | 401 => {}
        300..=399 => return failed(Outcome::Redirected),
        429 => return failed(Outcome::Answered(Answer::Limited(None))),
        _ => return failed(Outcome::Answered(Answer::Unavailable)),
    }
    let pair_of = |body: &[u8]| match wrapped {
        Some(wrapped) if status < 300 => unwrapped(wrapped, body),
        _ => pair_of(status, body),
    };
    match read_small(response).await {
        Ok(body) => match pair_of(&body) {
            pair @ Exchanged::Pair { .. } => (pair, read(&body)),
            ended @ (Exchanged::Refused | Exchanged::Failed(_)) => (ended, T::default()),
        },
        Err(outcome) => failed(outcome),
    }
}

/// What a token endpoint's answer says.
fn pair_of(status: u16, body: &[u8]) -> Exchanged {
    if status >= 400 {
        let denied = serde_json::from_slice::<Denied>(body).map(|denied| denied.error);
        let person = match denied.as_deref() {
            Ok("invalid_grant") => true,
            // Oura says `invalid_request` of a dead token; some say nothing that can be read.
            Ok(error) => status == 400 && !OURS.contains(&error),
            // A page is of something that stands before the vendor.
            Err(_text) => status == 400 && body.trim_ascii_start().first() != Some(&b'<'),
        };
        let ours = Exchanged::Failed(Outcome::Answered(Answer::Refused));
        return if person { Exchanged::Refused } else { ours };
    }
    match serde_json::from_slice::<Answered>(body) {
        Ok(read) => Exchanged::Pair {
            pair: Pair { access: read.access_token, refresh: read.refresh_token },
            lives: read.expires_in.map(Duration::from_secs),
        },
        Err(_text) => Exchanged::Failed(Outcome::NotJson),
    }
}

/// What an answer says that has its status inside. Of a refusal nothing but the status is read.
fn unwrapped(wrapped: Wrapped, body: &[u8]) -> Exchanged {
    let ended = |answer| Exchanged::Failed(Outcome::Answered(answer));
    let Ok(json) = json::parse(body) else { return Exchanged::Failed(Outcome::NotJson) };
    let root = json.root();
    match root.get(wrapped.status).and_then(|at| at.integer().ok()) {
        Some(status) if status == wrapped.good => {}
        Some(status) if wrapped.refused.contains(&status) => return Exchanged::Refused,
        Some(status) if wrapped.limited.contains(&status) => return ended(Answer::Limited(None)),
        Some(_) => return ended(Answer::Refused),
        None => return Exchanged::Failed(Outcome::NotJson),
    }
    let inner = root.get(wrapped.body);
    let text = |name| {
        let text = inner.as_ref()?.get(name)?.text().ok()?.to_owned();
        Some(SecretString::from(text))
    };
    let Some(access) = text("access_token") else { return Exchanged::Failed(Outcome::NotJson) };
    let lives = inner.as_ref().and_then(|at| at.get("expires_in")?.integer().ok());
    let lives = lives.and_then(|seconds| u64::try_from(seconds).ok());
    let pair = Pair { access, refresh: text("refresh_token") };
    Exchanged::Pair { pair, lives: lives.map(Duration::from_secs) }
}

async fn read_small(mut response: Response) -> std::result::Result<BytesMut, Outcome> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) > TOKEN_BYTES_MAX => {
                return Err(Outcome::TooLarge);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(_text) => return Err(Outcome::BrokenOff),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_not_lost_for_how_its_life_is_written() {
        for (written, seconds) in [
            ("3600", Some(3_600)),
            ("3600.0", Some(3_600)),
            (r#""3600""#, Some(3_600)),
            ("null", None),
            ("-1", None),
            ("{}", None),
        ] {
            let body =
                format!(r#"{{"access_token":"a","refresh_token":"r","expires_in":{written}}}"#);
            let Exchanged::Pair { pair, lives } = pair_of(200, body.as_bytes()) else {
                panic!("{written}")
            };
            assert_eq!(lives, seconds.map(Duration::from_secs), "{written}");
            assert!(pair.refresh.is_some(), "{written}");
        }
    }

    #[test]
    fn only_the_vendor_s_own_word_ends_a_consent() {
        for (status, body, ends) in [
            (400, r#"{"error":"invalid_grant"}"#, true),
            (401, r#"{"error":"invalid_grant"}"#, true),
            (400, r#"{"error":"invalid_request"}"#, true),
            (400, r#"{"message":"no"}"#, true),
            (400, "", true),
            (400, r#"{"error":"invalid_client"}"#, false),
            (401, "", false),
            (400, " <!DOCTYPE html><html>", false),
        ] {
            let refused = matches!(pair_of(status, body.as_bytes()), Exchanged::Refused);
            assert_eq!(refused, ends, "{status} {body}");
        }
    }
}
