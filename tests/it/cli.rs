//! The program as a person meets it: its help, its exit codes, and that it says what is wrong before it does
//! anything.
//!
//! Help is held to `tests/golden/cli/`, one file a command, 100 columns wide. `UPDATE_GOLDEN=1` writes them anew:
//! read the difference.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use biometric_bridge::cli::Cli;
use biometric_bridge::config;
use biometric_bridge::error::Kind;
use biometric_bridge::stream::task::Why;
use clap::CommandFactory as _;
use serde_json::Value;

const KEY: &str = "not-a-secret-test-key";

pub(crate) fn program(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biometric-bridge"));
    command.args(arguments).env_clear().env("COLUMNS", "100").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().expect("it starts")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

pub(crate) fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

pub(crate) fn complaints(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// A file of this test alone, gone at its end.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bridge-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("it was there");
    }
}

// ── help ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// Every command by its words, the program itself first.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, words: &[String], found: &mut Vec<Vec<String>>) {
        found.push(words.to_vec());
        for inner in command.get_subcommands() {
            let mut words = words.to_vec();
            words.push(inner.get_name().to_owned());
            walk(inner, &words, found);
        }
    }
    let mut found = Vec::new();
    walk(&Cli::command(), &[], &mut found);
    found
}

#[test]
fn help_is_as_it_was() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cli");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    std::fs::create_dir_all(&goldens).expect("a directory");
    let mut known = BTreeSet::new();
    let mut differing = Vec::new();
    for words in commands() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let output = run(&arguments);
        assert_eq!((code(&output), complaints(&output)), (0, ""), "{words:?}");
        for line in out(&output).lines() {
            assert!(line.chars().count() <= 100, "{words:?}: {line}");
        }
        let name = if words.is_empty() { "biometric-bridge".to_owned() } else { words.join("-") };
        let file = format!("{name}.txt");
        let golden = goldens.join(&file);
        if update {
            std::fs::write(&golden, out(&output)).expect("a golden is written");
        }
        if std::fs::read_to_string(&golden).ok().as_deref() != Some(out(&output)) {
            differing.push(file.clone());
        }
        known.insert(file);
    }
    assert_eq!(differing, [""; 0], "help has changed; UPDATE_GOLDEN=1 writes it anew");
    for entry in std::fs::read_dir(&goldens).expect("a directory") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        assert!(known.contains(&name), "tests/golden/cli/{name}: no such command");
    }
}

#[test]
fn every_command_and_flag_says_what_it_is_for() {
    fn walk(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(walk);
    }
    Cli::command().debug_assert();
    walk(&Cli::command());
}

// ── exit codes ─────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [vec!["--help"], vec!["-h"], vec!["help"], vec!["try", "--help"]] {
        let output = run(&arguments);
        assert_eq!((code(&output), complaints(&output)), (0, ""), "{arguments:?}");
        assert!(out(&output).contains("Usage:"), "{arguments:?}");
    }
    let output = run(&["--version"]);
    let version = concat!("biometric-bridge ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((code(&output), out(&output)), (0, version));
}

#[test]
fn wrong_usage_is_64() {
    for arguments in [
        vec![],
        vec!["topics"],
        vec!["teleport"],
        vec!["ingress", "--fast"],
        vec!["--config"],
        vec!["try", "--requests", "many"],
        vec!["try", "--requests", "1001"],
        vec!["try", "--users", "0"],
        vec!["connections", "add", "--vendor", "terra"],
        vec!["migrate", "down", "--steps", "-1"],
        vec!["normalise", "--vendor", "nobody", "-"],
        vec!["top", "--every", "0"],
        vec!["top", "--once", "--count", "2"],
        vec!["top", "--url", "https://127.0.0.1:9100"],
    ] {
        let output = run(&arguments);
        assert_eq!(code(&output), 64, "{arguments:?}: {}", complaints(&output));
        assert_eq!(out(&output), "", "{arguments:?}: a complaint is no result");
        assert!(!complaints(&output).is_empty(), "{arguments:?}");
    }
}

