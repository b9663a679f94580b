//! `topics/` says what `contract.rs` says, and the binary carries every file of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use biometric_bridge::kafka::admin::{Declared, declared};
use biometric_bridge::model::contract::Topic;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("topics")
}

fn of(topic: Topic) -> Declared {
    declared().unwrap().into_iter().find(|(known, _)| *known == topic).unwrap().1
}

#[test]
fn each_topic_has_one_file_and_each_file_a_topic() {
    let files: BTreeSet<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected: BTreeSet<String> =
        Topic::ALL.iter().map(|topic| format!("{}.toml", topic.name())).collect();
    expected.extend(["_defaults.toml".to_owned(), "README.md".to_owned()]);
    assert_eq!(files, expected);
}

#[test]
fn the_binary_carries_the_files_as_they_are() {
    for (topic, declared) in declared().unwrap() {
        let text = std::fs::read_to_string(directory().join(format!("{}.toml", topic.name())));
        let file: toml::Table = text.unwrap().parse().unwrap();
        assert_eq!(file["name"].as_str(), Some(topic.name()));
        assert_eq!(file["partitions"].as_integer(), Some(declared.partitions.into()), "{topic:?}");
    }
}

/// The table of `design.md` §4.
#[test]
fn partitions_and_retention_are_the_designs() {
    let table = [
        (Topic::RawWebhooks, 24, -1),
        (Topic::RawTerra, 24, -1),
        (Topic::RawDocuments, 24, -1),
        (Topic::NormalisedRecords, 24, -1),
        (Topic::BiometricEvents, 12, 30 * 24),
        (Topic::TerraBiometricEvents, 10, 7 * 24),
        (Topic::DeadLetters, 6, 90 * 24),
    ];
    assert_eq!(table.map(|(topic, ..)| topic), Topic::ALL);
    for (topic, partitions, hours) in table {
        let declared = of(topic);
        assert_eq!(
            (declared.partitions, declared.retention_hours),
            (partitions, hours),
            "{topic:?}"
        );
        assert_eq!(declared.max_message_bytes, 16 * 1024 * 1024);
        assert_eq!(declared.cleanup, "delete", "each revision of an event is an event");
    }
}

#[test]
fn only_the_designs_writers_write() {
    let table: [(Topic, &[&str]); 7] = [
        (Topic::RawWebhooks, &["ingress"]),
        (Topic::RawTerra, &["terra"]),
        (Topic::RawDocuments, &["hydrator"]),
        (Topic::NormalisedRecords, &["normalise", "replay"]),
        (Topic::BiometricEvents, &["decide"]),
        (Topic::TerraBiometricEvents, &["decide"]),
        (Topic::DeadLetters, &["normalise", "decide", "hydrator"]),
    ];
    for (topic, writers) in table {
        assert_eq!(of(topic).writers, writers, "{topic:?}");
    }
}

#[test]
fn avro_topics_name_their_own_subject() {
    for (topic, declared) in declared().unwrap() {
        let expected = match topic {
            Topic::NormalisedRecords | Topic::BiometricEvents | Topic::TerraBiometricEvents => {
                format!("avro:{}-value", topic.name())
            }
            Topic::RawWebhooks | Topic::RawTerra | Topic::RawDocuments | Topic::DeadLetters => {
                "bytes".to_owned()
            }
        };
        assert_eq!(declared.value, expected);
    }
}

#[test]
fn the_readme_explains_every_key() {
    let readme = std::fs::read_to_string(directory().join("README.md")).unwrap();
    for topic in Topic::ALL {
        let text = std::fs::read_to_string(directory().join(format!("{}.toml", topic.name())));
        let file: toml::Table = text.unwrap().parse().unwrap();
        for key in file.keys() {
            assert!(readme.contains(&format!("`{key}`")), "{key}");
        }
    }
}
