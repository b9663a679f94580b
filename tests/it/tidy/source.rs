//! A file as the checks see it: code without comments, strings and tests, each byte at its place.
//!
//! It is a scan, not a parser. What keeps a scan sound is that the ways around it are themselves banned: groups and
//! globs of the crate's root, `super` chains that leave a module, renamed roots, `extern crate`.

use std::ops::Range;

/// A Rust file.
pub(super) struct Source {
    /// Its path from the root of the repository.
    pub(super) path: String,
    /// As it stands.
    pub(super) raw: String,
    /// Without comments and the insides of strings.
    pub(super) whole: String,
    /// That without what is compiled for tests only.
    pub(super) code: String,
}

impl Source {
    pub(super) fn new(path: &str, raw: &str) -> Self {
        let whole = blank(raw);
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_test = name == "tests.rs" || path.contains("/tests/");
        let code = if is_test { spaces(&whole) } else { without_tests(&whole) };
        Self { path: path.into(), raw: raw.into(), whole, code }
    }

    /// `model` of `src/model/id.rs`, `error` of `src/error.rs`.
    pub(super) fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// How many modules deep the file's own module is: 1 for `src/error.rs` and `src/model/mod.rs`.
    fn depth(&self) -> usize {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let parts = inside.trim_end_matches(".rs").split('/');
        parts.filter(|part| !matches!(*part, "mod" | "lib" | "main")).count()
    }

    /// Lines that hold code.
    pub(super) fn lines_of_code(&self) -> usize {
        count_lines(&self.code)
    }

    /// What is named of the crate's root, `crate::<this>`, tests included: a name, `{`, `*`, or `as`.
    pub(super) fn root_names(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for at in words(&self.whole, "crate") {
            let after = &self.whole[at + "crate".len()..];
            if let Some(path) = after.trim_start().strip_prefix("::") {
                found.push((line(&self.whole, at), next_word(path.trim_start())));
            } else if after.trim_start().starts_with("as ") {
                found.push((line(&self.whole, at), "as".to_owned()));
            }
        }
        found
    }

    /// Lines with a `super` chain that leaves the top-level module.
    pub(super) fn escapes(&self) -> Vec<usize> {
        let inner = inline_modules(&self.whole);
        let mut found = Vec::new();
        let mut chain_end = 0;
        for at in words(&self.whole, "super") {
            if at < chain_end {
                continue;
            }
            let (mut climbs, mut end) = (1, at + "super".len());
            while let Some(rest) = self.whole[end..].trim_start().strip_prefix("::") {
                let rest = rest.trim_start();
                if next_word(rest) != "super" {
                    break;
                }
                climbs += 1;
                end = self.whole.len() - rest.len() + "super".len();
            }
            chain_end = end;
            let nested = inner.iter().filter(|range| range.contains(&at)).count();
            if climbs >= self.depth() + nested {
                found.push(line(&self.whole, at));
            }
        }
        found
    }

    /// Lines that name this crate, or this path of a library, at the root of a path.
    pub(super) fn uses(&self, path: &str) -> Vec<usize> {
        let head = path.split("::").next().unwrap_or_default();
        words(&self.code, head)
            .into_iter()
            .filter(|at| {
                let before = self.code[..*at].trim_end();
                let root = before.strip_suffix("::").map_or(before, str::trim_end);
                let inside = root.ends_with(|last: char| last.is_alphanumeric() || last == '_');
                let member = before.ends_with('.') || (before.ends_with("::") && inside);
                let after = self.code[*at..].strip_prefix(path).unwrap_or_default();
                let whole = !after.starts_with(|next: char| next.is_alphanumeric() || next == '_');
                let path_goes_on = path.contains("::") || after.trim_start().starts_with("::");
                let used = before.ends_with("use") || path_goes_on;
                self.code[*at..].starts_with(path) && whole && used && !member
            })
            .map(|at| line(&self.code, at))
            .collect()
    }

    /// Lines of code that hold this text.
    pub(super) fn holds(&self, text: &str) -> Vec<usize> {
        self.code.match_indices(text).map(|(at, _)| line(&self.code, at)).collect()
    }

    /// Functions: name, line, lines of code. Tests included: a test that nobody can read proves nothing.
    pub(super) fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut found = Vec::new();
        for at in words(&self.whole, "fn") {
            let rest = self.whole[at + 2..].trim_start();
            let name = next_word(rest);
            if !name.starts_with(|first: char| first.is_alphabetic() || first == '_') {
                continue;
            }
            let start = self.whole.len() - rest.len();
            let Some(open) = self.whole[start..].find(['{', ';']).map(|found| found + start) else {
                continue;
            };
            let body = at..closing(&self.whole, open);
            found.push((name, line(&self.whole, at), count_lines(&self.whole[body])));
        }
        found
    }
}

