//! The program as it is shipped, as processes, over topics and a database of its own on the stack that answers.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use biometric_bridge::config::{self, Config};
use biometric_bridge::model::state::Notes;
use biometric_bridge::postgres::register::PostgresRegister;
use biometric_bridge::stream::Register as _;
use biometric_bridge::stream::clock::Stopwatch;

use crate::bodies::{self, KEY};
use crate::meter::Meter;
use crate::topics;

/// How long anything that starts may take.
const START: Duration = Duration::from_secs(60);
/// The database of Redis that is used here and emptied: 0 is what `make run` uses.
const REDIS_DATABASE: u8 = 9;
/// How the databases of all runs begin.
pub(crate) const DATABASES: &str = "bench_";

/// Where the parts of the stack answer: as `helm/local/stack` reads it.
#[derive(Clone)]
pub(crate) struct Stack {
    kafka: String,
    registry: String,
    postgres: String,
    redis: String,
    /// The directory of the shipped binary and of `bare`.
    pub(crate) binaries: PathBuf,
}

fn set_or(name: &str, default: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "the stack's own settings, not the program's")]
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host:port")
}

/// A port that nobody has at this moment.
pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("an address").port()
}

impl Stack {
    /// What answers, or is started.
    pub(crate) fn up() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/local/stack");
        let done = Command::new(script).arg("up").stdout(Stdio::null()).status();
        assert!(done.expect("the stack's script runs").success(), "the stack is up");
        let own = std::env::current_exe().expect("a path");
        let this = Self {
            kafka: set_or("BRIDGE_KAFKA", "127.0.0.1:9092"),
            registry: set_or("BRIDGE_REGISTRY", "http://127.0.0.1:8081/apis/ccompat/v7"),
            postgres: set_or("BRIDGE_POSTGRES", "127.0.0.1:5432"),
            redis: set_or("BRIDGE_REDIS", "127.0.0.1:6379"),
            binaries: own.parent().expect("a directory").to_owned(),
        };
        this.sweep();
        this
    }

    /// Takes away what runs left that did not come to their end.
    fn sweep(&self) {
        let dead = |name: &str| {
            let pid = name.strip_prefix(DATABASES).and_then(|rest| rest.split('_').next());
            pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
        };
        topics::delete(&self.kafka, dead);
        for name in self.psql("select datname from pg_database").lines().filter(|name| dead(name)) {
            self.psql(&format!("drop database if exists {name} with (force)"));
        }
    }

    pub(crate) fn meter(&self) -> Meter {
        Meter::new(port(&self.kafka), port(&self.postgres), port(&self.redis), DATABASES)
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.kafka
    }

    fn psql(&self, statement: &str) -> String {
        let (host, port) = self.postgres.split_once(':').expect("host:port");
        let done = Command::new("psql")
            .args(["-h", host, "-p", port, "-U", "bridge", "-d", "bridge", "-Atqc", statement])
            .output()
            .expect("psql runs");
        assert!(done.status.success(), "{statement}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Empties the cache of runs before.
    fn flush(&self) {
        let mut redis = TcpStream::connect(&self.redis).expect("Redis answers");
        let text = format!("SELECT {REDIS_DATABASE}\r\nFLUSHDB\r\n");
        redis.write_all(text.as_bytes()).expect("Redis takes a command");
        let mut answer = [0_u8; 10];
        redis.read_exact(&mut answer).expect("Redis answers");
        assert_eq!(&answer, b"+OK\r\n+OK\r\n", "the cache is empty");
    }
}

/// A deployment of its own: prefix, topics, schemas, database. All of it goes with its value.
pub(crate) struct Deployment {
    stack: Stack,
    name: String,
    environment: Vec<(String, String)>,
    pub(crate) config: Config,
    /// Logs of what ran.
    logs: PathBuf,
}

impl Deployment {
    pub(crate) fn new(stack: &Stack, label: &str) -> Self {
        let name = format!("{DATABASES}{}_{label}", std::process::id());
        let logs = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&logs).expect("a directory");
        stack.psql(&format!("create database {name}"));
        stack.flush();
        let url = format!("postgresql://bridge@{}/{name}", stack.postgres);
        let redis = format!("redis://{}/{REDIS_DATABASE}", stack.redis);
        let prefix = format!("{name}.");
        let environment: Vec<(String, String)> = [
            ("KAFKA__BROKERS", stack.kafka.as_str()),
            ("REGISTRY__URL", stack.registry.as_str()),
            ("REDIS__URL", redis.as_str()),
            ("POSTGRES__URL", url.as_str()),
            ("KAFKA__TOPIC_PREFIX", prefix.as_str()),
            ("SECRETS__PSEUDONYM_KEY", KEY),
            ("VENDORS__TERRA__SIGNING_SECRET", KEY),
            ("VENDORS__HEALTHKIT__SIGNING_SECRET", KEY),
            ("LOG__LEVEL", "warn"),
        ]
        .map(|(key, value)| (format!("BRIDGE__{key}"), value.to_owned()))
        .to_vec();
        let config = config::from_parts("", environment.iter().cloned(), true);
        let config = config.expect("a sound configuration");
        let this = Self { stack: stack.clone(), name, environment, config, logs };
        for arguments in [["migrate", "up"], ["topics", "apply"], ["schemas", "apply"]] {
            let mut command = this.command("biometric-bridge");
            let done = command.args(arguments).stdout(Stdio::null()).status();
            assert!(done.expect("the program runs").success(), "{arguments:?}");
        }
        this
    }

    /// Connects so many invented people, by way of Terra and by the HealthKit app.
    pub(crate) fn connect(&self, people: u64) {
        let connections = (0..people).map(bodies::person).flat_map(|one| bodies::connections(&one));
        let all: Vec<_> = connections.collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut register = PostgresRegister::new(self.config.postgres.clone(), "bench");
            for part in all.chunks(500) {
                let notes = Notes { connections: part.to_vec(), ..Notes::default() };
                register.note(&notes).await.expect("connections are noted");
            }
        });
    }

    fn command(&self, binary: &str) -> Command {
        let mut command = Command::new(self.stack.binaries.join(binary));
        command.envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Starts a role with ports of its own, as this slot.
    pub(crate) fn start(&self, role: &str, slot: &str) -> Process {
        let (door, admin) = (free_port(), free_port());
        let mut command = self.command("biometric-bridge");
        command.arg(role).env("BRIDGE__INGRESS__ADDRESS", format!("127.0.0.1:{door}"));
        command.env("BRIDGE__ADMIN__ADDRESS", format!("127.0.0.1:{admin}"));
        command.env("BRIDGE__PIPELINE__SLOT", slot);
        self.spawn(command, role, door, admin)
    }

    /// Starts `bare` on the same topic.
    pub(crate) fn start_bare(&self) -> Process {
        let door = free_port();
        let mut command = self.command("bare");
        let topic = format!("{}raw-webhooks", self.config.kafka.topic_prefix);
        command.args([format!("127.0.0.1:{door}").as_str(), self.stack.brokers(), topic.as_str()]);
        let process = self.spawn(command, "bare", door, door);
        process.until("bare listens", || TcpStream::connect(("127.0.0.1", door)).is_ok());
        process
    }

    fn spawn(&self, mut command: Command, name: &str, door: u16, admin: u16) -> Process {
        let path = self.logs.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(path).expect("a log");
        let begun = Stopwatch::start();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the program runs");
        Process { child, begun, door: format!("127.0.0.1:{door}"), admin }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what {} left is the evidence; logs: {}", self.name, self.logs.display());
            return;
        }
        topics::delete(&self.stack.kafka, |name| name.starts_with(&format!("{}.", self.name)));
        self.stack.psql(&format!("drop database if exists {} with (force)", self.name));
        if std::fs::remove_dir_all(&self.logs).is_err() {
            eprintln!("logs are left in {}", self.logs.display());
        }
    }
}

/// A running process; it is killed with its value, where it was not ended before.
pub(crate) struct Process {
    child: Child,
    /// Since it was started.
    pub(crate) begun: Stopwatch,
    /// Where it takes requests, `host:port`.
    pub(crate) door: String,
    admin: u16,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until this holds.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Stopwatch::start();
        while !holds() {
            assert!(begun.elapsed() < START, "not within {START:?}: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it says that it may have traffic; the time since its start, s.
    pub(crate) fn ready(&self) -> f64 {
        self.until("/ready says so", || page(self.admin, "/ready").is_some());
        self.begun.seconds()
    }

    /// Ends it in good order.
    pub(crate) fn end(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        assert!(asked.expect("kill runs").success(), "it can be asked to end");
        let begun = Stopwatch::start();
        while self.child.try_wait().expect("a child").is_none() && begun.elapsed() < START {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("process {} may be left", self.child.id());
        }
    }
}

/// A page of an admin listener, or nothing while it does not answer 200.
fn page(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}
