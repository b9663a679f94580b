//! The configuration as an operator meets it: every key is there for somebody, every mistake is told at once, and
//! nothing that could be a secret is told with it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use biometric_bridge::config::{self, Config, Problem};
use biometric_bridge::{hydrator, ingress, kafka, postgres, redis, telemetry};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// What must never be seen again once it was given as a value.
const CANARY: &str = "canary-7f3a";
const KEY: &str = "not-a-secret-test-key";

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    config::from_parts(text, environment.iter().map(own), false)
}

/// The problems, or none.
fn problems(text: &str, environment: &[(&str, &str)]) -> Vec<Problem> {
    load(text, environment).err().unwrap_or_default()
}

fn keys_of(problems: &[Problem]) -> Vec<&str> {
    let mut keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    keys
}

fn defaults() -> Table {
    config::DEFAULTS.parse().expect("TOML")
}

/// Every key of the defaults with its value, sections as far down as they go; `*` stands as one vendor.
fn leaves(table: &Table, prefix: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in table {
        let name = if name == "*" { "terra" } else { name };
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => found.extend(leaves(inner, &key)),
            value => found.push((key, value.clone())),
        }
    }
    found
}

fn is_secret(key: &str) -> bool {
    ["_secret", "_token", "_key", "password"].iter().any(|end| key.ends_with(end))
}

/// The variable of the environment that sets a key.
fn variable(key: &str) -> String {
    format!("BRIDGE__{}", key.to_uppercase().replace('.', "__"))
}

/// A TOML text that sets one key.
fn line(key: &str, value: &str) -> String {
    match key.rsplit_once('.') {
        Some((section, name)) => format!("[{section}]\n{name} = {value}\n"),
        None => format!("{key} = {value}\n"),
    }
}

/// A file of this test alone, gone at its end.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str, content: &[u8]) -> Self {
        let path =
            std::env::temp_dir().join(format!("bridge-config-{}-{name}", std::process::id()));
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

// ── keys and fields ────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_defaults_are_a_configuration() {
    let config = load("", &[]).expect("no problem");
    assert_eq!(config.kafka.brokers, "127.0.0.1:9092");
    assert!(config.vendors.contains_key("terra") && config.vendors.contains_key("healthkit"));
    assert!(config.secrets.pseudonym_key.is_none());
}