fn count_lines(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

fn line(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where this word stands alone.
fn words(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| {
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            let after = bytes.get(at + word.len());
            !before.is_some_and(|byte| is_word(*byte)) && !after.is_some_and(|byte| is_word(*byte))
        })
        .collect()
}

/// The word that a text begins with, or its first character.
fn next_word(text: &str) -> String {
    let end = text.bytes().position(|byte| !is_word(byte)).unwrap_or(text.len());
    text.get(..end.max(1)).unwrap_or_default().to_owned()
}

/// After the brace that closes the one at `open`; `open` + 1 for anything else.
fn closing(code: &str, open: usize) -> usize {
    if code.as_bytes().get(open) != Some(&b'{') {
        return open + 1;
    }
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The bodies of modules that stand inside a file.
fn inline_modules(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for at in words(code, "mod") {
        let Some(open) = code[at..].find(['{', ';']).map(|open| open + at) else { continue };
        if code.as_bytes()[open] == b'{' {
            found.push(open..closing(code, open));
        }
    }
    found
}

/// The same length with nothing in it.
fn spaces(code: &str) -> String {
    code.chars().map(|known| if known == '\n' { '\n' } else { ' ' }).collect()
}

/// Code without the items under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    const TEST: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(at) = out.find(TEST) {
        let after = at + TEST.len();
        let open = out[after..].find(['{', ';']).map_or(out.len(), |open| open + after);
        let end = closing(&out, open).min(out.len());
        let nothing = spaces(&out[at..end]);
        out.replace_range(at..end, &nothing);
    }
    out
}

/// Code in which comments and the insides of strings and characters are spaces.
fn blank(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(raw, at);
        for byte in &mut out[at..end.unwrap_or(at)] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.unwrap_or(at + 1);
    }
    String::from_utf8(out).expect("what is left is whole characters")
}

/// The end of the comment, string or character that begins here.
fn skipped(raw: &str, at: usize) -> Option<usize> {
    let bytes = raw.as_bytes();
    let rest = bytes.get(at..)?;
    let to = |found: Option<usize>| Some(found.map_or(raw.len(), |found| at + found));
    match rest {
        [b'/', b'/', ..] => to(rest.iter().position(|byte| *byte == b'\n')),
        [b'/', b'*', ..] => Some(comment_end(bytes, at)),
        [b'"', ..] => Some(string_end(bytes, at)),
        [b'r', b'"' | b'#', ..] | [b'b' | b'c', b'r', b'"' | b'#', ..] => {
            let inside = at.checked_sub(1).is_some_and(|before| is_word(bytes[before]));
            let hashes: usize = rest
                .iter()
                .skip_while(|byte| is_word(**byte))
                .take_while(|byte| **byte == b'#')
                .count();
            let open = rest.iter().position(|byte| *byte == b'"')?;
            let prefix = rest.iter().take_while(|byte| is_word(**byte)).count();
            if inside || open != prefix + hashes {
                return None; // a raw identifier, or the end of a word
            }
            let close = format!("\"{}", "#".repeat(hashes));
            let found = raw.get(at + open + 1..)?.find(&close);
            to(found.map(|found| open + 1 + found + close.len()))
        }
        [b'\'', b'\\', ..] => {
            let after = rest.get(3..)?.iter().position(|byte| *byte == b'\'');
            to(after.map(|after| after + 4))
        }
        [b'\'', ..] => {
            let length = raw.get(at + 1..)?.chars().next()?.len_utf8();
            (bytes.get(at + 1 + length) == Some(&b'\'')).then_some(at + 2 + length)
        }
        _ => None,
    }
}

fn comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[test]
fn comments_strings_and_characters_are_not_code() {
    let text =
        "a /* b /* c */ d */ e // f\n\"g \\\" h\" i r#\"j \" k\"# l 'm' n '\\'' o &'p q b\"r\"";
    let left: Vec<String> = blank(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(left, ["a", "e", "i", "l", "n", "o", "&'p", "q", "b"]);
    assert_eq!(
        blank("r#fn x \"ä\" 'ä' y").split_whitespace().collect::<Vec<_>>(),
        ["r#fn", "x", "y"]
    );
    assert_eq!(blank(text).len(), text.len());
}

#[test]
fn what_tests_do_is_not_code() {
    let text = "a\n#[cfg(test)]\nmod tests { fn b() { {} } }\nc\n#[cfg(test)]\nmod d;\ne";
    let source = Source::new("src/model/x.rs", text);
    assert_eq!(source.code.split_whitespace().collect::<Vec<_>>(), ["a", "c", "e"]);
    assert_eq!(Source::new("src/model/x/tests.rs", "a").lines_of_code(), 0);
}

#[test]
fn functions_have_their_length() {
    let text = "fn a(f: fn(u8)) -> u8 {\n\n// no\n{\n1 }\n}\ntrait T { fn b(); }";
    let found = Source::new("src/x.rs", text).functions();
    assert_eq!(found, [("a".to_owned(), 1, 4), ("b".to_owned(), 7, 1)]);
}
