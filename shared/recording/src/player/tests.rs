use std::io::Cursor;

use chrono::{DateTime, TimeDelta, Utc};
use shared_events::{Resize, SessionEnd, SessionStart};
use shared_types::{HostId, SessionId};

use super::*;
use crate::{Header, Limits, SessionRecorder};

const VIEWER: Size = Size { columns: 80, rows: 24 };

/// An hour: a line every second, each on a cleared screen.
fn recording() -> Vec<u8> {
    let header = Header {
        cluster: "example.test".parse().unwrap(),
        session: SessionId::random(),
        recorder: HostId::random(),
    };
    let at = |second: i64| -> DateTime<Utc> { DateTime::UNIX_EPOCH + TimeDelta::seconds(second) };
    let mut recorder = SessionRecorder::new(header, Limits::default(), None);
    let mut slices = Vec::new();
    let start = SessionStart { size: "40:10".into(), ..SessionStart::default() };
    recorder.event(&mut start.into(), at(0), &mut slices).unwrap();
    for second in 0..3600 {
        let output = format!("\x1b[H\x1b[2Jsecond {second}\x1b]0;title\x07");
        recorder.output(output.into(), at(second), &mut slices).unwrap();
        if second == 1800 {
            let resize = Resize { size: "60:20".into(), ..Resize::default() };
            recorder.event(&mut resize.into(), at(second), &mut slices).unwrap();
        }
        slices.extend(recorder.flush());
    }
    recorder.event(&mut SessionEnd::default().into(), at(3600), &mut slices).unwrap();
    recorder.finish(at(3600), &mut slices).unwrap();
    slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect()
}

fn shown(player: &Player<Cursor<Vec<u8>>>) -> String {
    player.screen().text().trim().to_owned()
}

#[test]
fn seeking_shows_what_playing_showed() {
    let mut player = Player::new(Decoder::new(Cursor::new(recording())));
    let mut output = 0;
    while let Some(step) = player.step().unwrap() {
        if let Action::Output { raw, shown } = step.action {
            output += 1;
            assert!(raw.ends_with(b"\x07"));
            crate::fuzz::assert_harmless(&shown);
        }
    }
    assert_eq!((output, player.position_ms()), (3600, 3_599_000));
    assert!(player.snapshots.len() <= SNAPSHOTS + 1);
    for second in [3598, 10, 0, 1799, 1801, 2500, 3599] {
        player.seek(second * 1000, VIEWER).unwrap();
        assert_eq!(shown(&player), format!("second {second}"));
        let columns = if second > 1800 { 60 } else { 40 };
        assert_eq!(player.screen().size().columns, columns, "at {second}");
    }
    player.seek(1_000_500, VIEWER).unwrap();
    assert_eq!((shown(&player).as_str(), player.position_ms()), ("second 1000", 1_000_500));
    let step = player.step().unwrap().unwrap();
    assert_eq!(step.at_ms, 1_001_000);
    player.seek(u64::MAX, VIEWER).unwrap();
    assert!(player.step().unwrap().is_none());
    // A player that was never at the start of a snapshot goes back as well.
    player.seek(0, VIEWER).unwrap();
    assert_eq!(shown(&player), "second 0");
}

#[test]
fn a_repaint_brings_the_viewer_there() {
    let mut player = Player::new(Decoder::new(Cursor::new(recording())));
    let repaint = player.seek(123_000, VIEWER).unwrap();
    crate::fuzz::assert_harmless(&repaint);
    let mut viewer = Screen::new(VIEWER);
    viewer.feed(b"something else");
    viewer.feed(&repaint);
    assert_eq!(viewer.text().trim(), "second 123");
}

#[test]
fn a_damaged_recording_plays_up_to_the_damage() {
    let mut bytes = recording();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    let mut player = Player::new(Decoder::new(Cursor::new(bytes)));
    let mut steps = 0;
    let fault = loop {
        match player.step() {
            Ok(Some(_)) => steps += 1,
            Ok(None) => panic!("no fault"),
            Err(fault) => break fault,
        }
    };
    assert!(steps > 1000 && fault.slice > 1000);
    assert!(player.step().unwrap().is_none());
    player.seek(5_000, VIEWER).unwrap();
    assert_eq!(shown(&player), "second 5");
}
