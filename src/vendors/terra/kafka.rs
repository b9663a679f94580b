//! Terra's Kafka destination: what a record of `raw-terra` is.
//!
//! Terra writes there itself: without a key, without headers that we could trust, unsigned; who may
//! write the topic is all that vouches for a record. It carries the body of a webhook as it is, or a
//! pointer: a link to the body that dies within minutes.
//!
//! # Decisions
//! - The time of a record is Kafka's: there is no ordering time as webhooks have one. It is the
//!   receipt of what stands in it, and of what its link leads to; so two pointers that are fetched in
//!   the wrong order stand in the right one.
//! - A link is data from outside. It is followed where it is https, leads to Google's or Amazon's
//!   object store (or to one that configuration names) at the usual port, and names nobody; without
//!   a token, without redirects.
//! - A link is never shown: whoever has it has the body.

use std::fmt;

use crate::error::Reject;
use crate::model::time::Micros;
use crate::vendors::wire::glance;
use crate::vendors::wire::json::At;

/// The vendor that all of `raw-terra` is of.
pub const WRITER: &str = "terra";
/// What a body behind a pointer is called where it was fetched.
pub const PAYLOAD: &str = "payload";

/// The longest link that is followed; signed ones have some 1 KB.
const LINK_BYTES_MAX: usize = 4_096;
/// The longest life of a link that is believed, s: an object store signs none for longer.
const LIFE_MAX: i64 = 7 * 86_400;

/// A record of `raw-terra`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The body of a webhook, or what nobody can read: normalise says which.
    Inline,
    /// The body is elsewhere.
    Pointer(Pointer),
}

/// Where a body is, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The link.
    pub link: Link,
    /// When it dies, µs; absent where Terra does not say.
    pub dies_at: Option<Micros>,
}

impl Pointer {
    /// Whether it is dead at this time: from then on nobody is asked.
    #[must_use]
    pub fn is_dead(&self, now_us: Micros) -> bool {
        self.dies_at.is_some_and(|dies_at| now_us >= dies_at)
    }
}

/// An address that may be asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Link(String);

impl fmt::Debug for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Link(***)")
    }
}

impl Link {
    /// The link of this text, where it leads to an object store, or to `own` (a bucket of ours: scheme, host and
    /// port), and nowhere else.
    #[must_use]
    pub fn parse(text: &str, own: Option<&str>) -> Option<Self> {
        let unsafe_in_links = |byte: u8| !byte.is_ascii_graphic() || b"\\\"<>".contains(&byte);
        if text.len() > LINK_BYTES_MAX || text.bytes().any(unsafe_in_links) {
            return None;
        }
        let ours =
            own.and_then(|own| text.strip_prefix(own)).is_some_and(|rest| rest.starts_with('/'));
        let host = || text.strip_prefix("https://")?.split(['/', '?', '#']).next();
        (ours || host().is_some_and(is_store)).then(|| Self(text.to_owned()))
    }

    /// The address itself, for who asks it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0
    }
}

/// Whether a host is one of the object stores that Terra writes to. Of Amazon's hosts only those of
/// its store: others are anybody's machines.
fn is_store(host: &str) -> bool {
    if host == "storage.googleapis.com" {
        return true;
    }
    let Some(rest) = host.strip_suffix(".amazonaws.com") else { return false };
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(plain)
    };
    let store = |label: &&str| *label == "s3" || label.starts_with("s3-");
    rest.split('.').all(label) && rest.rsplit('.').take(2).any(|label| store(&label))
}

/// What a record is that was written at this time. Links may lead to `own`, too ([`Link::parse`]).
///
/// # Errors
/// A pointer that is none: without a link, or with one to somewhere else.
pub fn read(body: &[u8], written_at: Micros, own: Option<&str>) -> Result<Said, Reject> {
    let Some(json) = glance::members(body, &["type", "status", "url", "expires_in"]) else {
        return Ok(Said::Inline);
    };
    let root = json.root();
    let kind = root.get("type").and_then(|at| at.text().ok());
    if !matches!(kind, Some("s3_payload" | "s3_upload")) {
        return Ok(Said::Inline);
    }
    let success = |at: &At<'_>| at.text().map(|status| status == "success");
    if let Some(status) = root.get("status")
        && !success(&status)?
    {
        return Err(status.invalid("a pointer to what was not written"));
    }
    let url = root.need("url")?;
    let link = Link::parse(url.text()?, own)
        .ok_or_else(|| url.invalid("a link to an address that is not the vendor's"))?;
    let life = root.get("expires_in").map(|at| life(&at)).transpose()?;
    let dies_at = life.and_then(|life| written_at.checked_add(life));
    Ok(Said::Pointer(Pointer { link, dies_at }))
}

