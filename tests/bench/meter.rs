//! What processes cost: processor time and memory, from `/proc`, and who listens at a port.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;

/// The kernel shows processor time in hundredths of a second, whatever its own tick is.
const TICKS_A_SECOND: f64 = 100.0;

/// A process' own numbers.
struct Stat {
    /// User and system time of all its threads, ended ones included, s.
    cpu: f64,
    /// The same of its children that have ended and were waited for, s.
    children: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold blanks.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Stat {
        cpu: (ticks(11)? + ticks(12)?) / TICKS_A_SECOND,
        children: (ticks(13)? + ticks(14)?) / TICKS_A_SECOND,
    })
}

/// Memory of a process, MiB: what is resident now, and the most it ever was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

pub(crate) fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
    };
    Memory { now: mib("VmRSS:").unwrap_or(0.0), peak: mib("VmHWM:").unwrap_or(0.0) }
}

/// The load averages, as the kernel prints them.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The process that listens at this port of this machine: the oldest, where children have inherited the socket.
pub(crate) fn listener(port: u16) -> Option<u32> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let here = fields.get(1).and_then(|address| address.rsplit_once(':'));
            let listens = fields.get(3) == Some(&"0A");
            if listens && here.is_some_and(|(_, at)| u16::from_str_radix(at, 16) == Ok(port)) {
                inodes.extend(fields.get(9).map(|inode| format!("socket:[{inode}]")));
            }
        }
    }
    let holds = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
    };
    let entries = fs::read_dir("/proc").ok()?.flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(holds).min()
}

/// Processor time by name of process, s.
pub(crate) type Cpu = BTreeMap<String, f64>;

/// What was spent between two readings, s.
pub(crate) fn spent(before: &Cpu, after: &Cpu) -> Cpu {
    let one = |(name, end): (&String, &f64)| {
        (name.clone(), end - before.get(name).copied().unwrap_or(0.0))
    };
    after.iter().map(one).collect()
}

/// The processes that are accounted for.
pub(crate) struct Meter {
    single: Vec<(String, u32)>,
    postmaster: Option<u32>,
    /// How the titles of our databases' backends begin.
    backend: String,
    /// Those backends by pid as they were last seen: what has ended stays counted.
    backends: RefCell<HashMap<u32, f64>>,
}

impl Meter {
    /// The stack's processes and this one.
    pub(crate) fn new(broker: u16, postgres: u16, redis: u16, databases: &str) -> Self {
        let mut single = vec![("load".to_owned(), std::process::id())];
        for (name, port) in [("broker", broker), ("redis", redis)] {
            single.extend(listener(port).map(|pid| (name.to_owned(), pid)));
        }
        Self {
            single,
            postmaster: listener(postgres),
            backend: format!("postgres: bridge {databases}"),
            backends: RefCell::default(),
        }
    }

    /// This, and processes of ours.
    pub(crate) fn with(&self, ours: &[(&str, u32)]) -> Self {
        let ours = ours.iter().map(|(name, pid)| ((*name).to_owned(), *pid));
        Self {
            single: self.single.iter().cloned().chain(ours).collect(),
            postmaster: self.postmaster,
            backend: self.backend.clone(),
            backends: RefCell::default(),
        }
    }

    /// Processor time up to now. `postgres` is the backends of this run's databases, `postgres_rest` everything else
    /// of the cluster: its writers, the registry's backends, whoever else uses it.
    pub(crate) fn read(&self) -> Cpu {
        let mut cpu = Cpu::new();
        for (name, pid) in &self.single {
            *cpu.entry(name.clone()).or_default() += stat(*pid).map_or(0.0, |stat| stat.cpu);
        }
        if let Some((all, ours)) = self.postgres() {
            cpu.insert("postgres".to_owned(), ours);
            cpu.insert("postgres_rest".to_owned(), all - ours);
        }
        cpu
    }

    fn postgres(&self) -> Option<(f64, f64)> {
        let postmaster = self.postmaster?;
        let own = stat(postmaster)?;
        let list = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = fs::read_to_string(list).ok()?;
        let mut all = own.cpu + own.children;
        let mut backends = self.backends.borrow_mut();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()) {
            let Some(child) = stat(pid) else { continue };
            all += child.cpu;
            let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&title).starts_with(&self.backend) {
                backends.insert(pid, child.cpu);
            }
        }
        Some((all, backends.values().sum()))
    }
}
