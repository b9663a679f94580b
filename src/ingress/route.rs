//! Method, path and form of a request: what is refused before a byte of the body is read. Pure.

use http::request::Parts;
use http::{HeaderMap, Method, header};

use crate::error::Kind;
use crate::ingress::cors::Origins;
use crate::ingress::desk::{Desk, Desks};
use crate::ingress::reply::{Answer, Refusal};
use crate::vendors::Vendor;
use crate::vendors::wire::form::unescaped;

/// The longest query of a handshake, bytes.
const QUERY_BYTES_MAX: usize = 2_048;
/// The most parameters of a handshake.
const PARAMETERS_MAX: usize = 16;

/// The vendor's desk of a path, if it is a path of ours.
///
/// The path is compared as it came: a percent sign, a second slash or a trailing one is another
/// path. A vendor that signs nothing has a secret behind its name; who does not know it finds
/// nothing, and nobody else has anything there.
pub(super) fn desk<'a>(path: &str, desks: &'a Desks) -> Result<&'a Desk, Refusal> {
    let nowhere = Refusal::NotFound(Kind::RequestRefused);
    let rest = path
        .strip_prefix("/webhooks/")
        .or_else(|| path.strip_prefix("/webhook/"))
        .ok_or(nowhere)?;
    let (name, secret) = match rest.split_once('/') {
        None => (rest, None),
        Some((name, secret)) => (name, Some(secret)),
    };
    match desks.find(name) {
        None if secret.is_some() => Err(nowhere),
        None => Err(Refusal::NotFound(Kind::UnknownVendor)),
        Some(desk) if desk.takes(secret) => Ok(desk),
        Some(desk) if desk.vendor.secret_path() => Err(Refusal::NotFound(Kind::SignatureInvalid)),
        Some(_) => Err(nowhere),
    }
}

/// What a request to a vendor's path wants.
#[derive(Debug)]
pub(super) enum Asked {
    /// A delivery: its body is to be read.
    Delivery,
    /// A handshake, answered with this text.
    Handshake(String),
    /// A browser asks whether a page of another origin may, and has its answer.
    Preflight(Answer),
}

/// What is asked, by method, query and headers.
pub(super) fn asked(
    head: &Parts,
    desk: &Desk,
    origins: Option<&Origins>,
) -> Result<Asked, Refusal> {
    let secrets = desk.secrets(None);
    let handshake = |query: &[(String, String)]| desk.vendor.handshake(query, &secrets);
    match head.method {
        Method::POST if head.uri.query().is_some() => {
            // A vendor's user or token in a query would stand in every proxy's log; no vendor of
            // ours has one.
            Err(Refusal::NotFound(Kind::RequestRefused))
        }
        Method::POST => form(&head.headers, desk.vendor).map(|()| Asked::Delivery),
        Method::GET | Method::HEAD => {
            match handshake(&parameters(head.uri.query().unwrap_or_default())) {
                Some(Ok(text)) => Ok(Asked::Handshake(text)),
                Some(Err(kind)) => Err(Refusal::Signature(kind)),
                None => Err(Refusal::Method("POST")),
            }
        }
        Method::OPTIONS if let Some(answer) = origins.and_then(|ours| ours.preflight(head)) => {
            answer.map(Asked::Preflight)
        }
        _ if handshake(&[]).is_some() => Err(Refusal::Method("GET, HEAD, POST")),
        _ => Err(Refusal::Method("POST")),
    }
}

/// Whether the body comes as this vendor's contract has it.
fn form(headers: &HeaderMap, vendor: &dyn Vendor) -> Result<(), Refusal> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let plain = match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(one), None) => {
            one.as_bytes().eq_ignore_ascii_case(b"identity")
                || (vendor.takes_gzip() && one.as_bytes().eq_ignore_ascii_case(b"gzip"))
        }
        (Some(_), Some(_)) => false,
    };
    // hyper reads any list that ends in `chunked`; a body that is compressed underneath is encoded
    // all the same.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let framed = codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !plain || !framed {
        return Err(Refusal::Encoding);
    }
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = told.and_then(|length| length.parse::<usize>().ok());
    match length {
        Some(length) if length > vendor.body_bytes_max() => Err(Refusal::TooLarge),
        None if told.is_some() => Err(Refusal::TooLarge),
        _ => Ok(()),
    }
}

