use std::io::Read as _;

use chrono::TimeDelta;
use shared_events::{Exec, SessionStart};
use shared_types::{HostId, SessionId};

use super::*;
use crate::{ChainStatus, Decoder};

fn recorder(bucket: Option<TokenBucket>) -> SessionRecorder {
    let header = Header {
        cluster: "example.test".parse().unwrap(),
        session: SessionId::random(),
        recorder: HostId::random(),
    };
    SessionRecorder::new(header, Limits::default(), bucket)
}

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
}

fn events(slices: &[Slice]) -> Vec<AuditEvent> {
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect();
    let mut decoder = Decoder::new(&bytes[..]);
    let events = decoder.by_ref().map(Result::unwrap).collect();
    assert_eq!(decoder.chain_status(), ChainStatus::Intact);
    events
}

#[test]
fn long_output_is_split_and_nothing_is_lost() {
    let mut recorder = recorder(None);
    let mut slices = Vec::new();
    let output: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    recorder.output(output.clone().into(), at(0), &mut slices).unwrap();
    recorder.finish(at(0), &mut slices).unwrap();
    let mut seen = Vec::new();
    for (index, event) in events(&slices).into_iter().enumerate() {
        let AuditEvent::SessionPrint(print) = event else { panic!("no print") };
        assert_eq!(print.metadata.index, i64::try_from(index).unwrap());
        assert_eq!(print.chunk_index, print.metadata.index);
        assert_eq!(print.offset, i64::try_from(seen.len()).unwrap());
        assert!(print.metadata.uid.is_empty() && print.metadata.event == "print");
        seen.extend_from_slice(&print.data);
    }
    assert_eq!(seen, output);
    assert!(slices.iter().all(|slice| slice.bytes.len() <= 129 * 1024));
    assert!(slices.len() >= 8);
    assert_eq!(
        slices.iter().map(|slice| slice.seq).collect::<Vec<_>>(),
        (0..slices.len() as u64).collect::<Vec<_>>()
    );
}

#[test]
fn times_of_prints_never_go_back() {
    let mut recorder = recorder(None);
    let mut slices = Vec::new();
    recorder.event(&mut SessionStart::default().into(), at(0), &mut slices).unwrap();
    for ms in [5_000, 5_250, 4_000, 6_000] {
        recorder.output("x".into(), at(ms), &mut slices).unwrap();
    }
    recorder.finish(at(7_000), &mut slices).unwrap();
    let ms: Vec<i64> = events(&slices)
        .iter()
        .filter_map(|event| match event {
            AuditEvent::SessionPrint(print) => Some(print.ms),
            _ => None,
        })
        .collect();
    assert_eq!(ms, [0, 250, 250, 1000]);
}

#[test]
fn what_the_bucket_leaves_out_is_a_named_gap() {
    let mut recorder = recorder(Some(TokenBucket::new(100, 10)));
    let mut slices = Vec::new();
    recorder.output(vec![b'a'; 150].into(), at(0), &mut slices).unwrap();
    recorder.output(vec![b'b'; 50].into(), at(1), &mut slices).unwrap();
    recorder.output(vec![b'c'; 50].into(), at(2_001), &mut slices).unwrap();
    recorder.output(vec![b'd'; 20].into(), at(2_001), &mut slices).unwrap();
    recorder.finish(at(2_002), &mut slices).unwrap();
    let told: Vec<String> = events(&slices)
        .iter()
        .map(|event| match event {
            AuditEvent::SessionPrint(print) => format!("{} {}", print.offset, print.data.len()),
            other => {
                let gap = OutputGap::from_event(other).unwrap();
                format!("gap {} {}", gap.offset, gap.bytes)
            }
        })
        .collect();
    assert_eq!(told, ["0 100", "gap 100 150", "100 20"]);
}

#[test]
fn an_event_that_is_too_long_is_shortened() {
    let mut recorder = recorder(None);
    let mut slices = Vec::new();
    let mut exec = Exec::default();
    exec.command.command = "x".repeat(300_000);
    recorder.event(&mut exec.into(), at(0), &mut slices).unwrap();
    recorder.finish(at(0), &mut slices).unwrap();
    assert!(
        matches!(&events(&slices)[..], [AuditEvent::Exec(exec)] if exec.command.command.len() == 16_384)
    );
}

#[test]
fn an_idle_session_holds_no_buffer() {
    let mut recorder = recorder(None);
    let mut slices = Vec::new();
    recorder.output(vec![b'a'; 100_000].into(), at(0), &mut slices).unwrap();
    slices.extend(recorder.flush());
    recorder.output("$ ".into(), at(0), &mut slices).unwrap();
    slices.extend(recorder.flush());
    assert!(recorder.encoder.memory() < 32 * 1024);
    let mut unpacked = Vec::new();
    let body = &slices.last().unwrap().bytes[crate::format::HEADER..];
    flate2::read::MultiGzDecoder::new(body).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked.len() < 100);
}
