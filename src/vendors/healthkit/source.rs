//! Who wrote a sample, and what its metadata says.
//!
//! A source is the app's bundle id and the device's product type. Its *name* is free text that its owner chose
//! (`Anna’s Watch`): it is compared with a closed list of apps and kinds of device, because Health Auto Export and
//! `export.xml` give nothing else, and no word of it goes any further.

use std::collections::BTreeMap;

use crate::error::{Path, Reject};
use crate::vendors::wire::json::{self, At, Json};

/// The longest source, metadata or list of a workout's values that is read, bytes.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024;
/// How many texts are remembered with what they mean; a push of a phone has a few dozen.
const REMEMBERED_MAX: usize = 1024;

/// Who wrote a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Written {
    /// The bundle id of the app; our word for it where only its name is known ([`named`]).
    pub(super) app: Option<String>,
    /// The product type of the device, `Watch7,5`; its kind where only its name is known.
    pub(super) model: Option<String>,
}

impl Written {
    /// `<bundle id>|<product type>`, absent parts empty; neither can hold a bar.
    pub(super) fn key(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}|{}", part(&self.app), part(&self.model))
    }
}

/// A source as samples point to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Its place in [`Sources`].
    pub(super) at: usize,
    /// `automatic`, `manual`, `active` or `unknown`.
    pub(super) method: &'static str,
}

/// What a sample's metadata tells us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Whether a person typed it in.
    pub(super) user_entered: bool,
    /// The IANA zone where it was measured.
    pub(super) zone: Option<String>,
}

/// Why a text could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It breaks the rules of the whole body: [`json`] would not have read it.
    Body(Reject),
    /// It breaks the contract of its element.
    Element(Reject),
}

impl From<Reject> for Unread {
    fn from(reject: Reject) -> Self {
        Self::Element(reject)
    }
}

/// The sources of a push, each once, and the texts that were read.
#[derive(Debug, Default)]
pub(super) struct Sources<'de> {
    list: Vec<Written>,
    places: BTreeMap<Written, usize>,
    sources: Remembered<'de, Source>,
    metadata: Remembered<'de, Metadata>,
}

/// What texts mean: the last one at hand, and a bounded number of earlier ones.
#[derive(Debug)]
struct Remembered<'de, T> {
    last: Option<(&'de str, T)>,
    earlier: BTreeMap<&'de str, T>,
}

impl<T> Default for Remembered<'_, T> {
    fn default() -> Self {
        Self { last: None, earlier: BTreeMap::new() }
    }
}

impl<'de, T: Clone> Remembered<'de, T> {
    fn get(&mut self, text: &'de str) -> Option<T> {
        if let Some((last, meaning)) = &self.last
            && *last == text
        {
            return Some(meaning.clone());
        }
        let meaning = self.earlier.get(text)?.clone();
        self.last = Some((text, meaning.clone()));
        Some(meaning)
    }

    fn put(&mut self, text: &'de str, meaning: T) {
        if self.earlier.len() >= REMEMBERED_MAX {
            self.earlier.clear();
        }
        self.earlier.insert(text, meaning.clone());
        self.last = Some((text, meaning));
    }
}

impl<'de> Sources<'de> {
    /// What a `source` says.
    pub(super) fn source(&mut self, text: Option<&'de str>) -> Result<Source, Unread> {
        let Some(text) = text else {
            return Ok(Source { at: self.place(Written::default()), method: "unknown" });
        };
        if let Some(known) = self.sources.get(text) {
            return Ok(known);
        }
        let tree = tree(text)?;
        let (written, method) = under("source", source(&tree.root()))?;
        let source = Source { at: self.place(written), method };
        self.sources.put(text, source);
        Ok(source)
    }

    /// What `metadata` says: an object, or a list of objects. It is free-form, so what is unknown there is no fault.
    pub(super) fn metadata(&mut self, text: Option<&'de str>) -> Result<Metadata, Unread> {
        let Some(text) = text else { return Ok(Metadata::default()) };
        if let Some(known) = self.metadata.get(text) {
            return Ok(known);
        }
        let metadata = metadata(&tree(text)?);
        self.metadata.put(text, metadata.clone());
        Ok(metadata)
    }