/// The fields of a section, as serde lists them to who asks for one that is not there.
fn fields<T: DeserializeOwned>() -> BTreeSet<String> {
    let asked = Table::from_iter([("no_such_field".to_owned(), Value::Integer(1))]);
    let error = T::deserialize(Value::Table(asked)).err().expect("unknown fields are denied");
    let (_, listed) = error.message().split_once("expected ").expect("a list");
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_has_a_field_and_every_field_a_key() {
    let sections = [
        ("ingress", fields::<ingress::Settings>()),
        ("ingress.tls", fields::<ingress::tls::Settings>()),
        ("ingress.cors", fields::<ingress::cors::Settings>()),
        ("secrets", fields::<config::Secrets>()),
        ("kafka", fields::<kafka::settings::Settings>()),
        ("kafka.security", fields::<kafka::settings::Security>()),
        ("registry", fields::<kafka::registry::Settings>()),
        ("postgres", fields::<postgres::Settings>()),
        ("redis", fields::<redis::Settings>()),
        ("pipeline", fields::<config::Pipeline>()),
        ("hydrator", fields::<hydrator::Settings>()),
        ("connect", fields::<hydrator::connect::Settings>()),
        ("admin", fields::<telemetry::health::Settings>()),
        ("telemetry", fields::<telemetry::Settings>()),
        ("log", fields::<telemetry::log::Settings>()),
        ("vendors.*", fields::<config::Vendor>()),
    ];
    let mut known = BTreeSet::from(["profile".to_owned(), "vendors".to_owned()]);
    for (name, mut fields) in sections {
        let mut table = defaults();
        for step in name.split('.') {
            let inner = table.get(step).and_then(Value::as_table).expect(name);
            table = inner.clone();
        }
        // These sections' files are read here, and their owners get what is in them.
        let mut keys: BTreeSet<String> = table.keys().cloned().collect();
        if matches!(name, "secrets" | "vendors.*") {
            keys.retain(|key| !key.ends_with("_file"));
        }
        assert_eq!(keys, std::mem::take(&mut fields), "{name}");
        known.insert(name.split('.').next().expect("a name").to_owned());
    }
    assert_eq!(known, defaults().keys().cloned().collect(), "a section that nobody reads");
}

/// A key whose default is empty is taken out before its section is read: here each of them is set.
#[test]
fn every_text_can_be_set() {
    let file = Kept::new("any", b"not-a-secret-content");
    for (key, value) in leaves(&defaults(), "").into_iter().filter(|(_, value)| value.is_str()) {
        let valid = match key.as_str() {
            "kafka.security.mechanism" => "SCRAM-SHA-512",
            "pipeline.slot" | "kafka.topic_prefix" => "one",
            "ingress.cors.origins" => "https://app.example.com",
            "vendors.terra.rate_max" | "vendors.terra.rate_per_peer_max" => "100/minute",
            "vendors.terra.api_base"
            | "vendors.terra.bucket"
            | "vendors.terra.renewal_url"
            | "vendors.terra.authorise_url" => "https://api.example.com/v2",
            "connect.public_url" => "https://bridge.example.com",
            // Needs the one above: what both say is held against each other in a test of its own.
            "connect.address" => continue,
            // A pair, and held against each other: `tls.rs` sets both.
            "ingress.tls.certificate_file" | "ingress.tls.key_file" => continue,
            "telemetry.otlp_endpoint" => "http://127.0.0.1:4318",
            key if key.ends_with("_file") => file.path(),
            _ => match value.as_str() {
                Some("") | None => KEY,
                Some(value) => value,
            },
        };
        let found = problems("", &[(&variable(&key), valid)]);
        assert_eq!(found, [], "{key}");
    }
}

#[test]
fn every_key_says_why_it_is_there() {
    let mut before = "";
    for line in config::DEFAULTS.lines() {
        let name = |line: &'static str| line.split_once(" = ").map(|(name, _)| name);
        if let Some(key) = name(line).filter(|_| !line.starts_with('#')) {
            let twin = name(before).is_some_and(|other| key == format!("{other}_file"));
            assert!(before.starts_with("# ") || twin, "{key} has no reason");
        }
        before = line;
    }
}

#[test]
fn an_unknown_key_is_a_problem_wherever_it_is() {
    let text = "unheard = 1\n[ingress]\npermit = 5\n[kafka.security]\nprotocl = \"ssl\"\n[vendors.fitbit]\nenabled = true\n";
    let found = problems(text, &[("BRIDGE__POSTGRES__URI", "x"), ("BRIDGE__NOTHING", "x")]);
    let keys = [
        "ingress.permit",
        "kafka.security.protocl",
        "nothing",
        "postgres.uri",
        "unheard",
        "vendors.fitbit",
    ];
    assert_eq!(keys_of(&found), keys);
}

// ── all problems at once ───────────────────────────────────────────────────────────────────────────────────────

#[test]
fn six_mistakes_are_six_problems() {
    let text = r#"
profile = "staging"
[ingress]
permits = "many"
adress = "127.0.0.1:1"
[pipeline]
unknown_users = "guess"
decide_workers = 99
[postgres]
statement_timeout_ms = 4000
"#;
    let found = problems(text, &[]);
    let keys = [
        "ingress.adress",
        "ingress.permits",
        "pipeline.decide_workers",
        "pipeline.unknown_users",
        "postgres.statement_timeout_ms",
        "profile",
    ];
    assert_eq!(keys_of(&found), keys, "{found:?}");
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    for expected in [
        "ingress.permits: is text, must be a whole number",
        "pipeline.unknown_users: must be \"hold\" or \"derive\"",
        "pipeline.decide_workers: must be 1 to 32",
        "postgres.statement_timeout_ms: must be above postgres.idle_in_transaction_ms",
        "profile: must be \"development\" or \"production\"",
    ] {
        assert!(told.iter().any(|line| line == expected), "{expected}: {told:?}");
    }
}

#[test]
fn mistakes_of_one_section_do_not_hide_each_other() {
    let text =
        "[ingress]\naddress = \"here\"\npermits = -1\nack_ms_max = -5\n[log]\nlevel = \"loud\"\n";
    let found =
        problems(text, &[("BRIDGE__ADMIN__ADDRESS", "there"), ("BRIDGE__REDIS__TTL_S", "-1")]);
    let keys = [
        "admin.address",
        "ingress.ack_ms_max",
        "ingress.address",
        "ingress.permits",
        "log.level",
        "redis.ttl_s",
    ];
    assert_eq!(keys_of(&found), keys, "{found:?}");
}

#[test]
fn what_must_be_there_cannot_be_emptied() {
    let text =
        "[kafka]\nbrokers = \"\"\n[pipeline]\ndecide_group = \"\"\n[ingress]\naddress = \"\"\n";
    let found = problems(text, &[]);
    assert_eq!(keys_of(&found), ["ingress.address", "kafka.brokers", "pipeline.decide_group"]);
    assert!(found.iter().all(|problem| problem.what == "must be set"), "{found:?}");
}

#[test]
fn relations_are_held() {
    let cases = [
        ("kafka.send_timeout_ms", "1500", "kafka.send_timeout_ms"),
        ("postgres.statement_timeout_ms", "5000", "postgres.statement_timeout_ms"),
        ("pipeline.normalise_group", "bridge-decide", "pipeline.normalise_group"),
        ("admin.address", "127.0.0.1:8080", "admin.address"),
        ("kafka.min_insync", "2", "kafka.min_insync"),
        ("ingress.ack_ms_max", "1600", "ingress.permit_wait_ms_max + ingress.ack_ms_max"),
        ("ingress.body_bytes_in_flight_max", "1000", "ingress.body_bytes_in_flight_max"),
        ("postgres.statement_timeout_ms", "0", "postgres.statement_timeout_ms"),
        ("postgres.url", "mysql://127.0.0.1/x", "postgres.url"),
        ("redis.url", "127.0.0.1:6379", "redis.url"),
        ("registry.url", "http://127.0.0.1:8081/", "registry.url"),
        ("registry.url", "http://bridge:not-a-secret@127.0.0.1:8081", "registry.url"),
        ("pipeline.batch_records_max", "501", "pipeline.batch_records_max"),
        ("telemetry.otlp_endpoint", "127.0.0.1:4318", "telemetry.otlp_endpoint"),
        ("telemetry.otlp_endpoint", "http://a:b@127.0.0.1:4318", "telemetry.otlp_endpoint"),
        ("telemetry.sample_ratio", "1.5", "telemetry.sample_ratio"),
        ("telemetry.spans_queue_max", "0", "telemetry.spans_queue_max"),
        ("connect.address", "127.0.0.1:9300", "connect.address"),
        ("connect.public_url", "http://bridge.example.com", "connect.public_url"),
        ("connect.consent_s", "5", "connect.consent_s"),
    ];
    for (key, value, told) in cases {
        let found = problems("", &[(&variable(key), value)]);
        assert_eq!(keys_of(&found), [told], "{key} = {value}: {found:?}");
    }
    assert_eq!(problems("", &[("BRIDGE__KAFKA__SEND_TIMEOUT_MS", "1501")]), []);
}

#[test]
fn production_asks_for_more() {
    let found = problems("profile = \"production\"\n", &[]);
    assert_eq!(keys_of(&found), ["kafka.min_insync", "kafka.replication"], "{found:?}");
    let enough = "profile = \"production\"\n[kafka]\nreplication = 3\nmin_insync = 2\n";
    assert_eq!(problems(enough, &[]), []);
}

#[test]
fn a_door_asks_for_its_keys_together_with_the_rest() {
    let wrong = [("BRIDGE__INGRESS__PERMITS".to_owned(), "0".to_owned())];
    let found = config::from_parts("", wrong.into_iter(), true).expect_err("three");
    let keys = ["ingress.permits", "secrets.pseudonym_key", "vendors.*.signing_secret"];
    assert_eq!(keys_of(&found), keys, "{found:?}");
    let right = [
        ("BRIDGE__SECRETS__PSEUDONYM_KEY".to_owned(), KEY.to_owned()),
        ("BRIDGE__VENDORS__TERRA__SIGNING_SECRET".to_owned(), KEY.to_owned()),
    ];
    let config = config::from_parts("", right.into_iter(), true).expect("enough");
    let keys = config.keys().expect("enough");
    assert_eq!(
        keys.vendors.keys().collect::<Vec<_>>(),
        ["terra"],
        "who has no secret is not served"
    );
}

// ── the environment ────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_value_of_the_environment_has_the_key_s_type() {
    let environment = [
        ("BRIDGE__PIPELINE__SLOT", "12"),
        ("BRIDGE__PIPELINE__DECIDE_WORKERS", "3"),
        ("BRIDGE__VENDORS__OURA__ENABLED", "false"),
        ("BRIDGE__KAFKA__SECURITY__USERNAME", "true"),
        ("HOME", "/nowhere"),
    ];
    let config = load("[pipeline]\ndecide_workers = 7\n", &environment).expect("no problem");
    assert_eq!(config.slot(), "12");
    assert_eq!(config.pipeline.decide_workers, 3, "the environment stands above the file");
    assert!(!config.vendors["oura"].enabled && config.vendors["terra"].enabled);
    assert_eq!(config.kafka.security.username.as_deref(), Some("true"));
    let found = problems("", &[("BRIDGE__PIPELINE__DECIDE_WORKERS", "three")]);
    assert_eq!(found[0].to_string(), "pipeline.decide_workers: must be a whole number");
    let found = problems("", &[("BRIDGE__VENDORS__OURA__ENABLED", "yes")]);
    assert_eq!(found[0].to_string(), "vendors.oura.enabled: must be true or false");
}

