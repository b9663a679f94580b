//! `import`: files of a person's history, through a real door, and what must not come of them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use biometric_bridge::model::contract::header;
use biometric_bridge::model::record::{Headers, OutRecord};
use biometric_bridge::vendors::{self, Raw, Vendor as _, VendorRecord, What, healthkit};
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use biometric_bridge::ingress::Settings;

use crate::door::{KEY, Mood, World, settings, world};

const CONNECTION: &str = "3f1c2b7a-0d4e-5a6b-8c9d-112233445566";

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE HealthData [
<!-- HealthKit Export Version: 13 -->
<!ELEMENT HealthData (ExportDate,Me,(Record|Correlation|Workout|ActivitySummary)*)>
<!ATTLIST HealthData
  locale CDATA #REQUIRED
>
<!ELEMENT Record ((MetadataEntry|HeartRateVariabilityMetadataList)*)>
]>
<HealthData locale="de_DE">
 <ExportDate value="2026-03-29 07:00:00 +0200"/>
 <Me HKCharacteristicTypeIdentifierDateOfBirth="1990-01-01" HKCharacteristicTypeIdentifierBloodType="canary"/>
"#;

const BODY: &str = r#" <Record type="HKQuantityTypeIdentifierHeartRate" sourceName="Canary&#8217;s Apple&#160;Watch" sourceVersion="8.0" device="&lt;&lt;HKDevice: 0x2834a1b&gt;, name:Apple Watch, manufacturer:Apple Inc., model:Watch, hardware:Watch6,2, software:8.0&gt;" unit="count/min" creationDate="2026-03-28 06:42:00 +0200" startDate="2026-03-28 06:41:12 +0200" endDate="2026-03-28 06:41:12 +0200" value="61">
  <MetadataEntry key="HKMetadataKeyHeartRateMotionContext" value="0"/>
 </Record>
 <Record type="HKQuantityTypeIdentifierOxygenSaturation" sourceName="Oura" unit="%" startDate="2026-03-28 06:41:12 +0200" endDate="2026-03-28 06:41:12 +0200" value="0.97">
  <MetadataEntry key="HKWasUserEntered" value="1"/>
 </Record>
 <Record type="HKCategoryTypeIdentifierSleepAnalysis" sourceName="Canary&amp;Co Watch" startDate="2026-03-27 23:10:00 +0200" endDate="2026-03-28 06:30:00 +0200" value="HKCategoryValueSleepAnalysisAsleepCore">
  <MetadataEntry key="HKTimeZone" value="America/New_York"/>
 </Record>
 <Correlation type="HKCorrelationTypeIdentifierBloodPressure" startDate="2026-03-28 08:00:00 +0200" endDate="2026-03-28 08:00:00 +0200">
  <Record type="HKQuantityTypeIdentifierBloodPressureSystolic" unit="mmHg" startDate="2026-03-28 08:00:00 +0200" endDate="2026-03-28 08:00:00 +0200" value="121"/>
 </Correlation>
 <Record type="HKQuantityTypeIdentifierBloodPressureSystolic" unit="mmHg" startDate="2026-03-28 08:00:00 +0200" endDate="2026-03-28 08:00:00 +0200" value="121"/>
 <Record type="HKQuantityTypeIdentifierStepCount" unit="count" startDate="2026-03-28 09:00:00 +0200" endDate="2026-03-28 09:10:00 +0200" value="1,5"/>
 <Workout workoutActivityType="HKWorkoutActivityTypeRunning" duration="31" durationUnit="min" sourceName="Canary’s Watch" startDate="2026-03-28 18:00:00 +0200" endDate="2026-03-28 18:31:00 +0200">
  <WorkoutStatistics type="HKQuantityTypeIdentifierActiveEnergyBurned" startDate="2026-03-28 18:00:00 +0200" endDate="2026-03-28 18:31:00 +0200" sum="412" unit="Cal"/>
  <WorkoutStatistics type="HKQuantityTypeIdentifierHeartRate" startDate="2026-03-28 18:00:00 +0200" endDate="2026-03-28 18:31:00 +0200" average="148.5" minimum="96" maximum="181" unit="count/min"/>
  <WorkoutRoute sourceName="Canary’s Watch"><FileReference path="/workout-routes/route.gpx"/></WorkoutRoute>
 </Workout>
 <Workout workoutActivityType="HKWorkoutActivityTypeCycling" totalDistance="12" totalDistanceUnit="km" totalEnergyBurned="300" totalEnergyBurnedUnit="kcal" startDate="2015-03-28 18:00:00 +0200" endDate="2015-03-28 18:31:00 +0200"/>
 <ActivitySummary dateComponents="2026-03-28" activeEnergyBurned="500"/>