    /// The place of a source; a new one is put at the end.
    pub(super) fn place(&mut self, written: Written) -> usize {
        if let Some(place) = self.places.get(&written) {
            return *place;
        }
        let place = self.list.len();
        self.list.push(written.clone());
        self.places.insert(written, place);
        place
    }

    /// The source at a place.
    pub(super) fn written(&self, place: usize) -> &Written {
        const NOBODY: &Written = &Written { app: None, model: None };
        self.list.get(place).unwrap_or(NOBODY)
    }
}

/// A part of a body as a tree, where it is short enough for one.
pub(super) fn tree(text: &str) -> Result<Json<'_>, Unread> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Unread::Element(Reject::invalid(
            Path::root(),
            "more than 64 KiB in one place",
        )));
    }
    json::parse(text.as_bytes()).map_err(Unread::Body)
}

/// What went wrong in a part, as a place of its element.
pub(super) fn under<T>(name: &'static str, read: Result<T, Reject>) -> Result<T, Reject> {
    read.map_err(|reject| Reject { at: Path::root().key(name).then(&reject.at), ..reject })
}

fn source<'a>(source: &'a At<'a>) -> Result<(Written, &'static str), Reject> {
    source.object()?;
    let mut written = Written {
        app: identifier(source, "bundleIdentifier", b".-_")?,
        model: identifier(source, "productType", b".-_,")?,
    };
    if written.app.is_none()
        && let Some(Json::Text(name)) = source.get("name").map(|at| at.json())
    {
        written.app = named(name).app.map(str::to_owned);
    }
    let method = match source.get("recordingMethod").map(|given| given.text()).transpose()? {
        Some("automatic") => "automatic",
        Some("manual") => "manual",
        Some("active") => "active",
        _ => "unknown",
    };
    Ok((written, method))
}

