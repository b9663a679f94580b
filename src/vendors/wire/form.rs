//! Bodies that are forms (`application/x-www-form-urlencoded`), read as strictly as JSON: UTF-8, no key twice, nothing
//! that is no escape, bounded.

use std::borrow::Cow;

use crate::error::{Path, Reject};

/// The most fields that a form may have.
const FIELDS_MAX: usize = 64;

/// A form, in the order of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// One reject of kind `payload_malformed`, whatever is wrong.
    pub fn parse(body: &'a [u8]) -> Result<Self, Reject> {
        let malformed = |why| Reject::malformed(Path::root(), why);
        let text = std::str::from_utf8(body).map_err(|_text| malformed("not UTF-8"))?;
        let mut fields: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if fields.len() == FIELDS_MAX {
                return Err(malformed("more fields than a form may have"));
            }
            let (name, value) = part.split_once('=').ok_or_else(|| malformed("not a form"))?;
            let both = unescaped(name).zip(unescaped(value));
            let (name, value) = both.ok_or_else(|| malformed("an escape that is none"))?;
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(malformed("a key stands twice in a form"));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// What this field says; an empty one says nothing.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value.as_ref()).filter(|value| !value.is_empty())
    }

    /// The place of a field.
    #[must_use]
    pub fn place(name: &'static str) -> Path {
        Path::root().key(name)
    }

    /// The whole number of this field, which begins neither with a sign nor with nothing.
    ///
    /// # Errors
    /// `payload_malformed` where it is absent, or no such number.
    pub fn number(&self, name: &'static str) -> Result<i64, Reject> {
        let text = self.need(name)?;
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| plain);
        number.ok_or_else(|| Reject::malformed(Self::place(name), "not a whole number"))
    }

    /// What this field says, which must be there.
    ///
    /// # Errors
    /// `payload_malformed` where it is absent.
    pub fn need(&self, name: &'static str) -> Result<&str, Reject> {
        let absent = || Reject::malformed(Self::place(name), "a required field is absent");
        self.get(name).ok_or_else(absent)
    }
}

/// `%41` and `+` as a form has them; absent where it is no text, or has U+0000.
#[must_use]
pub fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+' | b'\0')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                rest = after;
                *hex::decode(digits).ok()?.first()?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_in_any_order_and_with_more_in_it() {
        for body in
            ["userid=363&appli=44", "appli=44&foo=b%61r+&userid=363", "&userid=363&&appli=%344&"]
        {
            let form = Form::parse(body.as_bytes()).expect("a form");
            assert_eq!((form.number("userid"), form.number("appli")), (Ok(363), Ok(44)), "{body}");
        }
        let form = Form::parse(b"a=&b=%C3%A4+%2B&c=-7&d=+7").expect("a form");
        assert_eq!((form.get("a"), form.get("b"), form.get("e")), (None, Some("ä +"), None));
        for name in ["a", "b", "c", "d", "e"] {
            let reject = form.number(name).expect_err("no number");
            assert_eq!(reject.at.as_str(), name);
        }
    }

    #[test]
    fn what_is_no_form_is_refused_without_a_quote() {
        let many = "a=1&".repeat(FIELDS_MAX + 1);
        for body in
            ["{}", "a", "a=1&a=2", "a=1&%61=2", "a=%", "a=%4", "a=%zz", "a=%00", "a=%ff", &many]
        {
            let reject = Form::parse(body.as_bytes()).expect_err(body);
            assert!(!reject.to_string().contains('='), "{reject}");
        }
        assert!(Form::parse(b"a=\xff").is_err());
        assert_eq!(Form::parse(b""), Ok(Form(Vec::new())));
    }
}
