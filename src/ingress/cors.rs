//! Pages of other origins: which may ask, by which methods and with which headers.
//!
//! Vendors' servers send no `Origin`, so without a list nothing of this is answered and a preflight
//! is a 405 like any other method. With one, only what is on it gets an answer that a browser lets
//! its page see. `*` is every origin, and never together with credentials.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;

use crate::ingress::reply::{Answer, Refusal};

/// `[ingress.cors]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Origins, comma separated, as a browser writes them: scheme, host and a port if it is not the
    /// scheme's. Absent: none.
    #[serde(default)]
    pub origins: Option<String>,
    /// What a page may use, comma separated.
    pub methods: String,
    /// Request headers that a page may set, comma separated.
    pub headers: String,
    /// Whether a page's requests may carry credentials of the browser's.
    pub credentials: bool,
    /// How long a browser may remember a preflight, s.
    pub max_age_s: u32,
}

impl Settings {
    /// What cannot work, each with its key and what is allowed.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let origins: Vec<&str> = listed(self.origins.as_deref().unwrap_or_default()).collect();
        if !origins.iter().all(|origin| *origin == "*" || is_origin(origin)) {
            let example = "https://app.example.com and others like it, comma separated";
            found.push(format!("ingress.cors.origins: {example}; no path, no slash at the end"));
        }
        if origins.contains(&"*") && (origins.len() > 1 || self.credentials) {
            found.push("ingress.cors.origins: \"*\" alone, and without credentials".to_owned());
        }
        let known = ["GET", "HEAD", "POST"];
        if !listed(&self.methods).all(|method| known.contains(&method)) {
            found.push("ingress.cors.methods: GET, HEAD, POST or fewer".to_owned());
        }
        let plain = |name: &str| header::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if !listed(&self.headers).all(plain) {
            found.push("ingress.cors.headers: names of headers, comma separated".to_owned());
        }
        found
    }
}

/// The parts of a list as a person writes one.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Whether a browser could send this as an origin: it is compared byte for byte.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte);
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(plain))
}

/// The configured origins, and the answers for them.
pub(super) struct Origins {
    any: bool,
    origins: Vec<HeaderValue>,
    methods: HeaderValue,
    headers: HeaderValue,
    credentials: bool,
    max_age: HeaderValue,
}

impl Origins {
    /// The origins of settings that have no problems; absent where none is configured.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let origins: Vec<&str> = listed(settings.origins.as_deref()?).collect();
        let joined = |list: &str| {
            let list = listed(list).collect::<Vec<_>>().join(", ");
            HeaderValue::from_str(&list).unwrap_or(HeaderValue::from_static(""))
        };
        (!origins.is_empty()).then(|| Self {
            any: origins.contains(&"*"),
            origins: origins.iter().filter_map(|one| HeaderValue::from_str(one).ok()).collect(),
            methods: joined(&settings.methods),
            headers: joined(&settings.headers),
            credentials: settings.credentials,
            max_age: HeaderValue::from(settings.max_age_s),
        })
    }

    /// The answer to a preflight; absent where it is none.
    pub(super) fn preflight(&self, head: &Parts) -> Option<Result<Answer, Refusal>> {
        let asks = head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = one(&head.headers, &header::ORIGIN)?;
        if !asks {
            return None;
        }
        if !self.knows(origin) {
            return Some(Err(Refusal::Origin));
        }
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        Some(Ok(answer))
    }

    /// Tells the browser, with whatever answer, that its page may see it.
    pub(super) fn mark(&self, request: &HeaderMap, answer: &mut Answer) {
        let headers = answer.headers_mut();
        // What is answered depends on who asks, also where nobody did.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = one(request, &header::ORIGIN).filter(|origin| self.knows(origin)) else {
            return;
        };
        let allowed = if self.any { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let exposed = HeaderValue::from_static("retry-after");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }

    fn knows(&self, origin: &HeaderValue) -> bool {
        self.any || self.origins.contains(origin)
    }
}

/// The value of a header that stands there once.
fn one<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a HeaderValue> {
    let mut found = headers.get_all(name).iter();
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
pub(super) mod tests {
    use http::Request;

    use super::*;

    pub(in crate::ingress) fn settings() -> Settings {
        Settings {
            origins: None,
            methods: "GET, POST".to_owned(),
            headers: "content-type".to_owned(),
            credentials: false,
            max_age_s: 600,
        }
    }

    fn of(origins: &str, credentials: bool) -> Settings {
        Settings { origins: Some(origins.to_owned()), credentials, ..settings() }
    }

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::options("/webhooks/healthkit");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    const ASKS: (&str, &str) = ("access-control-request-method", "POST");
    const APP: &str = "https://app.example.com";

    #[test]
    fn an_origin_is_what_a_browser_writes() {
        assert_eq!(settings().problems(), Vec::<String>::new());
        assert!(of(&format!("{APP}, http://localhost:3000"), true).problems().is_empty());
        assert!(of("*", false).problems().is_empty());
        let bad = ["*", "https://a.example.com/", "https://A.example.com", "a.example.com", "null"];
        for origins in bad {
            assert_eq!(of(origins, true).problems().len(), 1, "{origins}");
        }
        assert_eq!(of(&format!("*, {APP}"), false).problems().len(), 1);
        let all = Settings {
            methods: "GET, BREW".to_owned(),
            headers: "a b".to_owned(),
            ..of("x", false)
        };
        assert_eq!(all.problems().len(), 3);
        assert!(Origins::new(&settings()).is_none());
    }

    #[test]
    fn a_preflight_is_answered_to_who_is_listed() {
        let origins = Origins::new(&of(APP, true)).expect("some");
        let head_of_app = head(&[("origin", APP), ASKS]);
        let mut answer = origins.preflight(&head_of_app).expect("one").expect("allowed");
        origins.mark(&head_of_app.headers, &mut answer);
        assert_eq!(answer.status(), 204);
        let told = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(told("access-control-allow-origin"), Some(APP));
        assert_eq!(told("access-control-allow-methods"), Some("GET, POST"));
        assert_eq!(told("access-control-allow-headers"), Some("content-type"));
        assert_eq!(told("access-control-allow-credentials"), Some("true"));
        assert_eq!(told("access-control-max-age"), Some("600"));
        assert_eq!(told("vary"), Some("origin"));
        let other = head(&[("origin", "https://evil.example.com"), ASKS]);
        assert_eq!(origins.preflight(&other).expect("one").err(), Some(Refusal::Origin));
        for none in [head(&[ASKS]), head(&[("origin", APP)]), head(&[])] {
            assert!(origins.preflight(&none).is_none(), "no preflight");
        }
        let two = head(&[("origin", APP), ("origin", APP), ASKS]);
        assert!(origins.preflight(&two).is_none());
    }

    #[test]
    fn an_answer_is_marked_for_who_is_listed_only() {
        let origins = Origins::new(&of(APP, false)).expect("some");
        let mut answer = Refusal::TooLarge.answer(5);
        origins.mark(&head(&[("origin", "https://evil.example.com")]).headers, &mut answer);
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
        assert_eq!(answer.headers()["vary"], "origin");
        let mut answer = Refusal::TooLarge.answer(5);
        origins.mark(&head(&[("origin", APP)]).headers, &mut answer);
        assert_eq!(answer.headers()["access-control-allow-origin"], APP);
        assert!(!answer.headers().contains_key("access-control-allow-credentials"));
        let any = Origins::new(&of("*", false)).expect("some");
        let mut answer = Refusal::TooLarge.answer(5);
        any.mark(&head(&[("origin", APP)]).headers, &mut answer);
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    }
}