/// Four mistakes in three places, told together, by whoever reads the configuration, and nobody was asked for
/// anything: a listener stands where each of the addresses points.
#[test]
fn wrong_configuration_is_78_before_a_socket_opens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let at = listener.local_addr().expect("an address");
    let file = Kept::new(
        "wrong.toml",
        &format!(
            "[ingress]\naddress = \"{at}\"\npermits = 0\nacks = 2\n[admin]\naddress = \"{at}\"\n\
             [kafka]\nbrokers = \"{at}\"\n[registry]\nurl = \"http://{at}\"\n[postgres]\n\
             url = \"postgresql://x@{at}/x\"\n[redis]\nurl = \"redis://{at}\"\n[log]\nlevel = \"loud\"\n"
        ),
    );
    let told = [
        "ingress.acks: no such key; `config docs` has them all",
        "ingress.permits: must be 1 to 1000",
        "admin.address: must be another than ingress.address",
        "log.level: must be one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        "pipeline.sweep_s: must be a whole number",
    ];
    let doors = [vec!["ingress"], vec!["all"], vec!["config", "check"]];
    let others = [
        vec!["pipeline"],
        vec!["config", "show"],
        vec!["topics", "plan"],
        vec!["schemas", "check"],
        vec!["migrate", "up"],
        vec!["connections", "list"],
        vec!["simulate", "traffic", "--seconds", "1"],
        vec!["audit"],
        vec!["digest"],
    ];
    for (arguments, door) in
        doors.iter().map(|words| (words, true)).chain(others.iter().map(|words| (words, false)))
    {
        let mut arguments = arguments.clone();
        arguments.extend(["--config", file.path()]);
        let output = program(&arguments)
            .env("BRIDGE__PIPELINE__SWEEP_S", "often")
            .output()
            .expect("it starts");
        assert_eq!((code(&output), out(&output)), (78, ""), "{arguments:?}");
        let lines: BTreeSet<&str> = complaints(&output).lines().collect();
        for problem in told {
            assert!(lines.contains(problem), "{arguments:?}: {problem}\n{lines:?}");
        }
        let keys = lines.iter().any(|line| line.starts_with("secrets.pseudonym_key: "));
        assert_eq!(keys, door, "{arguments:?}: {lines:?}");
        assert_eq!(lines.len(), told.len() + if door { 2 } else { 0 }, "{arguments:?}: {lines:?}");
    }
    listener.set_nonblocking(true).expect("set");
    let asked = listener.accept().expect_err("nobody came");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_door_without_keys_is_78() {
    let output = run(&["ingress"]);
    assert_eq!(code(&output), 78);
    let told = complaints(&output);
    assert!(told.contains("secrets.pseudonym_key: must be at least 16 bytes"), "{told}");
    assert!(told.contains("vendors.<name>.signing_secret_file"), "{told}");
}

#[test]
fn a_file_that_is_not_there_is_78() {
    let output = run(&["config", "check", "--config", "/nowhere/at/all.toml"]);
    assert_eq!(code(&output), 78);
    assert!(complaints(&output).contains("--config: the file cannot be read"));
}

/// Nobody listens: the command fails, says so in our words, and tells no part of the address.
#[test]
fn a_failure_is_1() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    let url = format!("postgresql://bridge:not-a-secret@{closed}/nowhere");
    for arguments in [["migrate", "status"], ["connections", "list"], ["digest", "--json"]] {
        let output =
            program(&arguments).env("BRIDGE__POSTGRES__URL", &url).output().expect("it starts");
        assert_eq!((code(&output), out(&output)), (1, ""), "{arguments:?}");
        let told = complaints(&output);
        assert!(told.contains("Postgres") || told.contains("database_error"), "{told}");
        assert!(!told.contains("not-a-secret") && !told.contains("nowhere"), "{told}");
    }
}

// ── the configuration ──────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn config_docs_are_the_defaults() {
    let output = run(&["config", "docs"]);
    assert_eq!((code(&output), out(&output)), (0, config::DEFAULTS));
}

