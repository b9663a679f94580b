//! Where the time goes: `perf` on a role under load, drawn as a flame graph.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Scale;
use crate::deployment::{Deployment, Process, Stack};
use crate::door::nights;
use crate::flow::{backlog, wait};
use crate::load::{Load, Pace};
use crate::topics::{Reader, lay};

/// Samples a second of each thread that runs: no divisor of anything that ticks.
const RATE: &str = "499";

/// Profiles a role; the path of the picture.
pub(crate) fn profile(
    stack: &Stack,
    scale: &Scale,
    what: &str,
    flame: &Path,
    directory: &Path,
) -> PathBuf {
    std::fs::create_dir_all(directory).expect("a directory");
    let deployment = Deployment::new(stack, "profile");
    let samples = directory.join(format!("{what}.perf"));
    match what {
        "ingress" => {
            let ingress = deployment.start("ingress", "a");
            ingress.ready();
            let requests = nights(scale.people, 0..4096);
            let load = Load {
                address: &ingress.door,
                connections: 50,
                pace: Pace::Closed,
                requests: &requests,
                lead_in: scale.warm,
                window: scale.window * 2,
                once: false,
            };
            let mut perf = None;
            load.run(|| perf = Some(record(&ingress, &samples)), || {});
            ingress.end();
            ended(perf);
        }
        _ => {
            deployment.connect(scale.people);
            let records = backlog(scale);
            let reader = Reader::start(&deployment.config.kafka, false);
            let pipeline = deployment.start("pipeline", "a");
            // Only threads that are there are sampled, so the work comes when all are and perf looks.
            pipeline.ready();
            let perf = record(&pipeline, &samples);
            std::thread::sleep(scale.rest);
            lay(&deployment.config.kafka, &records);
            wait("every record is an event", || reader.seen.count() >= scale.backlog);
            pipeline.end();
            ended(Some(perf));
        }
    }
    draw(what, &samples, flame, directory)
}

/// Samples a process until it ends.
fn record(process: &Process, samples: &Path) -> std::process::Child {
    Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", RATE, "--call-graph", "fp", "-p"])
        .arg(process.pid().to_string())
        .arg("-o")
        .arg(samples)
        .stdin(Stdio::null())
        .spawn()
        .expect("perf runs")
}

fn ended(perf: Option<std::process::Child>) {
    let done = perf.expect("it was started").wait().expect("perf ends");
    assert!(done.success(), "perf has recorded");
}

fn draw(what: &str, samples: &Path, flame: &Path, directory: &Path) -> PathBuf {
    let picture = directory.join(format!("{what}.svg"));
    let mut script = Command::new("perf")
        .args(["script", "--no-inline", "-F", "comm,pid,tid,time,event,ip,sym,dso", "-i"])
        .arg(samples)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("perf runs");
    let drawn = Command::new(flame)
        .arg(format!("{what}: CPU"))
        .stdin(script.stdout.take().expect("a pipe"))
        .stdout(File::create(&picture).expect("a file"))
        .status();
    assert!(script.wait().expect("perf ends").success(), "the samples can be read");
    assert!(drawn.expect("it draws").success(), "a flame graph is drawn");
    picture
}