#[test]
fn names_of_v0_are_read_and_ours_stand_above_them() {
    let old = [
        ("POSTGRES_URL", "postgresql://127.0.0.1:1/old"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1"),
        ("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1"),
    ];
    let config = load("", &old).expect("no problem");
    let url = |url: &Option<SecretString>| url.as_ref().map(|url| url.expose_secret().to_owned());
    assert_eq!(url(&config.postgres.url).as_deref(), Some("postgresql://127.0.0.1:1/old"));
    assert_eq!(url(&config.redis.url).as_deref(), Some("redis://127.0.0.1:1"));
    assert_eq!(config.kafka.brokers, "127.0.0.1:1");
    assert_eq!(config.registry.url, "http://127.0.0.1:1");
    let own = ("BRIDGE__KAFKA__BROKERS", "127.0.0.1:2");
    for both in [[own, old[2]], [old[2], own]] {
        assert_eq!(load("", &both).expect("no problem").kafka.brokers, "127.0.0.1:2");
    }
}

#[test]
fn a_vendor_is_switched_off_by_one_variable_whichever_vendor_it_is() {
    for vendor in biometric_bridge::vendors::names() {
        let variable = format!("{}_ENABLED", vendor.to_uppercase());
        let config = load("", &[(&variable, "false")]).expect("no problem");
        assert_eq!(config.switched_off(), [vendor]);
        let again = (format!("BRIDGE__VENDORS__{}__ENABLED", vendor.to_uppercase()), "true");
        let both = [(variable.as_str(), "false"), (again.0.as_str(), again.1)];
        assert!(load("", &both).expect("no problem").switched_off().is_empty());
    }
    assert!(
        load("", &[("NOBODY_ENABLED", "false")]).expect("no problem").switched_off().is_empty()
    );
    let found = problems("", &[("OURA_ENABLED", "off")]);
    assert_eq!(found[0].to_string(), "vendors.oura.enabled: must be true or false");
}

// ── secrets ────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn no_secret_stands_in_a_toml_file() {
    let secrets: Vec<String> = leaves(&defaults(), "")
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| is_secret(key))
        .collect();
    assert_eq!(secrets.len(), 10, "{secrets:?}");
    for key in secrets {
        let found = problems(&line(&key, &format!("\"{CANARY}\"")), &[]);
        assert_eq!(keys_of(&found), [key.as_str()]);
        assert!(found[0].what.contains(&format!("{key}_file")), "{found:?}");
    }
    for (key, url) in [
        ("postgres.url", "postgresql://bridge:canary-7f3a@127.0.0.1/bridge"),
        ("postgres.url", "postgresql://127.0.0.1/bridge?user=bridge&password=canary-7f3a"),
        ("redis.url", "redis://:canary-7f3a@127.0.0.1"),
    ] {
        let found = problems(&line(key, &format!("\"{url}\"")), &[]);
        assert_eq!(keys_of(&found), [key], "{url}");
        assert!(!format!("{found:?}").contains(CANARY));
    }
    let without = line("postgres.url", "\"postgresql://bridge@127.0.0.1/bridge\"");
    assert_eq!(problems(&without, &[]), []);
}

