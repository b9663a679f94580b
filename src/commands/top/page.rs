//! A page of `/metrics`: Prometheus' text format (0.0.4), read strictly and within bounds.
//!
//! The page comes over the network from whatever answers there. So nothing of it is trusted: not its size, not its
//! encoding, not its numbers. What does not hold to the format is a flaw with its line and our words, and the page
//! counts as unreadable: half a page would show a process that does half of what it does.

use std::collections::BTreeMap;

/// The most of a page that is read, bytes.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most lines of a page; ours has fewer than 20 000 with every series that it may have.
const LINES_MAX: usize = 50_000;
/// The longest line, bytes.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// The most labels of a sample.
const LABELS_MAX: usize = 16;

/// The labels of a sample, by name.
pub type Labels = BTreeMap<String, String>;

/// What is wrong with a page; in our words, because the page's own may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The line, from 1; 0 where it is the page as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// An answer that is not 200.
pub const NOT_A_PAGE: Flaw =
    Flaw { line: 0, what: "/metrics is refused: is this an admin.address?" };

/// The samples of a page, by name and labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    samples: BTreeMap<String, BTreeMap<Labels, f64>>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// The first flaw.
    pub fn read(bytes: &[u8]) -> Result<Self, Flaw> {
        let whole = |what| Flaw { line: 0, what };
        if bytes.len() > BYTES_MAX {
            return Err(whole("it is longer than 4 MiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| whole("it is not UTF-8"))?;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(whole("it is cut short: its last line has no end"));
        }
        let mut reader = Reader::default();
        for (at, line) in text.split_terminator('\n').enumerate() {
            if at == LINES_MAX {
                return Err(whole("it has too many lines"));
            }
            reader.line(line).map_err(|what| Flaw { line: at + 1, what })?;
        }
        Ok(Self { samples: reader.samples })
    }

    /// The samples of a name.
    pub fn samples(&self, name: &str) -> impl Iterator<Item = (&Labels, f64)> {
        let samples = self.samples.get(name).into_iter().flatten();
        samples.map(|(labels, value)| (labels, *value))
    }
}

/// What a family is said to be, as far as it bounds its values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Counter,
    Histogram,
    Other,
}

#[derive(Default)]
struct Reader {
    types: BTreeMap<String, Type>,
    samples: BTreeMap<String, BTreeMap<Labels, f64>>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        if line.len() > LINE_BYTES_MAX {
            return Err("it is too long");
        }
        if line.trim_matches([' ', '\t']).is_empty() {
            return Ok(());
        }
        match line.strip_prefix('#') {
            Some(comment) => self.comment(comment),
            None => self.sample(line),
        }
    }

    /// `# TYPE name type`; any other comment says nothing to us.
    fn comment(&mut self, comment: &str) -> Result<(), &'static str> {
        let mut words = comment.split([' ', '\t']).filter(|word| !word.is_empty());
        if words.next() != Some("TYPE") {
            return Ok(());
        }
        let (Some(name), Some(kind), None) = (words.next(), words.next(), words.next()) else {
            return Err("a TYPE has a name and a type");
        };
        let kind = match kind {
            "counter" => Type::Counter,
            "histogram" => Type::Histogram,
            "gauge" | "summary" | "untyped" => Type::Other,
            _ => return Err("no such type"),
        };
        match self.types.insert(name.to_owned(), kind) {
            None => Ok(()),
            Some(_) => Err("a type is told twice"),
        }
    }

    fn sample(&mut self, line: &str) -> Result<(), &'static str> {
        let (name, rest) = name(line, is_name_start, is_name)?;
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => labels(inside)?,
            None => (Labels::new(), rest),
        };
        if !rest.starts_with([' ', '\t']) {
            return Err("a blank stands before the value");
        }
        let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
        let value = words.next().and_then(number).ok_or("the value is no number")?;
        if words.next().is_some_and(|time| time.parse::<i64>().is_err()) {
            return Err("the time is no number");
        }
        if words.next().is_some() {
            return Err("something stands behind the value");
        }
        if self.counts(name) && !(value.is_finite() && value >= 0.0) {
            return Err("a count is a number, and not below 0");
        }
        match self.samples.entry(name.to_owned()).or_default().insert(labels, value) {
            None => Ok(()),
            Some(_) => Err("a sample stands twice"),
        }
    }

    /// Whether the values of this name only grow.
    fn counts(&self, name: &str) -> bool {
        let is = |name: &str, kind| self.types.get(name) == Some(&kind);
        let of = ["_bucket", "_count"].iter().find_map(|end| name.strip_suffix(end));
        is(name, Type::Counter) || of.is_some_and(|family| is(family, Type::Histogram))
    }
}

