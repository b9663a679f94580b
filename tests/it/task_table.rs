//! The table of a partition's life, every state against every event.

use biometric_bridge::stream::task::{Cause, Event, Illegal, Position, State, Why};
use uuid::Uuid;

const AT: Position = Position { fence: Uuid::nil(), applied: 5, out: 7 };

fn states() -> [State; 4] {
    [
        State::Recovering(Cause::Assigned),
        State::Ready(AT),
        State::Applied(AT, 9),
        State::Stopped(Why::Impossible),
    ]
}

#[test]
fn every_move_is_in_the_table_or_illegal() {
    let elsewhere = Position { applied: 9, out: 9, ..AT };
    let events = [
        Event::Recovered(elsewhere),
        Event::Applied(9),
        Event::Applied(5),
        Event::Sent,
        Event::Disturbed(Cause::NotOurs),
        Event::Halted(Why::OutsideLog),
    ];
    let again = Ok(State::Recovering(Cause::NotOurs));
    let stopped = Ok(State::Stopped(Why::OutsideLog));
    let no = Err(Illegal);
    let table = [
        [Ok(State::Ready(elsewhere)), no, no, no, again, stopped],
        [no, Ok(State::Applied(AT, 9)), no, no, again, stopped],
        [no, no, no, Ok(State::Ready(elsewhere)), again, stopped],
        [no, no, no, no, no, no],
    ];
    for (state, row) in states().into_iter().zip(table) {
        for (event, expected) in events.into_iter().zip(row) {
            assert_eq!(state.on(event), expected, "{state:?} on {event:?}");
        }
    }
}

#[test]
fn what_is_known_to_be_in_the_topic_never_goes_back() {
    let silent = Position { applied: 5, out: 20, ..AT };
    let sent = State::Applied(silent, 9).on(Event::Sent);
    assert_eq!(sent, Ok(State::Ready(Position { applied: 9, out: 20, ..AT })));
}