fn life(at: &At<'_>) -> Result<Micros, Reject> {
    let seconds = at.integer()?;
    if (0..=LIFE_MAX).contains(&seconds) {
        Ok(seconds * 1_000_000)
    } else {
        Err(at.invalid("not the life of a link"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const WRITTEN: Micros = 1_774_767_600_000_000;
    const URL: &str = "https://storage.googleapis.com/bkt/ab12.json?X-Goog-Expires=600";

    fn pointer(more: &str) -> String {
        format!(r#"{{"status":"success","type":"s3_payload","url":"{URL}"{more}}}"#)
    }

    fn found(body: &str) -> Pointer {
        match read(body.as_bytes(), WRITTEN, None) {
            Ok(Said::Pointer(pointer)) => pointer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn facts_a_pointer_lives_as_long_as_its_record_says() {
        let whose = r#","expires_in":300,"user_id":"5a3d0e6b","reference_id":"app-user-77"}"#;
        for body in [pointer(whose.trim_end_matches('}')), pointer(r#","expires_in":300.0"#)] {
            let pointer = found(&body);
            assert_eq!(pointer.link.address(), URL);
            assert!(!pointer.is_dead(WRITTEN + 299_999_999));
            assert!(pointer.is_dead(WRITTEN + 300_000_000));
            assert!(pointer.is_dead(WRITTEN + 301_000_000), "301 s later");
        }
        let old = pointer(r#","payload_reference":"9a1","expires_in":600"#);
        assert_eq!(found(&old).dies_at, Some(WRITTEN + 600_000_000));
        assert_eq!(found(&pointer("")).dies_at, None, "a bucket of our own");
        let uploaded = pointer("").replace("s3_payload", "s3_upload");
        assert_eq!(found(&uploaded), found(&pointer("")), "the other name of the same");
    }

    #[test]
    fn facts_an_inline_body_is_the_webhooks() {
        for body in
            [r#"{"type":"sleep","user":{"user_id":"a"},"data":[]}"#, "not json", "", "[]", "{}"]
        {
            assert_eq!(read(body.as_bytes(), WRITTEN, None), Ok(Said::Inline), "{body}");
        }
    }

    #[test]
    fn facts_a_link_leads_to_an_object_store_or_nowhere() {
        for link in [
            URL,
            "https://s3.amazonaws.com/bkt/a.json",
            "https://bkt.s3.amazonaws.com/a.json?X-Amz-Expires=600",
            "https://s3.eu-west-2.amazonaws.com/bkt/a.json",
            "https://bkt.s3-eu-west-2.amazonaws.com/a.json",
            "https://bkt.with.dots.s3.eu-west-2.amazonaws.com/a.json",
        ] {
            assert!(Link::parse(link, None).is_some(), "{link}");
        }
        for link in [
            "http://storage.googleapis.com/bkt/a.json",
            "https://storage.googleapis.com.example/a",
            "https://storage.googleapis.com@example/a",
            "https://user:pass@storage.googleapis.com/a",
            "https://storage.googleapis.com:8443/a",
            "https://storage.googleapis.com\\@example/a",
            "https://example/storage.googleapis.com",
            "https://ec2-1-2-3-4.compute-1.amazonaws.com/a",
            "https://s3.name.elb.amazonaws.com/a",
            "https://.amazonaws.com/a",
            "https://amazonaws.com/a",
            "https://127.0.0.1/a",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/a",
            "https://storage.googleapis.com/a b",
            "https://storage.googleapis.com/\u{e9}",
            "file:///etc/passwd",
            "",
        ] {
            assert_eq!(Link::parse(link, None), None, "{link}");
            let body = serde_json::json!({ "type": "s3_payload", "url": link }).to_string();
            let refused = read(body.as_bytes(), WRITTEN, None).expect_err("refused");
            assert_eq!(
                (refused.kind, refused.at.as_str()),
                (Kind::ValidationError, "url"),
                "{link}"
            );
        }
        let long = format!("{URL}&x={}", "a".repeat(LINK_BYTES_MAX));
        assert_eq!(Link::parse(&long, None), None);
    }

    #[test]
    fn facts_a_bucket_of_our_own_is_one_place_and_no_prefix() {
        let own = Some("https://bodies.example");
        assert!(Link::parse("https://bodies.example/a.json?x=1", own).is_some());
        assert!(Link::parse(URL, own).is_some(), "beside the stores");
        for link in [
            "https://bodies.example",
            "https://bodies.example.evil.example/a",
            "https://bodies.example@evil.example/a",
            "https://bodies.example:8443/a",
            "http://bodies.example/a",
        ] {
            assert_eq!(Link::parse(link, own), None, "{link}");
        }
    }

    #[test]
    fn facts_a_bad_pointer_is_a_dead_letter_and_says_no_link() {
        for (body, at) in [
            (r#"{"type":"s3_payload"}"#.to_owned(), "url"),
            (r#"{"type":"s3_payload","url":7}"#.to_owned(), "url"),
            (pointer("").replace("success", "error"), "status"),
            (pointer(r#","expires_in":-1"#), "expires_in"),
            (pointer(r#","expires_in":"soon""#), "expires_in"),
            (pointer(r#","expires_in":99999999999"#), "expires_in"),
        ] {
            let refused = read(body.as_bytes(), WRITTEN, None).expect_err("refused");
            assert_eq!(refused.at.as_str(), at);
            assert!(!format!("{refused:?}").contains("bkt"));
        }
        assert!(!format!("{:?}", found(&pointer(""))).contains("bkt"), "a link is never shown");
    }
}