fn is_name_start(first: char) -> bool {
    is_label_start(first) || first == ':'
}

fn is_name(next: char) -> bool {
    is_label(next) || next == ':'
}

fn is_label_start(first: char) -> bool {
    first.is_ascii_alphabetic() || first == '_'
}

fn is_label(next: char) -> bool {
    next.is_ascii_alphanumeric() || next == '_'
}

/// The name that a text begins with, and what follows.
fn name(
    text: &str,
    start: fn(char) -> bool,
    next: fn(char) -> bool,
) -> Result<(&str, &str), &'static str> {
    let end = text.find(|found| !next(found)).unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((name, rest)) if name.starts_with(start) => Ok((name, rest)),
        _ => Err("a name is missing"),
    }
}

/// Labels up to their closing brace, and what follows it.
fn labels(mut text: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    loop {
        text = text.trim_start_matches([' ', '\t']);
        if let Some(rest) = text.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, rest) = name(text, is_label_start, is_label)?;
        let rest = rest.trim_start_matches([' ', '\t']).strip_prefix('=');
        let rest = rest.ok_or("a label has no value")?.trim_start_matches([' ', '\t']);
        let (value, rest) = quoted(rest.strip_prefix('"').ok_or("a label's value has no quote")?)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("a label stands twice");
        }
        if labels.len() > LABELS_MAX {
            return Err("a sample has too many labels");
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        text = match rest.strip_prefix(',') {
            Some(more) => more,
            None if rest.starts_with('}') => rest,
            None => return Err("labels have no end"),
        };
    }
}

/// A label's value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next() {
            Some('"') => return Ok((value, rest.as_str())),
            Some('\\') => value.push(match rest.next() {
                Some('n') => '\n',
                Some(plain @ ('"' | '\\')) => plain,
                _ => return Err("no such escape"),
            }),
            Some(plain) => value.push(plain),
            None => return Err("a label's value has no end"),
        }
    }
}

