//! An ingress and a pipeline as two processes, and the traffic against them.

use std::process::Stdio;
use std::time::Duration;

use crate::process::{Deployment, Process, free_port, text};

/// A deployment with an ingress and a pipeline on ports of their own.
pub(crate) struct Pair {
    /// The deployment.
    pub(crate) deployment: Deployment,
    /// The door.
    pub(crate) ingress: u16,
    /// Its admin listener.
    pub(crate) ingress_admin: u16,
    /// The first pipeline's.
    pub(crate) pipeline_admin: u16,
}

impl Pair {
    /// One with this group protocol.
    pub(crate) fn new(label: &str, protocol: &str) -> Self {
        let mut deployment = Deployment::new(label);
        deployment.set("KAFKA__GROUP_PROTOCOL", protocol);
        Self {
            deployment,
            ingress: free_port(),
            ingress_admin: free_port(),
            pipeline_admin: free_port(),
        }
    }

    /// Where the ledger of its traffic is.
    pub(crate) fn ledger(&self) -> String {
        self.deployment.dir.join("ledger.jsonl").display().to_string()
    }

    /// Starts the ingress.
    pub(crate) fn start_ingress(&self) -> Process {
        let more = [
            ("INGRESS__ADDRESS", format!("127.0.0.1:{}", self.ingress)),
            ("ADMIN__ADDRESS", format!("127.0.0.1:{}", self.ingress_admin)),
        ];
        self.deployment.spawn("ingress", "ingress", &more)
    }

    /// Starts a pipeline under this slot's name.
    pub(crate) fn start_pipeline(&self, slot: &str, admin: u16) -> Process {
        let more =
            [("PIPELINE__SLOT", slot.to_owned()), ("ADMIN__ADDRESS", format!("127.0.0.1:{admin}"))];
        self.deployment.spawn("pipeline", slot, &more)
    }

    /// Starts traffic that ends when it is asked to.
    pub(crate) fn start_traffic(&self, rate: &str, ledger: &str) -> Process {
        let url = format!("http://127.0.0.1:{}", self.ingress);
        let mut command = self.deployment.command(&[
            "simulate",
            "traffic",
            "--url",
            &url,
            "--rate",
            rate,
            "--seconds",
            "0",
            "--users",
            "60",
            "--duplicates",
            "20",
            "--malformed",
            "5",
            "--resend",
            "--json",
            "--ledger",
            ledger,
        ]);
        let out = std::fs::File::create(self.deployment.dir.join("traffic.json")).expect("a file");
        let log = std::fs::File::create(self.deployment.dir.join("traffic.log")).expect("a file");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn();
        Process::of(child.expect("the binary runs"))
    }

    /// Ends the traffic, waits until the pipeline is done, audits.
    pub(crate) fn settle_and_audit(&self, traffic: Process, ledger: &str) {
        assert_eq!(traffic.end("INT", Duration::from_secs(150)), Some(0), "traffic ends cleanly");
        let done = self.deployment.run(&["audit", "--ledger", ledger, "--wait", "120", "--json"]);
        println!("{}", text(&done));
        assert!(done.status.success(), "the audit finds something");
    }
}