#[test]
fn config_check_and_show_look_at_the_same() {
    let with_keys = |words: &[&str]| {
        let mut command = program(words);
        command.env("BRIDGE__SECRETS__PSEUDONYM_KEY", KEY);
        command.env("BRIDGE__VENDORS__TERRA__SIGNING_SECRET", KEY);
        command.env("BRIDGE__INGRESS__PERMITS", "17");
        command.env("POSTGRES_URL", "postgresql://bridge:not-a-secret@127.0.0.1/bridge");
        command.output().expect("it starts")
    };
    let output = with_keys(&["config", "check"]);
    assert_eq!((code(&output), complaints(&output)), (0, ""));
    let output = with_keys(&["config", "show"]);
    assert_eq!((code(&output), complaints(&output)), (0, ""));
    let shown = out(&output);
    assert!(
        shown.contains("permits = 17") && shown.contains("signing_secret = \"***\""),
        "{shown}"
    );
    assert!(shown.contains("postgresql://***@127.0.0.1/bridge"), "{shown}");
    assert!(!shown.contains("not-a-secret"), "{shown}");
}

/// Other programs' variables may be anything; ours must be text.
#[test]
fn an_environment_that_is_not_text_ends_nothing() {
    let odd = || OsString::from_vec(vec![b'a', 0xff]);
    let output = program(&["config", "show"]).env("LESSOPEN", odd()).output().expect("it starts");
    assert_eq!(code(&output), 0, "{}", complaints(&output));
    let output =
        program(&["config", "show"]).env("BRIDGE__LOG__LEVEL", odd()).output().expect("it starts");
    assert_eq!(code(&output), 78);
    assert_eq!(complaints(&output), "BRIDGE__LOG__LEVEL: is not UTF-8\n");
}

#[test]
fn a_reader_that_is_gone_is_no_panic() {
    let mut command = program(&["config", "docs"]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(matches!(code(&output), 0 | 1), "{}", complaints(&output));
    assert!(!complaints(&output).contains("panicked"));
}

// ── without infrastructure ─────────────────────────────────────────────────────────────────────────────────────

#[test]
fn describe_needs_nothing() {
    let output = run(&["describe", "--config", "/nowhere/at/all.toml"]);
    assert_eq!((code(&output), complaints(&output)), (0, ""));
    assert!(out(&output).contains("normalised-records"), "{}", out(&output));
}

#[test]
fn normalise_needs_nothing() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/terra");
    let file = |case: &str| fixtures.join(case).to_str().expect("UTF-8").to_owned();
    let output = run(&["normalise", "--vendor", "terra", &file("sleep.json")]);
    assert_eq!((code(&output), complaints(&output)), (0, ""));
    let records =
        out(&output).lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(records.clone().any(|record| record["record_type"] == "sleep"), "{}", out(&output));
    let output = run(&["normalise", "--vendor", "terra", &file("malformed_data.json")]);
    assert_eq!(code(&output), 1, "a reject is a failure: {}", out(&output));
}

#[test]
fn try_prints_the_same_for_the_same_seed() {
    let tried = |words: &[&str]| {
        let output = run(words);
        assert_eq!(code(&output), 0, "{}{}", out(&output), complaints(&output));
        out(&output).to_owned()
    };
    let first = tried(&["try", "--requests", "120", "--users", "3"]);
    assert_eq!(first, tried(&["try", "--requests", "120", "--users", "3"]));
    let last = first.lines().last().expect("a line");
    assert_eq!(last, "0 lost, 0 doubled, 0 reordered, 0 unexplained");
    for part in ["answers", "verdicts", "dead letters", "triggers", "the first event"] {
        assert!(first.lines().any(|line| line == part), "{part}: {first}");
    }
    assert_ne!(first, tried(&["try", "--requests", "120", "--users", "3", "--seed", "2"]));
}

/// A result is for a person: what the engine has to say is asked for.
#[test]
fn try_is_quiet_unless_a_level_is_asked_for() {
    let tried = |variables: &[(&str, &str)]| {
        let arguments = ["try", "--requests", "20", "--users", "2"];
        let output = program(&arguments).envs(variables.iter().copied()).output();
        let output = output.expect("it starts");
        assert_eq!(code(&output), 0);
        complaints(&output).to_owned()
    };
    assert_eq!(tried(&[]), "");
    assert!(tried(&[("BRIDGE__LOG__LEVEL", "info")]).contains("\"level\":\"INFO\""));
    let file = Kept::new("level.toml", "[log]\nlevel = \"info\"\n");
    let output = program(&["try", "--requests", "1", "--config", file.path()]).output();
    assert!(complaints(&output.expect("it starts")).contains("\"level\":\"INFO\""));
}