</HealthData>
"#;

fn export() -> String {
    format!("{HEAD}{BODY}")
}

/// A file of one test, gone at its end.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str, content: &[u8]) -> Self {
        let path =
            std::env::temp_dir().join(format!("bridge-import-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("written");
        Self(path)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("it was there");
    }
}

/// A door with time for large bodies on a busy machine.
async fn door() -> World {
    world(Settings { body_ms_max: 30_000, ..settings() }).await
}

fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, content) in entries {
        zip.start_file(*name, options).expect("an entry");
        zip.write_all(content).expect("memory");
    }
    zip.finish().expect("a zip").into_inner()
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biometric-bridge"));
    command.arg("import").args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn dry(file: &Kept, more: &[&str]) -> Output {
    let path = file.0.to_str().expect("UTF-8");
    let arguments: Vec<_> = ["--dry-run", path].iter().chain(more).copied().collect();
    program(&arguments).output().expect("it starts")
}

/// Runs the command against a door and gives what it printed.
async fn sent(world: &World, name: &str, content: &[u8], more: &[&str]) -> (i32, Value, String) {
    let file = Kept::new(name, content);
    let token = Kept::new(
        &format!("{name}.token"),
        healthkit::token(KEY.as_bytes(), CONNECTION).as_bytes(),
    );
    let url = format!("http://{}", world.at);
    let more: Vec<String> = more.iter().map(|one| (*one).to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        let paths = [&token.0, &file.0].map(|path| path.to_str().expect("UTF-8").to_owned());
        let mut command = program(&["--json", "--url", &url, "--token-file", &paths[0], &paths[1]]);
        command.args(more).output().expect("it starts")
    });
    let output = output.await.expect("it ended");
    let said = serde_json::from_slice(&output.stdout).expect("JSON");
    let complaints = String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.code().expect("a code"), said, complaints)
}

/// What the vendor's file makes of the pushes that the door kept.
fn read(records: &[OutRecord]) -> Vec<vendors::Item> {
    let read = |record: &OutRecord| {
        let body = record.value.as_ref().expect("a body");
        let received_at = 1_774_767_600_000_000;
        let raw = Raw { headers: &record.headers, body, received_at };
        healthkit::VENDOR.parse(&raw).expect("each piece is a whole push")
    };
    records.iter().flat_map(read).collect()
}

fn made(items: &[vendors::Item]) -> Vec<&VendorRecord> {
    let records = items.iter().filter_map(|item| match &item.what {
        What::Record(record) => Some(record.as_ref()),
        _ => None,
    });
    records.collect()
}

#[tokio::test]
async fn an_export_comes_through_the_door_as_pushes() {
    let world = door().await;
    let (code, said, complaints) = sent(&world, "whole.xml", export().as_bytes(), &[]).await;
    assert_eq!((code, complaints.as_str()), (0, ""), "{said}");
    assert_eq!((&said["samples"], &said["complete"]), (&json!(7), &json!(true)));
    assert_eq!(
        (&said["first_day"], &said["last_day"]),
        (&json!("2015-03-28"), &json!("2026-03-28"))
    );
    assert_eq!(
        said["not_read"],
        json!({"ActivitySummary": 1, "Correlation": 1, "ExportDate": 1, "Me": 1})
    );
    let records = world.log.records();
    let body = records[0].value.as_ref().expect("a body");
    assert!(
        !String::from_utf8_lossy(body).to_lowercase().contains("canary"),
        "names stay in the file"
    );
    assert_eq!(records[0].headers.text(header::SIGNATURE_SCHEME), Some("healthkit-bearer"));
    let items = read(&records);
    let bad: Vec<_> = items.iter().filter(|item| matches!(item.what, What::Bad(_))).collect();
    assert_eq!(bad.len(), 1, "a decimal comma is no number");
    let found: Vec<_> = made(&items)
        .iter()
        .map(|record| {
            let content = &record.content;
            let offsets = (content.start_offset_s, content.offset_provenance.as_str());
            (record.record_type.as_str(), record.record_id.as_str(), offsets)
        })
        .collect();
    let phones = (Some(7200), "inferred");
    assert_eq!(
        found,
        [
            ("samples.heart_rate", "2026-03-28||Watch6,2", phones),
            ("samples.spo2", "2026-03-28|oura|", phones),
            ("samples.sleep_stage", "2026-03-27||Watch", (Some(-14_400), "device")),
            ("samples.blood_pressure_systolic", "2026-03-28||", phones),
            ("activity", "1774713600000000||Watch", phones),
            ("activity", "1427558400000000||", phones),
        ]
    );
    let run = &made(&items)[4].content;
    let values: Vec<_> = run.readings.iter().map(|reading| reading.value).collect();
    assert_eq!(values, [1860.0, 412.0, 148.5, 96.0, 181.0].map(Some));
    let ride = &made(&items)[5].content;
    assert_eq!(ride.readings.len(), 2, "a ride's distance is not walked");
}

