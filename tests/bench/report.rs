//! Figures: one value a round, their median and spread, what they must be, and how that is printed and kept.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::deployment::Process;
use crate::meter::{self, Cpu};

/// What a figure must be, and what it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// At most so much, and better so much.
    AtMost(f64, f64),
    /// At least so much, and better so much.
    AtLeast(f64, f64),
    /// Seen beside the others, without a bound.
    Beside,
}

/// The load average from which a machine is not quiet before a run begins.
const BUSY: f64 = 1.0;

/// One measure.
struct Row {
    scenario: &'static str,
    measure: String,
    unit: &'static str,
    bound: Bound,
    /// A value of each round.
    values: Vec<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        median(&self.values)
    }

    fn spread(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    fn verdict(&self) -> &'static str {
        let median = self.median();
        match self.bound {
            Bound::Beside => "",
            Bound::AtMost(_, goal) if median <= goal => "goal",
            Bound::AtMost(must, _) if median <= must => "must",
            Bound::AtLeast(_, goal) if median >= goal => "goal",
            Bound::AtLeast(must, _) if median >= must => "must",
            Bound::AtMost(..) | Bound::AtLeast(..) => "MISSED",
        }
    }

    /// What it must be and should be, as text.
    fn bounds(&self) -> (String, String) {
        match self.bound {
            Bound::Beside => (String::new(), String::new()),
            Bound::AtMost(must, goal) => {
                (format!("≤ {}", shown(must)), format!("≤ {}", shown(goal)))
            }
            Bound::AtLeast(must, goal) => {
                (format!("≥ {}", shown(must)), format!("≥ {}", shown(goal)))
            }
        }
    }
}

/// The middle value; of two the mean.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// A table that is read in a terminal and in Markdown.
fn table(rows: impl Iterator<Item = Vec<String>>, bound: bool, against: bool) -> String {
    let header = [
        ("measure", true),
        ("median", true),
        ("min … max", true),
        ("to before", against),
        ("must", bound),
        ("goal", bound),
        ("verdict", bound),
    ];
    let header = header.into_iter().filter(|(_, is)| *is).map(|(name, _)| name.to_owned());
    let mut lines = vec![header.collect::<Vec<String>>()];
    lines.extend(rows);
    let wide = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(wide).collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| {
            let gap = width - cell.chars().count();
            format!(" {cell}{} |", " ".repeat(gap))
        });
        format!("|{}\n", padded.collect::<String>())
    };
    lines.iter().map(line).collect()
}

/// As many digits as a reader can use.
fn shown(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        let whole = format!("{value:.0}");
        let (sign, digits) =
            whole.strip_prefix('-').map_or(("", whole.as_str()), |rest| ("-", rest));
        let groups: Vec<&str> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|three| std::str::from_utf8(three).unwrap_or(""))
            .collect();
        return format!("{sign}{}", groups.join(" "));
    }
    let text = format!("{value:.*}", if size >= 10.0 { 1 } else { 2 });
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Everything that was seen, and under which conditions.
pub(crate) struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
    kind: &'static str,
    profile: String,
    load_before: String,
    /// Which scenarios, where not all.
    part: Option<String>,
    /// An earlier run's medians by scenario and measure.
    before: HashMap<(String, String), f64>,
}

impl Report {
    /// A report of a run of this kind (`full`, `quick`, `smoke`) of binaries of this profile; of these scenarios, where
    /// it is not all.
    pub(crate) fn new(kind: &'static str, profile: String, part: Option<String>) -> Self {
        let load_before = meter::load();
        let busy = load_before.split(' ').next().and_then(|load| load.parse().ok());
        let mut notes = Vec::new();
        if busy.is_some_and(|load: f64| load > BUSY) {
            notes.push("others were using this machine: trust ratios at most".to_owned());
        }
        let (rows, before) = (Vec::new(), HashMap::new());
        Self { rows, notes, kind, profile, load_before, part, before }
    }

    /// This, beside the figures that an earlier run has kept.
    pub(crate) fn beside(mut self, kept: &Path) -> Self {
        let text = fs::read_to_string(kept).expect("a file that a run has kept");
        let kept: Value = serde_json::from_str(&text).expect("JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for row in kept["rows"].as_array().into_iter().flatten() {
            let name = (text(&row["scenario"]), text(&row["measure"]));
            self.before.extend(row["median"].as_f64().map(|median| (name, median)));
        }
        self
    }

    /// A value of one more round.
    pub(crate) fn add(
        &mut self,
        scenario: &'static str,
        measure: &str,
        unit: &'static str,
        bound: Bound,
        value: f64,
    ) {
        let known = |row: &&mut Row| row.scenario == scenario && row.measure == measure;
        match self.rows.iter_mut().find(known) {
            Some(row) => row.values.push(value),
            None => {
                let (measure, values) = (measure.to_owned(), vec![value]);
                self.rows.push(Row { scenario, measure, unit, bound, values });
            }
        }
    }

    /// Processor time of every process, µs for each of `count`; those that are bound elsewhere are left out.
    pub(crate) fn add_cpu(
        &mut self,
        scenario: &'static str,
        of: &str,
        spent: &Cpu,
        count: f64,
        but: &[&str],
    ) {
        for (name, seconds) in spent.iter().filter(|(name, _)| !but.contains(&name.as_str())) {
            let measure = format!("{of}: CPU of {name}");
            self.add(scenario, &measure, "µs", Bound::Beside, seconds * 1e6 / count);
        }
    }