/// Also where it is the environment itself that says so, whatever comes first in it.
#[test]
fn in_production_the_environment_has_no_secrets() {
    let kafka = "[kafka]\nreplication = 3\nmin_insync = 2\n";
    let production = ("BRIDGE__PROFILE", "production");
    for (key, value) in [
        ("secrets.pseudonym_key", KEY),
        ("vendors.terra.signing_secret", KEY),
        ("kafka.security.password", KEY),
        ("registry.password", KEY),
        ("postgres.url", "postgresql://bridge:not-a-secret@127.0.0.1/bridge"),
    ] {
        let name = variable(key);
        let secret = (name.as_str(), value);
        for environment in [[production, secret], [secret, production]] {
            let found = problems(kafka, &environment);
            assert_eq!(keys_of(&found), [key]);
            assert!(found[0].what.contains(&format!("{key}_file")), "{found:?}");
        }
        assert_eq!(problems(kafka, &[secret]), [], "in development it may");
    }
}

#[test]
fn a_secret_comes_from_its_file() {
    let file = Kept::new("secret", b"not-a-secret-test-key\n");
    let url = Kept::new("url", b"postgresql://bridge:not-a-secret@127.0.0.1/bridge\n");
    let text = format!(
        "profile = \"production\"\n[kafka]\nreplication = 3\nmin_insync = 2\n\
         [secrets]\npseudonym_key_file = \"{0}\"\n[vendors.terra]\nsigning_secret_file = \"{0}\"\n\
         [vendors.oura]\nhandshake_token_file = \"{0}\"\n[postgres]\nurl_file = \"{1}\"\n",
        file.path(),
        url.path()
    );
    let config = load(&text, &[]).expect("no problem");
    let secret =
        |secret: &Option<SecretString>| secret.as_ref().map(|it| it.expose_secret().to_owned());
    assert_eq!(
        secret(&config.secrets.pseudonym_key).as_deref(),
        Some(KEY),
        "without its line's end"
    );
    assert_eq!(secret(&config.vendors["terra"].signing_secret).as_deref(), Some(KEY));
    assert_eq!(secret(&config.vendors["oura"].handshake_token).as_deref(), Some(KEY));
    assert_eq!(config.postgres.url_file.as_deref(), Some(url.0.as_path()));
    assert!(!config.shown.contains(KEY) && !config.shown.contains("not-a-secret"));
}