/// The parameters of a query, unescaped; a query that is too long has none.
fn parameters(query: &str) -> Vec<(String, String)> {
    if query.len() > QUERY_BYTES_MAX {
        return Vec::new();
    }
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .take(PARAMETERS_MAX)
        .filter_map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((unescaped(name)?.into_owned(), unescaped(value)?.into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::Request;

    use super::*;
    use crate::ingress::{Keys, VendorKeys};
    use crate::telemetry::metrics::Metrics;

    fn keys() -> Keys {
        let both = VendorKeys {
            signing: vec!["not-a-secret-test-key".into()],
            handshake: Some("not-a-secret-token".into()),
            ..VendorKeys::default()
        };
        let paths = ["not-a-secret-path-of-garmin", "not-a-secret-path-before"].map(Into::into);
        let paths = paths.to_vec();
        Keys {
            pseudonym: "not-a-secret-pseudonym-key".into(),
            vendors: BTreeMap::from([
                ("garmin".to_owned(), VendorKeys { signing: paths.clone(), ..both.clone() }),
                ("dexcom".to_owned(), VendorKeys { signing: paths.clone(), ..both.clone() }),
                ("oura".to_owned(), both.clone()),
                ("withings".to_owned(), VendorKeys { signing: paths, ..both.clone() }),
                ("whoop".to_owned(), both),
            ]),
        }
    }

    const DELIVERY: Result<&str, Refusal> = Ok("a delivery");

    fn ask(method: &str, to: &str, headers: &[(&str, &str)]) -> Result<&'static str, Refusal> {
        let mut request = Request::builder().method(method).uri(to);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let desks = Desks::new(&keys(), &Metrics::new());
        Ok(match asked(&head, desk(head.uri.path(), &desks)?, None)? {
            Asked::Delivery => "a delivery",
            Asked::Handshake(_) => "a handshake",
            Asked::Preflight(_) => "a preflight",
        })
    }

    #[test]
    fn a_path_is_ours_as_it_stands_or_not_at_all() {
        for path in ["/webhooks/oura", "/webhook/oura"] {
            assert_eq!(ask("POST", path, &[]), DELIVERY, "{path}");
        }
        let wrong = Err(Refusal::NotFound(Kind::RequestRefused));
        for path in ["/", "/webhooks", "/webhooks/oura/", "/webhooks/oura/x", "//webhooks/oura"] {
            assert_eq!(ask("POST", path, &[]), wrong, "{path}");
        }
        assert_eq!(ask("POST", "/webhooks/oura?user=u-4f2c81", &[]), wrong, "nothing in a query");
        let unknown = Err(Refusal::NotFound(Kind::UnknownVendor));
        for path in ["/webhooks/", "/webhooks/Oura", "/webhooks/%6fura", "/webhooks/nobody"] {
            assert_eq!(ask("POST", path, &[]), unknown, "{path}");
        }
        let none = Desks::new(&Keys { vendors: BTreeMap::new(), ..keys() }, &Metrics::new());
        let refused = desk("/webhooks/oura", &none).err();
        assert_eq!(refused, Some(Refusal::NotFound(Kind::UnknownVendor)));
    }

    #[test]
    fn a_vendor_that_signs_nothing_has_a_secret_at_the_end_of_its_path() {
        for path in ["not-a-secret-path-of-garmin", "not-a-secret-path-before"] {
            assert_eq!(ask("POST", &format!("/webhooks/garmin/{path}"), &[]), DELIVERY, "{path}");
        }
        let refused = Err(Refusal::NotFound(Kind::SignatureInvalid));
        for path in ["", "/", "/not-a-secret-path-of-garmi", "/not-a-secret-path-of-garmin/"] {
            assert_eq!(ask("POST", &format!("/webhooks/garmin{path}"), &[]), refused, "{path}");
        }
        let nowhere = Err(Refusal::NotFound(Kind::RequestRefused));
        assert_eq!(ask("POST", "/webhooks/whoop/not-a-secret-test-key", &[]), nowhere);
    }

    /// Withings looks by HEAD before a subscription, a person by GET: at the whole path, or there is nothing.
    #[test]
    fn who_only_looks_is_answered_where_the_vendor_looks() {
        let path = "/webhooks/withings/not-a-secret-path-of-garmin";
        for method in ["HEAD", "GET"] {
            assert_eq!(ask(method, path, &[]), Ok("a handshake"), "{method}");
            let refused = Err(Refusal::NotFound(Kind::SignatureInvalid));
            assert_eq!(ask(method, "/webhooks/withings", &[]), refused, "{method}");
        }
        assert_eq!(ask("POST", path, &[]), DELIVERY);
        assert_eq!(ask("PUT", path, &[]), Err(Refusal::Method("GET, HEAD, POST")));
        // Who sends nothing has no path that anybody knows.
        let refused = Err(Refusal::NotFound(Kind::SignatureInvalid));
        assert_eq!(ask("POST", "/webhooks/dexcom", &[]), refused);
    }

    #[test]
    fn a_method_is_the_vendors() {
        for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
            assert_eq!(ask(method, "/webhooks/whoop", &[]), Err(Refusal::Method("POST")));
            assert_eq!(ask(method, "/webhooks/oura", &[]), Err(Refusal::Method("GET, HEAD, POST")));
        }
        for method in ["GET", "HEAD"] {
            assert_eq!(ask(method, "/webhooks/whoop", &[]), Err(Refusal::Method("POST")));
        }
    }

    #[test]
    fn an_encoding_is_the_contracts() {
        for fine in ["identity", "Identity"] {
            let told = [("content-encoding", fine)];
            assert_eq!(ask("POST", "/webhooks/whoop", &told), DELIVERY);
        }
        for bad in ["gzip", "br", "identity, gzip", ""] {
            let told = [("content-encoding", bad)];
            assert_eq!(ask("POST", "/webhooks/whoop", &told), Err(Refusal::Encoding), "{bad}");
        }
        let twice = [("content-encoding", "identity"), ("content-encoding", "gzip")];
        assert_eq!(ask("POST", "/webhooks/whoop", &twice), Err(Refusal::Encoding));
        let under = [("transfer-encoding", "gzip, chunked")];
        assert_eq!(ask("POST", "/webhooks/whoop", &under), Err(Refusal::Encoding));
        let chunked = [("transfer-encoding", "chunked")];
        assert_eq!(ask("POST", "/webhooks/whoop", &chunked), DELIVERY);
    }

    #[test]
    fn a_length_is_believed_where_it_is_too_much() {
        let long = |length: &str| ask("POST", "/webhooks/whoop", &[("content-length", length)]);
        assert_eq!(long("1048576"), DELIVERY);
        assert_eq!(long("1048577"), Err(Refusal::TooLarge));
        assert_eq!(long("18446744073709551616"), Err(Refusal::TooLarge));
    }

    #[test]
    fn a_query_is_unescaped_once_and_bounded() {
        assert_eq!(
            parameters("a=%41%2b+b&&c&bad=%zz&cut=%4"),
            [("a".to_owned(), "A+ b".to_owned()), ("c".to_owned(), String::new())]
        );
        assert!(parameters(&"a=b&".repeat(600)).is_empty());
        assert_eq!(parameters(&"a=b&".repeat(100)).len(), PARAMETERS_MAX);
    }
}