    /// The most memory that these processes ever had.
    pub(crate) fn add_peaks(
        &mut self,
        scenario: &'static str,
        bound: Bound,
        processes: &[(&str, &Process)],
    ) {
        for (name, process) in processes {
            let peak = meter::memory(process.pid()).peak;
            self.add(scenario, &format!("peak RSS of {name}"), "MiB", bound, peak);
        }
    }

    /// Something that a reader of the figures must know; once.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The middle value of a measure.
    pub(crate) fn median_of(&self, scenario: &str, measure: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.scenario == scenario && row.measure == measure);
        row.map(Row::median)
    }

    /// Measures of which a round has no figure above 0.
    pub(crate) fn empty(&self) -> Vec<String> {
        let empty = |row: &&Row| {
            matches!(row.bound, Bound::AtMost(..) | Bound::AtLeast(..))
                && row.values.iter().any(|value| value.is_nan() || *value <= 0.0)
        };
        self.rows
            .iter()
            .filter(empty)
            .map(|row| format!("{}: {}", row.scenario, row.measure))
            .collect()
    }

    /// The cells of a row's line; where there are no bounds and no earlier run, those are left out.
    fn cells(&self, row: &Row) -> Vec<String> {
        let (least, most) = row.spread();
        let mut cells = vec![
            format!("{}: {}", row.scenario, row.measure),
            format!("{} {}", shown(row.median()), row.unit).trim().to_owned(),
            format!("{} … {}", shown(least), shown(most)),
        ];
        if !self.before.is_empty() {
            let name = (row.scenario.to_owned(), row.measure.clone());
            let ratio = self.before.get(&name).map(|before| row.median() / before);
            cells.push(ratio.map_or_else(String::new, |ratio| format!("{} ×", shown(ratio))));
        }
        if !matches!(row.bound, Bound::Beside) {
            let (must, goal) = row.bounds();
            cells.extend([must, goal, row.verdict().to_owned()]);
        }
        cells
    }

    fn conditions(&self) -> Value {
        let text = |command: &mut Command| {
            let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output();
            let text = output.map(|output| output.stdout).unwrap_or_default();
            String::from_utf8_lossy(&text).trim().to_owned()
        };
        let commit = text(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]));
        let dirty = !text(Command::new("git").args(["status", "--porcelain", "-uno"])).is_empty();
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        json!({
            "kind": self.kind, "commit": commit, "changed": dirty, "profile": self.profile, "cores": cores,
            "load_before": self.load_before, "load_after": meter::load(),
            "at": jiff::Timestamp::from_microsecond(biometric_bridge::stream::clock::now_us())
                .map(|at| at.to_string()).unwrap_or_default(),
        })
    }

    /// The table for people, and the path of the JSON for machines, which is written.
    pub(crate) fn finish(&self, directory: &Path) -> String {
        let conditions = self.conditions();
        let mut text = format!(
            "\n{} run · commit {}{} · profile {} · {} cores shared with everything · load {} → {}\n",
            self.kind,
            conditions["commit"].as_str().unwrap_or_default(),
            if conditions["changed"] == true { " with changes" } else { "" },
            self.profile,
            conditions["cores"],
            self.load_before,
            conditions["load_after"].as_str().unwrap_or_default(),
        );
        for bound in [true, false] {
            let rows = self.rows.iter().filter(|row| !matches!(row.bound, Bound::Beside) == bound);
            text.push('\n');
            text.push_str(&table(rows.map(|row| self.cells(row)), bound, !self.before.is_empty()));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        let path = self.keep(directory, true);
        text.push_str(&format!("kept in {path}\n"));
        text
    }

    /// Writes the JSON for machines, and says where: of a whole run, or of one that is still going on.
    pub(crate) fn keep(&self, directory: &Path, whole: bool) -> String {
        let mut conditions = self.conditions();
        conditions["whole"] = json!(whole);
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let (least, most) = row.spread();
                let (must, goal) = match row.bound {
                    Bound::Beside => (Value::Null, Value::Null),
                    Bound::AtMost(must, goal) | Bound::AtLeast(must, goal) => (json!(must), json!(goal)),
                };
                json!({
                    "scenario": row.scenario, "measure": row.measure, "unit": row.unit, "values": row.values,
                    "median": row.median(), "min": least, "max": most, "must": must, "goal": goal,
                    "verdict": row.verdict(),
                })
            })
            .collect();
        let commit =
            conditions["commit"].as_str().filter(|commit| !commit.is_empty()).unwrap_or("unknown");
        // A run of some scenarios must not stand in for one of all.
        let part = self.part.as_ref().map_or_else(String::new, |part| format!("-{part}"));
        let path = directory.join(format!("{commit}-{}{part}.json", self.kind));
        let all = json!({"conditions": conditions, "rows": rows, "notes": self.notes});
        fs::create_dir_all(directory).expect("a directory");
        fs::write(&path, format!("{all:#}\n")).expect("a file");
        path.display().to_string()
    }
}
