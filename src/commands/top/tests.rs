//! From pages as they were recorded to what a person sees of them.

use std::time::Duration;

use super::draw::{self, Block, Row};
use super::figures::{Count, Figures};
use super::page::Page;
use super::seen::{Answer, At, Ready, Seen};

/// 2026-03-29T07:00:00Z.
const BEGUN_US: i64 = 1_774_767_600_000_000;

const INGRESS: &str = include_str!("../../../tests/fixtures/top/ingress.prom");
const INGRESS_LATER: &str = include_str!("../../../tests/fixtures/top/ingress_later.prom");
const PIPELINE: &str = include_str!("../../../tests/fixtures/top/pipeline.prom");
const RESTARTED: &str = include_str!("../../../tests/fixtures/top/pipeline_restarted.prom");

fn at(second: u64) -> At {
    let us = BEGUN_US + i64::try_from(second).expect("soon") * 1_000_000;
    At { us, elapsed: Duration::from_secs(second) }
}

fn ready(parts: &str) -> Option<Ready> {
    let ready = !parts.contains("false");
    let text = format!(r#"{{"ready":{ready},"stopping":false,"parts":{{{parts}}}}}"#);
    Ready::read(text.as_bytes())
}

fn page(text: &str) -> Answer {
    Answer::Page(Page::read(text.as_bytes()).expect("a page"))
}

/// Two processes, looked at twice, two seconds apart: the door saturated and without Kafka, the pipeline restarted.
fn world() -> [Seen; 2] {
    let mut ingress = Seen::new("http://127.0.0.1:9100", at(0));
    let mut pipeline = Seen::new("http://127.0.0.1:9101", at(0));
    ingress.take(at(1), page(INGRESS), ready(r#""kafka":true"#).as_ref());
    pipeline.take(at(1), page(PIPELINE), ready(r#""postgres":true,"workers":true"#).as_ref());
    ingress.take(at(3), page(INGRESS_LATER), ready(r#""kafka":false"#).as_ref());
    pipeline.take(at(3), page(RESTARTED), ready(r#""postgres":true,"workers":true"#).as_ref());
    [ingress, pipeline]
}

fn figures(seen: &[Seen], second: u64) -> Figures {
    Figures::of(&seen.iter().collect::<Vec<_>>(), at(second))
}

fn picture(figures: &Figures, width: usize) -> String {
    draw::arrange(&draw::blocks(figures, 2, width), width, false).join("\n")
}

/// Red in the last picture: what somebody should look at.
fn alarms(figures: &Figures) -> Vec<String> {
    let lines = draw::arrange(&draw::blocks(figures, 2, 80), 80, true);
    let red = |line: &str| -> Vec<String> {
        let parts = line.split("\x1b[31m").skip(1);
        parts.filter_map(|part| part.split_once("\x1b[0m")).map(|(red, _)| red.to_owned()).collect()
    };
    lines.iter().flat_map(|line| red(line)).collect()
}

#[test]
fn a_picture_fits_80_columns() {
    let picture = picture(&figures(&world(), 3), 80);
    assert!(picture.lines().all(|line| line.chars().count() <= 80), "{picture}");
    let golden = "\
biometric-bridge · 2026-03-29 07:00:03Z · every 2 s · 2 of 2 processes answer
127.0.0.1:9100 not ready since 07:00:03Z · kafka DOWN since 07:00:03Z
127.0.0.1:9101 ready since 07:00:01Z · restarts seen: 1 · postgres workers up s…
per second       requests   accepted    refused        503    records     events
healthkit            20.0       20.0        0.0        0.0        0.0        0.0
terra                 102        100        1.0        1.0       25.0       20.0
unknown               0.0        0.0        0.0        0.0        0.0        0.0
all                   122        120        1.0        1.0       25.0       20.0
records ended           /s    in all  now
published             20.0      1120  decide behind            0 records   0.0 s
duplicate              5.0       210  normalise behind      1500 records  12.5 s
superseded             0.0         9  decide: 1 stopped, 1 recovering, 10 ready
held                   0.0         3  normalise: 12 ready
dead lettered          0.0        21  permits in use                  512 of 512
(normalised)          25.0      1350  waiting for one                          7
                                      connections, bytes            600, 1048576
errors, recoveries      /s    in all  took, ms          p50    p99 all 50 all 99
broker_unavailable     1.0         6  request           4.1    8.0    2.4    7.6
signature_invalid      1.0        12  receipt→commit   24.0   31.8    9.9   31.2
rebalance decide       1.0         4  load                –      –    0.6    1.9
recovery assigned      6.0        24  kafka               –      –    2.0    4.0
breaker redis          0.5         1
producer rebuilt       0.0         1";
    assert_eq!(picture, golden);
}

#[test]
fn a_wider_picture_uses_its_width() {
    let figures = figures(&world(), 3);
    let rows = |width| picture(&figures, width).lines().count();
    assert!(rows(80) > rows(120) && rows(120) > rows(162), "{}", picture(&figures, 162));
    let wide = picture(&figures, 120);
    let terra = wide.lines().find(|line| line.starts_with("terra")).expect("terra");
    assert!(terra.ends_with("1200       1040        740"), "the sums: {terra}");
    for width in [80, 81, 100, 113, 120, 162, 500] {
        assert!(picture(&figures, width).lines().all(|line| line.chars().count() <= width));
    }
}

#[test]
fn what_somebody_should_look_at_is_red() {
    let alarms = alarms(&figures(&world(), 3));
    let begin = |with: &str| alarms.iter().any(|red| red.starts_with(with));
    assert!(begin("127.0.0.1:9100 not ready"), "{alarms:?}");
    assert!(begin("terra") && begin("all"), "503s: {alarms:?}");
    assert!(
        begin("waiting for one") && begin("broker_unavailable") && begin("decide: 1 stopped"),
        "{alarms:?}"
    );
    assert!(!begin("127.0.0.1:9101") && !begin("dead lettered"), "long ago: {alarms:?}");
}

#[test]
fn a_line_has_the_same_names_whatever_is_known() {
    let names = |line: &str| -> Vec<String> {
        line.split(' ')
            .map(|field| field.split('=').next().unwrap_or_default().to_owned())
            .collect()
    };
    let full = draw::line(&figures(&world(), 3));
    let nothing = draw::line(&figures(&[Seen::new("http://127.0.0.1:9100", at(0))], 1));
    assert_eq!(names(&full), names(&nothing));
    assert_eq!(
        full,
        "time=2026-03-29T07:00:03Z away=- down=127.0.0.1:9100/kafka requests_s=122.0 accepted_s=120.0 \
         refused_s=1.0 unavailable_s=1.0 records_s=25.0 events_s=20.0 accepted=1640 published=1120 \
         duplicate=210 superseded=9 ignored=0 held=3 dead_lettered=21 lag_normalise=1500 \
         lag_normalise_s=12.5 lag_decide=0 lag_decide_s=0.0 request_p50_ms=4.1 request_p99_ms=8.0 \
         commit_p50_ms=24.0 commit_p99_ms=31.8 permits=512/512/7 stopped=1 rebalances=4 recoveries=24 \
         errors=18 errors_now=broker_unavailable,signature_invalid"
    );
    assert!(
        nothing.starts_with("time=2026-03-29T07:00:01Z away=127.0.0.1:9100 down=- requests_s=- ")
    );
    assert!(nothing.contains(" accepted=- ") && nothing.contains(" errors=- "), "{nothing}");
}

/// After a restart counts begin at 0: rates are of what came since, sums go on, and nothing is below 0.
#[test]
fn a_restart_makes_no_rate_negative() {
    let figures = figures(&world(), 3);
    let terra = figures.flow["terra"];
    assert_eq!(terra.records, Count { per_s: Some(25.0), in_all: 990 + 50 });
    assert_eq!(figures.processes[1].restarts, 1);
    let json = serde_json::to_string(&figures).expect("JSON");
    assert!(!json.contains(":-"), "{json}");
}

#[test]
fn who_is_away_is_shown_as_away_and_its_counts_stay() {
    let [ingress, mut pipeline] = world();
    pipeline.take(at(5), Answer::Nothing, None);
    let figures = figures(&[ingress, pipeline], 5);
    assert!(figures.any_is_there());
    assert_eq!(figures.flow["terra"].records.in_all, 1040);
    assert!(figures.lag.is_empty(), "what stands is not known any more: {:?}", figures.lag);
    let picture = picture(&figures, 80);
    assert!(picture.contains("1 of 2 processes answer"), "{picture}");
    assert!(picture.contains("127.0.0.1:9101 away since 07:00:05Z"), "{picture}");
    let nobody = figures_of_nobody();
    assert!(!nobody.any_is_there());
}

fn figures_of_nobody() -> Figures {
    figures(&[Seen::new("http://127.0.0.1:9100", at(0))], 1)
}

#[test]
fn before_an_interval_there_is_no_rate() {
    let mut seen = Seen::new("http://127.0.0.1:9100", at(0));
    seen.take(at(1), page(INGRESS), None);
    let figures = figures(&[seen], 1);
    assert_eq!(figures.flow["terra"].accepted, Count { per_s: None, in_all: 1000 });
    assert_eq!(figures.latencies["request"].last.count, 0);
    assert_eq!(figures.latencies["request"].in_all.count, 1014);
    assert!(picture(&figures, 80).contains("127.0.0.1:9100 answers since 07:00:01Z"));
}

/// A page may name its labels as it likes: no sequence of a terminal gets through, and nothing grows without bound.
#[test]
fn a_hostile_page_moves_no_cursor() {
    let mut text = String::from("# TYPE webhook_events_total counter\n");
    let odd = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{202e}\u{9b}31m";
    for at in 0..200 {
        text.push_str(&format!(
            "webhook_events_total{{status=\"200\",vendor=\"{odd}{at}\"}} 1e308\n"
        ));
        text.push_str(&format!("bridge_errors_total{{error_type=\"{odd} {at}\"}} {at}\n"));
        text.push_str(&format!(
            "bridge_partitions{{stage=\"{at}\",state=\"stopped\"}} 1e308\n\
             bridge_lag_seconds{{stage=\"{at}\"}} NaN\n"
        ));
        text.push_str(&format!("bridge_lag_records{{stage=\"{odd}{at}\"}} -Inf\n"));
        text.push_str(&format!(
            "webhook_process_duration_seconds_bucket{{vendor=\"{at}\",le=\"{odd}\"}} 1\n\
             webhook_process_duration_seconds_bucket{{vendor=\"{at}\",le=\"NaN\"}} 2\n\
             webhook_process_duration_seconds_bucket{{vendor=\"{at}\",le=\"-1\"}} 7\n"
        ));
    }
    let mut seen = Seen::new("http://127.0.0.1:9100", at(0));
    for second in 1..4 {
        seen.take(
            at(second),
            page(&text),
            ready(&format!("\"{}\":false", odd.escape_default())).as_ref(),
        );
    }
    let ready = Ready::read(br#"{"ready":false,"stopping":false,"parts":{"\u001b[2J x":false}}"#);
    seen.take(at(4), page(&text), ready.as_ref());
    let figures = figures(&[seen], 4);
    let picture = picture(&figures, 80);
    let plain = |found: char| found == '\n' || draw::is_plain(found);
    assert!(picture.chars().all(plain), "{picture:?}");
    assert!(picture.lines().count() < 60, "{picture}");
    let line = draw::line(&figures);
    assert!(line.chars().all(|found| matches!(found, ' '..='~')), "{line:?}");
    assert_eq!(line.split(' ').count(), draw::line(&figures_of_nobody()).split(' ').count());
    assert!(serde_json::to_string(&figures).is_ok());
}

#[test]
fn blocks_stand_side_by_side_as_far_as_they_go() {
    let block = |width, text: &str| Block { width, rows: text.lines().map(Row::plain).collect() };
    let blocks = [block(3, "a\nb"), block(3, "c"), block(9, "too long it is")];
    assert_eq!(draw::arrange(&blocks, 8, false), ["a    c", "b", "too lon…"]);
    assert_eq!(draw::arrange(&blocks, 19, false), ["a    c    too long…", "b"]);
    assert_eq!(draw::arrange(&[], 80, false), [""; 0]);
}
