//! A few members of a large body, without a tree of all the rest.
//!
//! The door needs whose a body is and nothing else of it, some thousand times a second. So what it
//! does not need is only walked over: strings to their closing quote, objects and arrays to their
//! last bracket. What it does need goes through [`json::parse`], the reader that the vendor's file
//! uses.
//!
//! What holds, and is tested over every fixture: where `json::parse` reads the whole body, the same
//! members are found here. Where it does not, nobody will read the record (it is dead-lettered), and
//! its key may be anything that is not somebody else's; a name that stands twice is none.

use std::borrow::Cow;

use super::json::{self, Json};

/// The members of these names of a body, as an object that has only them; `None` where the body is
/// no object, ends early, or has one of the names twice.
#[must_use]
pub fn members<'a>(body: &'a [u8], names: &[&str]) -> Option<Json<'a>> {
    let mut found: Vec<(Cow<'a, str>, Json<'a>)> = Vec::with_capacity(names.len());
    let mut rest = after(trimmed(body), b'{')?;
    if let Some(end) = after(rest, b'}') {
        return end.is_empty().then_some(Json::Object(found));
    }
    loop {
        let key = rest.get(..value_end(rest).filter(|_| rest.first() == Some(&b'"'))?)?;
        rest = after(trimmed(rest.get(key.len()..)?), b':')?;
        let value = rest.get(..value_end(rest)?)?;
        rest = trimmed(rest.get(value.len()..)?);
        let name = name(key)?;
        if names.contains(&name.as_ref()) {
            if found.iter().any(|(known, _)| *known == name) {
                return None;
            }
            found.push((name, json::parse(value).ok()?));
        }
        match after(rest, b',') {
            Some(next) => rest = next,
            None => return after(rest, b'}')?.is_empty().then_some(Json::Object(found)),
        }
    }
}

/// What a key says, its quotes taken off.
fn name(key: &[u8]) -> Option<Cow<'_, str>> {
    let inner = key.get(1..key.len().checked_sub(1)?)?;
    if !inner.contains(&b'\\') {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    match json::parse(key) {
        Ok(Json::Text(text)) => Some(text),
        _ => None,
    }
}

/// What follows this byte and the blanks behind it.
fn after(rest: &[u8], byte: u8) -> Option<&[u8]> {
    rest.split_first().filter(|(first, _)| **first == byte).map(|(_, rest)| trimmed(rest))
}

fn trimmed(mut rest: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\t' | b'\n' | b'\r', next)) = rest.split_first() {
        rest = next;
    }
    rest
}

/// Where the value ends that begins here.
fn value_end(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'"' => string_end(rest, 1),
        b'{' | b'[' => nest_end(rest),
        _ => {
            let ends =
                |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let end = rest.iter().position(ends).unwrap_or(rest.len());
            (end > 0).then_some(end)
        }
    }
}

/// Where the string ends whose first character stands at `from`.
fn string_end(rest: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let tail = rest.get(at..)?;
        let hit = tail.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if tail.get(hit) == Some(&b'"') {
            return Some(at + hit + 1);
        }
        at += hit + 2;
    }
}

/// Where the object or array ends that begins here. A loop and no recursion: a body may be nested
/// as deep as it is long.
fn nest_end(rest: &[u8]) -> Option<usize> {
    let (mut at, mut open) = (0, 0_usize);
    loop {
        let tail = rest.get(at..)?;
        let hit = tail.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
        at += hit + 1;
        match tail.get(hit)? {
            b'"' => at = string_end(rest, at)?,
            b'{' | b'[' => open += 1,
            _ => {
                open = open.checked_sub(1)?;
                if open == 0 {
                    return Some(at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(body: &str) -> Option<String> {
        let json = members(body.as_bytes(), &["user", "id"])?;
        let root = json.root();
        let at = root.get("user").or_else(|| root.get("id"))?;
        at.text().ok().map(str::to_owned)
    }

    #[test]
    fn a_member_is_found_wherever_it_stands() {
        let deep = format!(r#"{{"a":{}{},"user":"u"}}"#, "[".repeat(10_000), "]".repeat(10_000));
        for body in [
            r#"{"user":"u"}"#,
            "\n{ \"data\" : [ {\"user\":\"not\"} , \"}\" ] ,\t\"user\" : \"u\" }\r\n",
            r#"{"data":{"a":"\"}{","b":[[],{}]},"n":-1.5e3,"t":true,"user":"u"}"#,
            r#"{"us\u0065r":"u","data":null}"#,
            r#"{"user":null,"id":"u"}"#,
            r#"{"ä":1,"user":"u"}"#,
            &deep,
        ] {
            assert_eq!(user(body).as_deref(), Some("u"), "{}", body.get(..40).unwrap_or(body));
        }
        assert_eq!(members(b" {} ", &["user"]), Some(Json::Object(Vec::new())));
    }

    #[test]
    fn what_is_no_object_or_names_it_twice_has_none() {
        for body in [
            "",
            "[]",
            "\"user\"",
            "{",
            r#"{"user":"u""#,
            r#"{"user":"u"}}"#,
            r#"{"user":"u"} x"#,
            r#"{"user":"u",}"#,
            r#"{"user" "u"}"#,
            r#"{user:"u"}"#,
            r#"{"user":"u","user":"v"}"#,
            r#"{"user":"u","us\u0065r":"v"}"#,
            r#"{"user":"a\u0000b"}"#,
            r#"{"user":"u","a":"#,
            r#"{"user":"u","a":[}"#,
            r#"{"user":"u","a":"\"#,
        ] {
            assert_eq!(user(body), None, "{body}");
        }
    }
}
