//! The topology as data: which step reads what, keeps what and writes what.
//!
//! [`describe`] prints it in the form of Kafka Streams' `Topology#describe`, for people who know that one. A golden
//! file holds the text (`tests/golden/topology.txt`), so a new edge is a visible change.

use std::fmt::{self, Display, Write};

use crate::model::contract::Topic;

/// A part of the topology that scales by itself: what Kafka connects, and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct SubTopology {
    /// The step that it is.
    pub name: &'static str,
    /// What a crash may do to its output.
    pub guarantee: &'static str,
    /// Its nodes, in the order of the journey.
    pub nodes: &'static [Node],
}

/// A node: its name, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Unique in its sub-topology.
    pub name: &'static str,
    /// What it is.
    pub what: What,
    /// The names of the nodes that come after it.
    pub to: &'static [&'static str],
}

/// What a node is.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Reads topics, in a consumer group of its own.
    Source(&'static [Topic]),
    /// Works on records, with these stores.
    Processor(&'static [&'static str]),
    /// Writes a topic, under this key.
    Sink(Topic, &'static str),
}

const fn source(name: &'static str, topics: &'static [Topic], to: &'static [&'static str]) -> Node {
    Node { name, what: What::Source(topics), to }
}

const fn processor(
    name: &'static str,
    stores: &'static [&'static str],
    to: &'static [&'static str],
) -> Node {
    Node { name, what: What::Processor(stores), to }
}

const fn sink(name: &'static str, topic: Topic, key: &'static str) -> Node {
    Node { name, what: What::Sink(topic, key), to: &[] }
}

/// The topology.
pub static TOPOLOGY: &[SubTopology] = &[
    SubTopology {
        name: "normalise",
        guarantee: "at least once; decide recognises what it has seen",
        nodes: &[
            source("raw", &[Topic::RawWebhooks], &["parse"]),
            source("documents", &[Topic::RawDocuments], &["parse"]),
            source("terra", &[Topic::RawTerra], &["parse"]),
            processor("parse", &[], &["connect", "dead-letters"]),
            processor("sweep", &["postgres.held", "postgres.connections"], &["parse"]),
            processor("connect", &["postgres.connections"], &["note", "records", "dead-letters"]),
            processor("note", &["postgres.hydrations", "postgres.held", "postgres.verdicts"], &[]),
            sink("records", Topic::NormalisedRecords, "our user"),
            sink("dead-letters", Topic::DeadLetters, "as the input"),
        ],
    },
    SubTopology {
        name: "decide",
        guarantee: "exactly once; Postgres decides, Kafka repeats what Postgres decided",
        nodes: &[
            source("records", &[Topic::NormalisedRecords], &["plan"]),
            processor("plan", &[], &["revise", "dead-letters"]),
            processor(
                "revise",
                &["postgres.revisions", "postgres.buckets", "postgres.waiting_removals"],
                &["score"],
            ),
            processor("score", &[], &["apply"]),
            processor(
                "apply",
                &["postgres.stream_progress", "postgres.decisions", "postgres.outbox"],
                &["events", "terra-events", "dead-letters", "show"],
            ),
            processor("show", &["redis.latest", "redis.timeseries"], &[]),
            sink("events", Topic::BiometricEvents, "user:device_type"),
            sink("terra-events", Topic::TerraBiometricEvents, "user:device_type"),
            sink("dead-letters", Topic::DeadLetters, "as the input"),
        ],
    },
];

/// The topology as text.
#[must_use]
pub fn describe() -> String {
    let mut out = String::from("Topologies:\n");
    for (number, part) in TOPOLOGY.iter().enumerate() {
        let written = part_of(&mut out, number, part);
        debug_assert!(written.is_ok(), "text can be written to memory");
    }
    out
}

fn part_of(out: &mut String, number: usize, part: &SubTopology) -> fmt::Result {
    writeln!(out, "   Sub-topology: {number} {} ({})", part.name, part.guarantee)?;
    for node in part.nodes {
        match node.what {
            What::Source(topics) => {
                writeln!(out, "    Source: {} (topics: [{}])", node.name, list(topics))?;
            }
            What::Processor(stores) => {
                writeln!(out, "    Processor: {} (stores: [{}])", node.name, list(stores))?;
            }
            What::Sink(topic, key) => {
                writeln!(out, "    Sink: {} (topic: {topic}, key: {key})", node.name)?;
            }
        }
        if !matches!(node.what, What::Sink(..)) {
            writeln!(out, "      --> {}", or_none(&list(node.to)))?;
        }
        let from: Vec<&str> = part
            .nodes
            .iter()
            .filter(|before| before.to.contains(&node.name))
            .map(|before| before.name)
            .collect();
        if !matches!(node.what, What::Source(_)) {
            writeln!(out, "      <-- {}", or_none(&list(&from)))?;
        }
    }
    writeln!(out)
}

fn list(names: &[impl Display]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_arrow_ends_at_a_node_and_every_name_is_one() {
        for part in TOPOLOGY {
            let names: BTreeSet<&str> = part.nodes.iter().map(|node| node.name).collect();
            assert_eq!(names.len(), part.nodes.len(), "{}", part.name);
            for node in part.nodes {
                assert!(node.to.iter().all(|to| names.contains(to)), "{}", node.name);
                let ends = matches!(node.what, What::Sink(..));
                assert!(!ends || node.to.is_empty(), "{} writes and is done", node.name);
            }
        }
    }

    #[test]
    fn a_topic_is_read_by_one_part_at_most_and_none_reads_what_it_writes() {
        let mut read = BTreeSet::new();
        for part in TOPOLOGY {
            for node in part.nodes {
                let What::Source(topics) = node.what else { continue };
                for topic in topics {
                    assert!(read.insert(*topic), "{topic} has one reader");
                    let writes =
                        |node: &Node| matches!(node.what, What::Sink(to, _) if to == *topic);
                    assert!(!part.nodes.iter().any(writes), "{topic}");
                }
            }
        }
    }
}
