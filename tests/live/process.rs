//! The program as a user runs it: processes of the real binary over the real stack, with topics, a database and
//! ports of their own, and everything ended by pid.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use biometric_bridge::stream::clock::Stopwatch;

use crate::world::Topics;

/// The binary under test.
pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_biometric-bridge");

/// A key that signs in tests, and nowhere else.
const SECRET: &str = "not-a-secret-test-key";

/// A deployment of its own on the shared stack.
pub(crate) struct Deployment {
    /// Stands before every topic, subject and group, and names the database.
    pub(crate) name: String,
    /// Logs and ledgers.
    pub(crate) dir: PathBuf,
    environment: Vec<(String, String)>,
    /// Deletes the topics when it is dropped.
    topics: Option<Topics>,
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What is left is the evidence.
            std::mem::forget(self.topics.take());
            return;
        }
        for database in [self.name.clone(), format!("{}b", self.name)] {
            self.psql(&format!("drop database if exists \"{database}\" with (force)"));
        }
    }
}

/// A setting of the stack or of a run, or its default.
pub(crate) fn set_or(name: &str, default: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "the stack's own settings, not the program's")]
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// A free port of this instant.
pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("an address").port()
}

impl Deployment {
    /// Makes topics, schemas and a database.
    pub(crate) fn new(label: &str) -> Self {
        let name = format!("{label}{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("bridge-live-{name}"));
        std::fs::create_dir_all(&dir).expect("a directory");
        let topics = Some(Topics::under(&format!("{name}.")));
        let deployment = Self { environment: Vec::new(), name, dir, topics };
        deployment.psql(&format!("create database \"{}\"", deployment.name));
        let host = set_or("BRIDGE_POSTGRES", "127.0.0.1:5432");
        let mut deployment = deployment;
        let (url, name) =
            (format!("postgres://bridge@{host}/{}", deployment.name), &deployment.name);
        let prefix = format!("{name}.");
        let brokers = set_or("BRIDGE_KAFKA", "127.0.0.1:9092");
        let registry = set_or("BRIDGE_REGISTRY", "http://127.0.0.1:8081/apis/ccompat/v7");
        let redis = format!("redis://{}/0", set_or("BRIDGE_REDIS", "127.0.0.1:6379"));
        for (key, value) in [
            ("KAFKA__BROKERS", brokers.as_str()),
            ("REGISTRY__URL", registry.as_str()),
            ("REDIS__URL", redis.as_str()),
            ("POSTGRES__URL", url.as_str()),
            ("KAFKA__TOPIC_PREFIX", prefix.as_str()),
            ("SECRETS__PSEUDONYM_KEY", SECRET),
            ("VENDORS__TERRA__SIGNING_SECRET", SECRET),
            ("VENDORS__HEALTHKIT__SIGNING_SECRET", SECRET),
            ("VENDORS__OURA__SIGNING_SECRET", SECRET),
            ("VENDORS__WHOOP__SIGNING_SECRET", SECRET),
        ] {
            deployment.environment.push((format!("BRIDGE__{key}"), value.to_owned()));
        }
        for arguments in [["migrate", "up"], ["topics", "apply"], ["schemas", "apply"]] {
            let done = deployment.run(&arguments);
            assert!(done.status.success(), "{arguments:?}: {}", text(&done));
        }
        deployment
    }

    /// Another database, empty, with the same topics.
    pub(crate) fn empty_database(&mut self) {
        let name = format!("{}b", self.name);
        self.psql(&format!("create database \"{name}\""));
        let host = set_or("BRIDGE_POSTGRES", "127.0.0.1:5432");
        self.set("POSTGRES__URL", format!("postgres://bridge@{host}/{name}"));
        let done = self.run(&["migrate", "up"]);
        assert!(done.status.success(), "{}", text(&done));
    }

    /// What the reader in `tests/neuros` sees of both output topics, one JSON line an event.
    pub(crate) fn neuros(&self) -> String {
        let topics = ["biometric-events", "terra-biometric-events"];
        let topics = topics.map(|topic| format!("{}.{topic}", self.name)).join(",");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/neuros/run");
        let kafka = set_or("BRIDGE_KAFKA", "127.0.0.1:9092");
        let registry = set_or("BRIDGE_REGISTRY", "http://127.0.0.1:8081/apis/ccompat/v7");
        let done = Command::new(script)
            .args(["--brokers", &kafka, "--registry", &registry, "--topics", &topics])
            .args(["--from", "beginning", "--until-idle", "4"])
            .output()
            .expect("the reader runs");
        assert!(done.status.success(), "{}", text(&done));
        String::from_utf8(done.stdout).expect("lines")
    }

    /// Sets a key for every process to come.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.environment.push((format!("BRIDGE__{key}"), value.into()));
    }

    /// A command with this deployment's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command.args(arguments).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// Starts a role with its log in the deployment's directory.
    pub(crate) fn spawn(&self, role: &str, label: &str, more: &[(&str, String)]) -> Process {
        let path = self.dir.join(format!("{label}.log"));
        let log = File::options().create(true).append(true).open(path).expect("a log");
        let mut command = self.command(&[role]);
        for (key, value) in more {
            command.env(format!("BRIDGE__{key}"), value);
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the binary runs");
        Process { child }
    }

    /// Runs one statement as the stack's owner, outside of any deployment's database.
    pub(crate) fn psql(&self, statement: &str) {
        let host = set_or("BRIDGE_POSTGRES", "127.0.0.1:5432");
        let (host, port) = host.split_once(':').expect("host:port");
        let done = Command::new("psql")
            .args(["-h", host, "-p", port, "-U", "bridge", "-d", "bridge", "-qc", statement])
            .output()
            .expect("psql runs");
        assert!(done.status.success(), "{statement}: {}", text(&done));
    }
}

/// What a command said, for a failing assertion.
pub(crate) fn text(output: &Output) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", part(&output.stdout), part(&output.stderr))
}

/// A running process; it ends with its value.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// A child that runs.
    pub(crate) fn of(child: Child) -> Self {
        Self { child }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name (`KILL`, `TERM`, `STOP`, `CONT`, `INT`).
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "signal {name}");
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Asks it to end, and waits; its exit code.
    pub(crate) fn end(mut self, signal: &str, within: Duration) -> Option<i32> {
        self.signal(signal);
        let asked = Stopwatch::start();
        while asked.elapsed() < within {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill().expect("killed");
        None
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A page of the admin listener, or nothing while it does not answer.
pub(crate) fn page(port: u16, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// The sum of a metric's series on a page.
pub(crate) fn metric(page: &str, name: &str) -> f64 {
    page.lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Waits until this holds; panics with what was waited for.
pub(crate) fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Stopwatch::start();
    while begun.elapsed() < within {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("not within {within:?}: {what}");
}

/// A part of the stack is stopped, started or killed by the stack's own script.
pub(crate) fn stack(verb: &str, part: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/local/stack");
    let done = Command::new(script).args([verb, part]).output().expect("the stack's script runs");
    assert!(done.status.success(), "stack {verb} {part}: {}", text(&done));
}