#[tokio::test]
async fn a_zip_is_its_export_and_sending_again_brings_nothing_new() {
    let world = door().await;
    let export = export();
    let entries: [(&str, &[u8]); 4] = [
        ("apple_health_export/export_cda.xml", b"<ClinicalDocument/>"),
        ("apple_health_export/workout-routes/route.gpx", b"<gpx/>"),
        ("../../etc/export.xml", b"<HealthData/>"),
        ("apple_health_export/export.xml", export.as_bytes()),
    ];
    assert_eq!(sent(&world, "one.zip", &zip_of(&entries), &[]).await.0, 0);
    let mut named = entries;
    named[3].0 = "apple_health_export/Exportieren.xml";
    assert_eq!(sent(&world, "two.zip", &zip_of(&named), &[]).await.0, 0, "in the phone's language");
    assert_eq!(sent(&world, "three.xml", export.as_bytes(), &[]).await.0, 0);
    let records = world.log.records();
    assert_eq!(records.len(), 3);
    let one = read(&records[..1]);
    assert_eq!(read(&records[1..2]), one);
    assert_eq!(read(&records[2..]), one, "the same ids in the same buckets");
}

/// Each is refused where it stands, and what stood before it is as good as a shorter file.
#[test]
fn an_entity_is_refused_wherever_it_stands() {
    let record = r#"<Record type="HKQuantityTypeIdentifierStepCount" unit="count" startDate="2026-03-28 09:00:00 +0200" endDate="2026-03-28 09:10:00 +0200" value="1"/>"#;
    let around = |dtd: &str, content: &str| {
        format!("<?xml version=\"1.0\"?>\n{dtd}\n<HealthData>\n{record}\n{content}\n</HealthData>")
    };
    let entity = "a reference to an entity, or to no character (line 5";
    let billion = format!(
        "<!DOCTYPE lolz [\n<!ENTITY lol \"lol\">{}]>",
        (1..9).map(|at| format!("<!ENTITY lol{at} \"&lol;&lol;&lol;\">")).collect::<String>()
    );
    for (name, file, why, samples) in [
        (
            "file",
            around("<!DOCTYPE HealthData [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>", "&x;"),
            "a DTD that declares an entity (line 2",
            0,
        ),
        ("laughs", around(&billion, "&lol8;"), "a DTD that declares an entity (line 3", 0),
        (
            "external",
            around("<!DOCTYPE HealthData SYSTEM \"http://127.0.0.1:1/x.dtd\">", ""),
            "an external DTD (line 2",
            0,
        ),
        (
            "public",
            around("<!DOCTYPE HealthData PUBLIC \"x\" \"http://127.0.0.1:1/x.dtd\">", ""),
            "an external DTD (line 2",
            0,
        ),
        ("text", around("", "&x;"), entity, 1),
        ("attribute", around("", "<Record type=\"&x;\"/>"), entity, 1),
        ("unread", around("", "<Me a=\"&x;\"/>"), entity, 1),
        ("deep", around("", "<Correlation><Record value=\"&x;\"/></Correlation>"), entity, 1),
        ("nul", around("", "<Record type=\"&#0;\"/>"), entity, 1),
        (
            "encoding",
            export().replace("UTF-8", "UTF-16"),
            "an encoding other than UTF-8 (line 1",
            0,
        ),
        ("other", "<html><body/></html>".to_owned(), "not an export of Apple Health (line 1", 0),
        ("cut", export().replace("</HealthData>", ""), "the file ends early", 7),
        ("tags", around("", "<Record></Workout>"), "not well-formed XML (line 5", 1),
        ("empty", String::new(), "not an export of Apple Health", 0),
        (
            "long",
            around("", &format!("<!--{}-->", "x".repeat(2 * 1024 * 1024))),
            "more in one place than is read",
            1,
        ),
    ] {
        let output = dry(&Kept::new(&format!("{name}.xml"), file.as_bytes()), &["--json"]);
        let complaints = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(complaints.contains(why), "{name}: {complaints}");
        assert_eq!(output.status.code(), Some(1), "{name}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            (&said["samples"], &said["complete"]),
            (&json!(samples), &json!(false)),
            "{name}"
        );
    }
    let fine = around("", "<Record type=\"a&amp;b&#65;\"/>&lt;&#x41;");
    assert_eq!(dry(&Kept::new("fine.xml", fine.as_bytes()), &[]).status.code(), Some(0));
}

