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
        if let Action::Output(raw) = step.action {
            output += 1;
            assert!(raw.ends_with(b"\x07"));
        }
    }
    assert_eq!((output, player.position_ms()), (3600, 3_599_000));
    assert!(player.snapshots.len() <= SNAPSHOTS + 1);
    for second in [3598, 10, 0, 1799, 1801, 2500, 3599] {
        player.seek(second * 1000).unwrap();
        assert_eq!(shown(&player), format!("second {second}"));
        let columns = if second > 1800 { 60 } else { 40 };
        assert_eq!(player.screen().size().columns, columns, "at {second}");
    }
    player.seek(1_000_500).unwrap();
    assert_eq!((shown(&player).as_str(), player.position_ms()), ("second 1000", 1_000_500));
    let step = player.step().unwrap().unwrap();
    assert_eq!(step.at_ms, 1_001_000);
    player.seek(u64::MAX).unwrap();
    assert!(player.step().unwrap().is_none());
    // A player that was never at the start of a snapshot goes back as well.
    player.seek(0).unwrap();
    assert_eq!(shown(&player), "second 0");
}

#[test]
fn the_next_step_is_known_before_it_is_taken() {
    let mut player = Player::new(Decoder::new(Cursor::new(recording())));
    player.seek(123_000).unwrap();
    assert_eq!((player.next_at().unwrap(), shown(&player)), (Some(124_000), "second 123".into()));
    player.seek(u64::MAX).unwrap();
    assert_eq!(player.next_at().unwrap(), None);
    // Back over a step that was looked at.
    player.seek(3_000_500).unwrap();
    assert_eq!(player.next_at().unwrap(), Some(3_001_000));
    player.seek(2_999_000).unwrap();
    assert_eq!(player.step().unwrap().unwrap().at_ms, 3_000_000);
    assert_eq!(shown(&player), "second 3000");
}

/// Everything a viewer's terminal gets is made by the painter.
#[test]
fn what_is_painted_brings_the_viewer_there() {
    let mut player = Player::new(Decoder::new(Cursor::new(recording())));
    player.seek(123_000).unwrap();
    let frame = crate::view::Frame::fit(player.screen(), VIEWER);
    let painted = crate::view::Painter::default().paint(&frame, VIEWER);
    crate::fuzz::assert_harmless(painted.as_bytes());
    let mut viewer = Screen::new(VIEWER);
    viewer.feed(b"something else");
    viewer.feed(painted.as_bytes());
    assert_eq!(viewer.text().trim(), "second 123");
}

#[test]
fn large_screens_have_few_snapshots() {
    let mut player = Player::new(Decoder::new(Cursor::new(recording())));
    assert_eq!(player.most_snapshots(), SNAPSHOTS);
    player.screen.resize(Size { columns: 1000, rows: 500 });
    assert_eq!(player.most_snapshots(), FEWEST_SNAPSHOTS);
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
    player.seek(5_000).unwrap();
    assert_eq!(shown(&player), "second 5");
}

/// A statement that was prepared at the start runs every second.
#[test]
fn a_database_session_plays_and_seeks_with_what_was_prepared() {
    use shared_events::{DatabaseSessionStart, PostgresBind, PostgresExecute, PostgresParse};
    let header = Header {
        cluster: "example.test".parse().unwrap(),
        session: SessionId::random(),
        recorder: HostId::random(),
    };
    let at = |second: i64| -> DateTime<Utc> { DateTime::UNIX_EPOCH + TimeDelta::seconds(second) };
    let mut recorder = SessionRecorder::new(header, Limits::default(), None);
    let mut slices = Vec::new();
    let mut start = DatabaseSessionStart::default();
    start.database.db_protocol = "postgres".into();
    start.database.db_name = "app".into();
    recorder.event(&mut start.into(), at(0), &mut slices).unwrap();
    let parse = PostgresParse { query: "select $1".into(), ..PostgresParse::default() };
    recorder.event(&mut parse.into(), at(0), &mut slices).unwrap();
    for second in 1..600 {
        let bind = PostgresBind { parameters: vec![second.to_string()], ..PostgresBind::default() };
        recorder.event(&mut bind.into(), at(second), &mut slices).unwrap();
        recorder.event(&mut PostgresExecute::default().into(), at(second), &mut slices).unwrap();
        slices.extend(recorder.flush());
    }
    recorder.finish(at(600), &mut slices).unwrap();
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect();
    let mut player = Player::new(Decoder::new(Cursor::new(bytes)));
    for second in [500, 499, 20, 21, 300, 599, 1] {
        player.seek(second * 1000).unwrap();
        let last = format!("app=> select $1 ($1 = \"{second}\")");
        assert!(shown(&player).ends_with(&last), "{}", shown(&player));
    }
}