/// A number as the format has it: what Rust takes besides (`infinity`, `nan`) is none.
fn number(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Inf" | "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => {
            let plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
            text.bytes().all(plain).then(|| text.parse().ok()).flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn read(text: &str) -> Result<Page, Flaw> {
        Page::read(text.as_bytes())
    }

    fn found(page: &Page, name: &str) -> Vec<(Vec<(String, String)>, f64)> {
        let plain = |labels: &Labels| labels.clone().into_iter().collect();
        page.samples(name).map(|(labels, value)| (plain(labels), value)).collect()
    }

    #[test]
    fn samples_have_their_names_labels_and_values() {
        let page = read(
            "# HELP a_total What it is\n# TYPE a_total counter\n\
             a_total 1\na_total{ b = \"c\" , d=\"e,}\\\"\\\\\\n\" , } 2.5e3 1700000000000\n\n\
             # TYPE g gauge\ng NaN\n# a word\n#\n:x:y\t-Inf\n",
        )
        .expect("a page");
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let labels = vec![label("b", "c"), label("d", "e,}\"\\\n")];
        assert_eq!(found(&page, "a_total"), [(vec![], 1.0), (labels, 2500.0)]);
        assert!(page.samples("g").all(|(_, value)| value.is_nan()));
        assert_eq!(found(&page, ":x:y"), [(vec![], f64::NEG_INFINITY)]);
        assert_eq!(found(&page, "nothing"), []);
        assert_eq!(read(""), Ok(Page::default()));
    }

    #[test]
    fn what_holds_to_no_format_is_a_flaw_with_its_line() {
        let flaws = [
            ("a", "cut short"),
            ("a\n", "blank"),
            ("a \n", "no number"),
            ("a x\n", "no number"),
            ("a 0x10\n", "no number"),
            ("a infinity\n", "no number"),
            ("a nan\n", "no number"),
            ("a 1\r\n", "no number"),
            ("a 1\u{a0}\n", "no number"),
            ("a 1 soon\n", "time"),
            ("a 1 2 3\n", "behind"),
            ("1a 1\n", "name"),
            ("ä 1\n", "name"),
            (" a 1\n", "name"),
            ("a{} 1\na{} 1\n", "twice"),
            ("a{b=\"c\"}1\n", "blank"),
            ("a{b=\"c\",b=\"d\"} 1\n", "twice"),
            ("a{b=\"c\" d=\"e\"} 1\n", "no end"),
            ("a{b=\"c\" 1\n", "no end"),
            ("a{b=\"c} 1\n", "no end"),
            ("a{b=c} 1\n", "quote"),
            ("a{b} 1\n", "no value"),
            ("a{:b=\"c\"} 1\n", "name"),
            ("a{b=\"\\t\"} 1\n", "escape"),
            ("a{b=\"\\\n", "escape"),
            ("# TYPE a\n", "TYPE"),
            ("# TYPE a sum\n", "type"),
            ("# TYPE a counter\n# TYPE a counter\n", "twice"),
            ("# TYPE a counter\na -1\n", "below 0"),
            ("# TYPE a counter\na NaN\n", "below 0"),
            ("# TYPE a histogram\na_bucket{le=\"1\"} +Inf\n", "below 0"),
        ];
        for (text, what) in flaws {
            let flaw = read(text).expect_err(text);
            assert!(flaw.what.contains(what), "{text:?}: {flaw:?}");
            let line = if text.ends_with('\n') { text.lines().count() } else { 0 };
            assert_eq!(flaw.line, line, "{text:?}");
        }
    }

    #[test]
    fn a_page_has_bounds() {
        let flaw = |bytes: &[u8]| Page::read(bytes).expect_err("too much").what;
        assert_eq!(flaw(&vec![b'\n'; BYTES_MAX + 1]), "it is longer than 4 MiB");
        assert_eq!(flaw(&vec![b'\n'; LINES_MAX + 1]), "it has too many lines");
        assert_eq!(flaw(b"a{b=\"\xff\"} 1\n"), "it is not UTF-8");
        let long = format!("a{{b=\"{}\"}} 1\n", "c".repeat(LINE_BYTES_MAX));
        assert_eq!(flaw(long.as_bytes()), "it is too long");
        let many: Vec<String> = (0..=LABELS_MAX).map(|at| format!("l{at}=\"\"")).collect();
        let many = format!("a{{{}}} 1\n", many.join(","));
        assert_eq!(flaw(many.as_bytes()), "a sample has too many labels");
    }

    /// Cut anywhere, changed anywhere: a page or a flaw, and never a panic.
    #[test]
    fn a_broken_page_is_a_page_or_a_flaw() {
        let text = "# TYPE a histogram\na_bucket{le=\"0.5\",v=\"\\\\ü\"} 1\na_sum 1e3\n".as_bytes();
        for at in 0..text.len() {
            assert!(Page::read(&text[..at]).is_ok() == (at == 0 || text[at - 1] == b'\n'), "{at}");
            for other in [0, b'\n', b'"', b'{', b'}', b'\\', b' ', 0xff, b'9', b'#'] {
                let mut changed = text.to_vec();
                changed[at] = other;
                let read = Page::read(&changed);
                assert!(read.is_ok() || read.is_err_and(|flaw| !flaw.what.is_empty()));
            }
        }
    }

    #[test]
    fn our_own_page_can_be_read() {
        let metrics = Metrics::of(&["terra"]);
        metrics.requests.at(["terra", "200"]).inc_by(7);
        metrics.request_seconds.at(["terra"]).observe(0.003);
        let page = read(&metrics.text()).expect("our own page");
        let of_terra = |name| {
            let is_terra = |labels: &&Labels| labels.get("vendor").is_some_and(|is| is == "terra");
            page.samples(name).filter(move |(labels, _)| is_terra(labels)).collect::<Vec<_>>()
        };
        let requests = of_terra("webhook_events_total");
        let accepted = requests.iter().find(|(labels, _)| labels["status"] == "200");
        assert_eq!(accepted.map(|(_, count)| *count), Some(7.0));
        assert_eq!(of_terra("webhook_process_duration_seconds_bucket").len(), 17);
    }
}