/// An identifier of a maker: ASCII letters, digits and these marks, 155 at most (Apple's limit for a bundle id).
/// It becomes part of a key and leaves the house, so that a person's words in its place are refused.
fn identifier<'a>(
    at: &'a At<'a>,
    name: &'static str,
    marks: &[u8],
) -> Result<Option<String>, Reject> {
    let Some(given) = at.get(name) else { return Ok(None) };
    let text = given.text()?;
    if !is_identifier(text, marks) {
        return Err(given.invalid("not an identifier"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Whether a text can be a maker's identifier.
fn is_identifier(text: &str, marks: &[u8]) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
    text.len() <= 155 && text.bytes().all(fits)
}

/// Whether a text can be a device's product type (`Watch7,5`), so that it may go into a key.
#[must_use]
pub fn is_product_type(text: &str) -> bool {
    !text.is_empty() && is_identifier(text, b".-_,")
}

fn metadata(json: &Json<'_>) -> Metadata {
    let mut found = Metadata::default();
    let mut read = |json: &Json<'_>| {
        let Json::Object(members) = json else { return };
        for (key, value) in members {
            match key.as_ref() {
                "HKWasUserEntered" => found.user_entered |= is_true(value),
                "HKTimeZone" => {
                    if let Json::Text(zone) = value {
                        found.zone = Some(zone.as_ref().to_owned());
                    }
                }
                _ => {}
            }
        }
    };
    match json {
        Json::List(list) => list.iter().for_each(read),
        other => read(other),
    }
    found
}

fn is_true(value: &Json<'_>) -> bool {
    match value {
        Json::Bool(value) => *value,
        Json::Integer(value) => *value == 1,
        Json::Text(text) => text == "1" || text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// What a source's name tells: an app of the closed list, a kind of device, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Our word for the app.
    pub app: Option<&'static str>,
    /// `Watch`, `iPhone` or `iPad`.
    pub device: Option<&'static str>,
}

/// Apps by the name that they write under, in lower case, and our word for each. Those of other makers are here
/// because what they write is that maker's, those for sleep because a night must not be mixed of two of them.
const APPS: &[(&str, &str)] = &[
    ("oura", "oura"),
    ("whoop", "whoop"),
    ("connect", "garmin"),
    ("garmin connect", "garmin"),
    ("withings", "withings"),
    ("health mate", "withings"),
    ("withings health mate", "withings"),
    ("polar flow", "polar"),
    ("polar beat", "polar"),
    ("fitbit", "fitbit"),
    ("autosleep", "autosleep"),
    ("sleep cycle", "sleep_cycle"),
    ("sleepwatch", "sleepwatch"),
    ("sleep++", "sleep_plus_plus"),
    ("pillow", "pillow"),
    ("napbot", "napbot"),
    ("eight sleep", "eight_sleep"),
];

/// Reads a source's name. Health Auto Export joins several with `|`: they then tell only what all of them do.
#[must_use]
pub fn named(name: &str) -> Named {
    let mut all: Option<Named> = None;
    for one in name.split('|').map(str::trim).filter(|one| !one.is_empty()) {
        let one = one.to_lowercase();
        let kinds = [("watch", "Watch"), ("iphone", "iPhone"), ("ipad", "iPad")];
        let app = APPS.iter().find(|(known, _)| *known == one).map(|(_, word)| *word);
        let device = kinds.iter().find(|(kind, _)| one.contains(kind)).map(|(_, kind)| *kind);
        let this = Named { app, device: device.filter(|_| app.is_none()) };
        all = Some(match all {
            None => this,
            Some(all) => Named {
                app: all.app.filter(|app| this.app == Some(*app)),
                device: all.device.filter(|device| this.device == Some(*device)),
            },
        });
    }
    all.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_and_never_kept() {
        let is = |name: &str| {
            let named = named(name);
            (named.app, named.device)
        };
        for (name, tells) in [
            ("Oura", (Some("oura"), None)),
            ("Anna’s Apple Watch", (None, Some("Watch"))),
            ("Anna's Apple Watch", (None, Some("Watch"))),
            ("Anna’s iPhone|Anna’s Apple Watch", (None, None)),
            ("Anna’s Apple Watch|Ben’s Watch", (None, Some("Watch"))),
            ("Connect|Garmin Connect", (Some("garmin"), None)),
            ("Oura|Anna’s iPhone", (None, None)),
            ("SleepWatch", (Some("sleepwatch"), None)),
            ("Connectivity", (None, None)),
            ("canary", (None, None)),
            ("", (None, None)),
            ("|", (None, None)),
        ] {
            assert_eq!(is(name), tells, "{name}");
        }
    }

    #[test]
    fn the_same_text_is_the_same_source_however_many_there_are() {
        let mut sources = Sources::default();
        let text = |model: usize| format!(r#"{{"productType":"Watch{model}"}}"#);
        let texts: Vec<_> = (0..3000).map(|at| text(at % 1500)).collect();
        let places: Vec<_> =
            texts.iter().map(|text| sources.source(Some(text)).expect("a source").at).collect();
        assert_eq!(places[..1500], places[1500..]);
        assert_eq!(sources.list.len(), 1500);
        assert!(sources.sources.earlier.len() <= REMEMBERED_MAX);
        assert_eq!(sources.written(7).model.as_deref(), Some("Watch7"));
    }

    #[test]
    fn metadata_is_an_object_or_a_list_and_anything_else_says_nothing() {
        let read = |text| Sources::default().metadata(Some(text)).expect("metadata");
        let entered = Metadata { user_entered: true, zone: None };
        for text in [
            r#"{"HKWasUserEntered":true}"#,
            r#"[{"a":1},{"HKWasUserEntered":"1"}]"#,
            r#"{"HKWasUserEntered":1}"#,
        ] {
            assert_eq!(read(text), entered, "{text}");
        }
        let zone = r#"[{"HKTimeZone":"Europe/Berlin"}]"#;
        assert_eq!(read(zone).zone.as_deref(), Some("Europe/Berlin"));
        for text in ["1", "[]", "[[1]]", r#"{"HKWasUserEntered":"no","HKTimeZone":1}"#] {
            assert_eq!(read(text), Metadata::default(), "{text}");
        }
        let twice = Sources::default().metadata(Some(r#"{"a":1,"a":2}"#));
        assert!(matches!(twice, Err(Unread::Body(_))), "a key twice is the body's fault");
        let long = format!("\"{}\"", "x".repeat(TEXT_BYTES_MAX));
        assert!(matches!(Sources::default().metadata(Some(&long)), Err(Unread::Element(_))));
    }
}
