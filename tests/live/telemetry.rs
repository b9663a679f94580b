//! A real Prometheus scrapes a run, and a collector gets spans and metrics: every expression of the dashboards and
//! alerts can be evaluated, those that must have something to show have it, and no alert fires over a run in which
//! nothing is wrong.
//!
//! It needs Debian's `prometheus` (`tests/packages prometheus`, which `tests/live/run` does).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::process::{Deployment, Process, free_port, metric, page, until};
use crate::promql::{Expression, alerts, panels};
use crate::truth::Played;

/// Panels that show nothing while nothing is wrong, by their titles.
const EMPTY_IN_PEACE: &[&str] = &["Recoveries", "Given up", "Breaker openings"];

/// Whom vendors that are fetched from are played for, and so that something waits, and what goes wrong meanwhile.
const PEOPLE: &str = "20";
const DAYS: &str = "10";
const FAULTS: &str = "all";

/// A Prometheus with our rules that scrapes this port every second.
fn prometheus(deployment: &Deployment, admin: u16) -> (Process, u16) {
    let (port, dir) = (free_port(), deployment.dir.join("prometheus"));
    std::fs::create_dir_all(&dir).expect("a directory");
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/alerts/*.yaml");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{rules}']\n\
         scrape_configs:\n  - job_name: biometric-bridge\n    static_configs:\n      - targets: ['127.0.0.1:{admin}']\n"
    );
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, config).expect("written");
    let log = std::fs::File::create(dir.join("log")).expect("a log");
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--log.level=warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("prometheus runs; tests/packages prometheus installs it");
    (Process::of(child), port)
}

/// A collector that takes everything, and its address; what is sent is counted by the sender.
fn collector() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let at = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || take(stream));
        }
    });
    at
}

fn take(mut stream: TcpStream) {
    let (mut seen, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut part) {
        seen.extend_from_slice(&part[..read]);
        let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.expect("a length").parse().expect("a number");
        if seen.len() >= end + 4 + length {
            seen.drain(..end + 4 + length);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answered");
        }
    }
}

/// What its API answers to a path, as JSON.
fn api(port: u16, path: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    // 1.0, so that no answer comes in chunks.
    let request = format!("GET /api/v1/{path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {answer}"))
}

/// Everything but letters and digits as `%xx`.
fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(one).collect()
}

/// How many series an expression gives, Grafana's variables filled in as for all processes.
fn evaluated(port: u16, expression: &Expression) -> usize {
    let text = expression.text.replace("$__rate_interval", "20s").replace("$instance", ".*");
    let answer = api(port, &format!("query?query={}", escaped(&text)));
    assert_eq!(answer["status"], "success", "{}: {text}: {answer}", expression.place);
    assert!(answer["warnings"].is_null(), "{}: {answer}", expression.place);
    let result = answer["data"]["result"].as_array().expect("a result");
    let is_number = |series: &&Value| series["value"][1].as_str().is_some_and(|text| text != "NaN");
    result.iter().filter(is_number).count()
}

#[test]
fn a_prometheus_evaluates_every_expression_over_a_run() {
    let played = Played::new("seen");
    let (deployment, door, admin) = (&played.deployment, played.door, played.admin);
    let connections = played.prepare(PEOPLE, DAYS, FAULTS);
    assert!(deployment.run(&["connections", "import", &connections]).status.success());
    let addresses = [
        ("TELEMETRY__OTLP_ENDPOINT", collector()),
        ("TELEMETRY__OTLP_METRICS_INTERVAL_S", "2".to_owned()),
        ("TELEMETRY__SAMPLE_RATIO", "0.2".to_owned()),
    ];
    let bridge = deployment.spawn("all", "all", &addresses);
    until("it is ready", Duration::from_secs(60), || page(admin, "/ready").is_some());
    let (server, port) = prometheus(deployment, admin);
    until("Prometheus is ready", Duration::from_secs(30), || page(port, "/-/ready").is_some());
    let url = format!("http://127.0.0.1:{door}");
    let mut traffic = deployment.command(&["simulate", "traffic", "--url", &url, "--rate", "150"]);
    let traffic = traffic.args(["--seconds", "40", "--users", "40", "--malformed", "3"]);
    let traffic = traffic.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("traffic");
    let traffic = Process::of(traffic);
    let mut vendors = played.simulation(PEOPLE, DAYS, FAULTS, &[]);
    let vendors = vendors.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("vendors");
    let _vendors = Process::of(vendors);
    let panels = panels();
    let mut empty: Vec<&Expression> = Vec::new();
    for _ in 0..35 {
        std::thread::sleep(Duration::from_secs(1));
        // Whoever runs it asks for readiness all the time; dependencies show by that.
        let _asked = page(admin, "/ready");
        empty = panels.iter().filter(|panel| evaluated(port, panel) == 0).collect();
        empty.retain(|panel| !EMPTY_IN_PEACE.iter().any(|title| panel.place.ends_with(title)));
        if empty.is_empty() {
            break;
        }
    }
    assert!(empty.is_empty(), "these show nothing over a run: {empty:#?}");
    let seen = page(admin, "/metrics").expect("a page");
    for signal in ["spans", "metrics"] {
        let name = format!("bridge_otlp_total{{fate=\"sent\",signal=\"{signal}\"}}");
        assert!(metric(&seen, &name) > 0.0, "the collector has no {signal}");
    }
    for alert in alerts() {
        let expression = Expression { place: alert.name.clone(), text: alert.expression.clone() };
        let _firing = evaluated(port, &expression);
    }
    let rules = api(port, "rules");
    let groups = rules["data"]["groups"].as_array().expect("groups");
    let rules: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    assert_eq!(rules.len(), alerts().len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "nothing is wrong: {rule}");
    }
    drop(traffic);
    server.kill();
    assert_eq!(bridge.end("TERM", Duration::from_secs(30)), Some(0));
}