#[test]
fn a_file_that_is_named_must_be_there_and_not_empty() {
    let empty = Kept::new("empty", b"\n");
    let binary = Kept::new("binary", b"\xff\xfe");
    let ours = ["ingress.tls.certificate_file", "ingress.tls.key_file"];
    let nowhere = ours.map(|key| (variable(key), "/nowhere/canary-7f3a"));
    let nowhere: Vec<_> = nowhere.iter().map(|(key, path)| (key.as_str(), *path)).collect();
    assert_eq!(keys_of(&problems("", &nowhere)), ours);
    let all = leaves(&defaults(), "");
    let files = all.iter().filter(|(key, _)| key.ends_with("_file"));
    for (key, _) in files.filter(|(key, _)| !ours.contains(&key.as_str())) {
        let name = variable(key);
        let told = |path: &str| problems("", &[(name.as_str(), path)]);
        for path in ["/nowhere/canary-7f3a", empty.path()] {
            let found = told(path);
            assert_eq!(keys_of(&found), [key.as_str()], "{path}");
            assert!(!format!("{found:?}").contains(path), "a path can tell too");
        }
        let text = is_secret(key.trim_end_matches("_file")) || key.ends_with("url_file");
        assert_eq!(keys_of(&told(binary.path())).len(), usize::from(text), "{key}");
    }
}