#[test]
fn a_zip_that_is_no_export_is_refused() {
    let bomb = vec![b' '; 30 * 1024 * 1024];
    let mut lies = zip_of(&[("apple_health_export/export.xml", export().as_bytes())]);
    // The central directory's word on the unpacked size, three quarters of what comes out.
    let at = lies.windows(4).position(|bytes| bytes == b"PK\x01\x02").expect("a directory");
    let size = u32::try_from(export().len() * 3 / 4).expect("small").to_le_bytes();
    lies[at + 24..at + 28].copy_from_slice(&size);
    let two: [(&str, &[u8]); 2] =
        [("apple_health_export/a.xml", b"<a/>"), ("apple_health_export/b.xml", b"<b/>")];
    for (name, file, why) in [
        (
            "bomb",
            zip_of(&[("apple_health_export/export.xml", &bomb)]),
            "far more than an export does",
        ),
        ("lies", lies, ""),
        ("two", zip_of(&two), "a zip without one apple_health_export/export.xml"),
        ("else", zip_of(&[("export.xml", b"<HealthData/>")]), "a zip without one"),
        ("json", zip_of(&[("apple_health_export/export.xml", b"{}")]), "no XML"),
        ("broken", b"PK\x03\x04 and nothing more".to_vec(), "a zip that cannot be read"),
        ("nothing", b"hello".to_vec(), "not an export of Apple Health, a zip of one"),
    ] {
        let output = dry(&Kept::new(&format!("{name}.zip"), &file), &[]);
        let complaints = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{name}: {complaints}");
        assert!(
            complaints.starts_with("the file: ") && complaints.contains(why),
            "{name}: {complaints}"
        );
    }
}