/// Every request ends as what it was made to be, and every answer is accounted for.
#[test]
fn try_gives_one_json_object() {
    let output = run(&["try", "--json", "--requests", "300", "--seed", "7"]);
    assert_eq!(code(&output), 0, "{}", complaints(&output));
    assert_eq!(out(&output).lines().count(), 1);
    let tried: Value = serde_json::from_str(out(&output)).expect("JSON");
    let sum = |of: &str| -> u64 {
        tried[of].as_object().expect(of).values().filter_map(Value::as_u64).sum()
    };
    let count = |of: &str, name: &str| tried[of][name].as_u64().unwrap_or(0);
    assert_eq!(
        (sum("requests"), sum("answers")),
        (305, 305),
        "five people's connections and 300 more"
    );
    assert_eq!(count("answers", "401"), count("requests", "bad_signature"));
    assert_eq!(count("answers", "200") + count("answers", "401"), 305);
    assert_eq!(sum("dead_letters"), count("requests", "malformed"));
    assert_eq!(count("verdicts", "normalise: dead_lettered"), sum("dead_letters"));
    assert!(count("verdicts", "decide: published") > 100, "{tried}");
    assert!(count("verdicts", "decide: duplicate") > 0, "{tried}");
    assert!(count("requests", "bad_signature") > 0 && sum("triggers") > 0, "{tried}");
    assert_eq!((&tried["wrong"], &tried["findings"]), (&0.into(), &serde_json::json!([])));
    let received = tried["first_event"]["received_at"].as_i64().expect("a time");
    let since = received - biometric_bridge::sim::EPOCH_US;
    assert!(
        (0..3_600_000_000).contains(&since),
        "by the world's clock, not the machine's: {since}"
    );
}

// ── the runbook ────────────────────────────────────────────────────────────────────────────────────────────────

/// Whoever is woken by a name finds it there: every metric, every kind of error, every reason to stand still.
#[test]
fn the_runbook_knows_every_name() {
    let runbook = include_str!("../../helm/README.md");
    let metrics = include_str!("../golden/metrics.txt");
    let rows = metrics.lines().take_while(|line| !line.is_empty());
    let metrics = rows.filter_map(|line| line.split([' ', '{']).next());
    let kinds = Kind::ALL.iter().map(|kind| kind.name());
    let stops = [Why::OutsideLog, Why::Impossible, Why::SecondWriter, Why::NotOurs];
    for name in metrics.chain(kinds).chain(stops.iter().map(|why| why.text())) {
        assert!(runbook.contains(&format!("`{name}")), "helm/README.md does not explain {name}");
    }
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|title| title.trim_start_matches('#').trim().to_lowercase())
        .map(|title| title.chars().filter(|c| c.is_alphanumeric() || " -".contains(*c)).collect())
        .map(|title: String| title.replace(' ', "-"))
        .collect();
    for link in runbook.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(anchors.contains(link), "helm/README.md has no heading for #{link}: {anchors:?}");
    }
}

/// What the runbook tells to run is there.
#[test]
fn the_runbook_s_commands_are_commands() {
    let runbook = include_str!("../../helm/README.md");
    let known: BTreeSet<String> = commands().iter().map(|words| words.join(" ")).collect();
    let groups: BTreeSet<&str> = known
        .iter()
        .filter(|name| known.iter().any(|other| other.starts_with(&format!("{name} "))))
        .map(String::as_str)
        .collect();
    let mut seen = 0;
    for code in runbook.split('`').skip(1).step_by(2) {
        let code = code.strip_prefix("biometric-bridge ").unwrap_or(code);
        let words: Vec<&str> = code.split_whitespace().take(2).collect();
        if let [group, command] = words.as_slice()
            && groups.contains(group)
        {
            assert!(known.contains(&format!("{group} {command}")), "helm/README.md: `{code}`");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}