#[test]
fn nothing_that_is_shown_is_a_secret() {
    let every = leaves(&defaults(), "");
    let secrets = every.iter().filter(|(key, _)| is_secret(key)).map(|(key, _)| variable(key));
    let mut environment: Vec<(String, String)> =
        secrets.map(|name| (name, format!("{CANARY}-{CANARY}"))).collect();
    let host = "127.0.0.1:5432/bridge";
    for (name, url) in [
        ("BRIDGE__POSTGRES__URL", format!("postgresql://u:{CANARY}@x@{host}?password={CANARY}")),
        ("BRIDGE__REDIS__URL", format!("rediss://:{CANARY}@{host}")),
    ] {
        environment.push((name.to_owned(), url));
    }
    let config = config::from_parts("", environment.into_iter(), true).expect("no problem");
    assert!(!config.shown.contains(CANARY), "{}", config.shown);
    assert_eq!(config.shown.matches(&format!("***@{host}")).count(), 2, "{}", config.shown);
    let shown: Table = config.shown.parse().expect("it is TOML still");
    assert_eq!(shown["secrets"]["pseudonym_key"].as_str(), Some("***"));
    assert_eq!(shown["ingress"]["permits"].as_integer(), Some(100));
    assert!(!format!("{config:?}").contains(CANARY), "nor by Debug");
}

/// Wrong values of every type in every key, by file and by environment: a problem names the key and what it may be.
#[test]
fn no_value_is_in_a_problem() {
    let canary = format!("\"{CANARY}\"");
    let values = [
        canary.clone(),
        format!("[{canary}]"),
        format!("{{ {} = 1 }}", CANARY.replace('-', "_")),
        "-731941".to_owned(),
        "73194173194173194".to_owned(),
        "7319.41".to_owned(),
        "true".to_owned(),
        "1973-11-29".to_owned(),
    ];
    let leaks = |told: &str| {
        let told = told.replace("_canary", "");
        ["canary", "731941", "7319.41", "1973"].iter().any(|value| told.contains(value))
    };
    for (key, _) in leaves(&defaults(), "") {
        for value in &values {
            let by_file = problems(&line(&key, value), &[]);
            let by_environment = problems("", &[(&variable(&key), value.trim_matches('"'))]);
            let told = format!("{by_file:?}{by_environment:?}");
            assert!(!leaks(&told), "{key} = {value}: {told}");
        }
    }
    let broken = problems(&format!("[ingress]\npermits = 1\n{CANARY} {CANARY}\n"), &[]);
    assert_eq!(keys_of(&broken), ["--config"]);
    assert!(broken[0].what.contains("line 3") && !leaks(&broken[0].what), "{broken:?}");
}

/// Every key at once that has a type to be wrong about.
#[test]
fn a_wrong_value_in_every_key_is_a_problem_of_every_key() {
    let typed: Vec<String> = leaves(&defaults(), "")
        .into_iter()
        .filter(|(_, value)| !value.is_str())
        .map(|(key, _)| key)
        .collect();
    assert!(typed.len() > 30, "{typed:?}");
    let environment: Vec<(String, String)> =
        typed.iter().map(|key| (variable(key), CANARY.to_owned())).collect();
    let found = config::from_parts("", environment.into_iter(), false).expect_err("problems");
    let mut expected: Vec<&str> = typed.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(keys_of(&found), expected);
}