#[tokio::test]
async fn a_json_goes_through_in_its_own_shape() {
    let world = door().await;
    for name in ["exported", "exported_sleep", "exported_units", "push", "workouts"] {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/healthkit");
        let file = std::fs::read(root.join(format!("{name}.json"))).expect("a fixture");
        let before = world.log.records().len();
        let (code, said, complaints) = sent(&world, &format!("{name}.json"), &file, &[]).await;
        assert_eq!(code, 0, "{name}: {said} {complaints}");
        let records = world.log.records();
        let ours = read(&records[before..]);
        let headers = Headers::new().with(header::VENDOR_USER, CONNECTION);
        let plain = OutRecord { value: Some(file.into()), headers, ..records[before].clone() };
        assert_eq!(ours, read(&[plain]), "{name}: nothing is lost on the way");
    }
    for (name, file, why) in [
        ("cut.json", r#"{"data":{"records":[{"type":"a"}"#, "the file ends early"),
        ("twice.json", r#"{"data":{"records":[],"records":[]}}"#, "a key stands twice in it"),
        ("other.json", r#"{"data":{"x":[]}}"#, "there are no arrays of samples"),
        ("list.json", r#"{"data":[]}"#, "there are no arrays of samples"),
        ("behind.json", r#"{"data":{"records":[]}} {}"#, "not a JSON document"),
    ] {
        let output = dry(&Kept::new(name, file.as_bytes()), &[]);
        let complaints = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(complaints.contains(why), "{name}: {complaints}");
        assert_eq!(output.status.code(), Some(1), "{name}");
    }
}

/// Pieces are whole pushes within their bounds, none would pass for a bomb, and an import goes on behind the last one
/// that was accepted.
#[tokio::test]
async fn a_long_file_comes_in_pieces_and_can_go_on() {
    let world = door().await;
    let mut file = HEAD.to_owned();
    for at in 0..90_000_u32 {
        let (hour, minute, second) = (at / 3600 % 24, at / 60 % 60, at % 60);
        let day = 1 + at / 86_400;
        file.push_str(&format!(
            "<Record type=\"HKQuantityTypeIdentifierHeartRate\" unit=\"count/min\" value=\"61\" startDate=\"2026-03-{day:02} \
             {hour:02}:{minute:02}:{second:02} +0200\" endDate=\"2026-03-{day:02} {hour:02}:{minute:02}:{second:02} +0200\"/>\n"
        ));
    }
    file.push_str("</HealthData>");
    let (code, said, complaints) = sent(&world, "pieces.xml", file.as_bytes(), &[]).await;
    assert_eq!(code, 0, "{complaints}");
    let pieces = said["pieces"].as_u64().expect("a number");
    assert!(pieces >= 2, "{said}");
    let records = world.log.records();
    assert_eq!(records.len(), usize::try_from(pieces).expect("few"));
    let samples: usize =
        made(&read(&records)).iter().map(|record| record.content.readings.len()).sum();
    assert_eq!(samples, 90_000);
    for record in &records {
        assert!(record.value.as_ref().is_some_and(|body| body.len() <= 8 * 1024 * 1024));
    }

    world.log.is(Mood::IsDown);
    let (code, said, complaints) =
        sent(&world, "away.xml", file.as_bytes(), &["--wait", "0"]).await;
    assert_eq!((code, &said["accepted"]["pieces"]), (1, &json!(0)), "{complaints}");
    assert!(complaints.contains("--skip 0"), "{complaints}");
    world.log.is(Mood::Acks);
    let before = world.log.records().len();
    let (code, said, _) = sent(&world, "on.xml", file.as_bytes(), &["--skip", "1"]).await;
    assert_eq!((code, &said["accepted"]["skipped"]), (0, &json!(1)));
    let behind = &world.log.records()[before..];
    assert_eq!(read(behind), read(&records[1..]), "the same pieces of the same file");
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let world = door().await;
    let file = Kept::new("refused.xml", export().as_bytes());
    let other =
        Kept::new("other.token", healthkit::token(b"another-test-key", CONNECTION).as_bytes());
    let none = Kept::new("none.token", b"canary");
    let url = format!("http://{}", world.at);
    let path = |kept: &Kept| kept.0.to_str().expect("UTF-8").to_owned();
    let (file, other, none) = (path(&file), path(&other), path(&none));
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--url", &url, "--token-file", &other, &file], 1, "does not know this token (401)"),
        (&["--url", &url, "--token-file", &none, &file], 64, "no token of"),
        (&["--url", &url, "--token-file", "absent", &file], 64, "cannot be read"),
        (&["--url", &url, &file], 64, "--token-file: needed"),
        (&["--url", "https://x", "--token-file", &other, &file], 64, "--url: http://HOST:PORT"),
        (&["--dry-run", "absent.xml"], 1, "open the file"),
    ];
    for (arguments, code, why) in cases {
        let arguments: Vec<_> = arguments.iter().map(|one| (*one).to_owned()).collect();
        let output = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            program(&arguments).output().expect("it starts")
        });
        let output = output.await.expect("it ended");
        let complaints = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{complaints}");
        assert!(complaints.contains(why), "{complaints}");
        assert!(!complaints.contains("canary"), "{complaints}");
    }
    assert!(world.log.records().is_empty());
}

#[test]
fn a_dry_run_says_what_would_be_sent() {
    let output = dry(&Kept::new("dry.xml", export().as_bytes()), &[]);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    for line in [
        "           1 HKQuantityTypeIdentifierHeartRate\n",
        "           7 samples in 1 pieces, 2015-03-28 to 2026-03-28\n",
        "           1 Correlation, not imported\n",
        "nothing was sent\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(output.status.code(), Some(0));
    let hostile = export().replace("HKQuantityTypeIdentifierStepCount", "\u{1b}[2Jcanary jane");
    let said = dry(&Kept::new("hostile.xml", hostile.as_bytes()), &[]).stdout;
    let said = String::from_utf8(said).expect("UTF-8");
    assert!(said.contains("           1 other\n") && !said.contains("canary"), "{said}");
}

/// However long the file is, the process is as large as for a short one: what grows is the file on the disk.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_file() {
    let record = "<Record type=\"HKQuantityTypeIdentifierHeartRate\" sourceName=\"Watch\" unit=\"count/min\" value=\"61\" \
                  startDate=\"2026-03-28 06:41:12 +0200\" endDate=\"2026-03-28 06:41:12 +0200\"/>\n";
    let peak = |name: &str, megabytes: usize| {
        let mut file = HEAD.as_bytes().to_vec();
        file.extend(record.repeat(megabytes * 1024 * 1024 / record.len()).as_bytes());
        file.extend(b"</HealthData>");
        let file = Kept::new(name, &file);
        let mut command = program(&["--dry-run", file.0.to_str().expect("UTF-8")]);
        let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait().expect("a child").is_none() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            peak = peak.max(now.unwrap_or(0));
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        peak
    };
    // Ten megabytes fill more than one piece already.
    let (short, long): (u64, u64) = (peak("short.xml", 10), peak("tall.xml", 26));
    assert!(short > 0 && long < short + 8 * 1024, "{short} kB for 10 MB, {long} kB for 26 MB");
    assert!(long < 128 * 1024, "{long} kB");
}
