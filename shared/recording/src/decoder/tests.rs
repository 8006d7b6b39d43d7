use std::io::Cursor;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use flate2::read::MultiGzDecoder;
use proptest::prelude::*;
use shared_events::{OtherEvent, SessionEnd, SessionPrint, SessionStart};
use shared_types::HostId;

use super::*;
use crate::format::{self, MAX_BODY};
use crate::{Encoder, Limits, SessionRecorder, Slice};

fn header() -> Header {
    let id = |n| uuid::Uuid::from_bytes([n; 16]);
    Header {
        cluster: "example.test".parse().unwrap(),
        session: SessionId(id(1)),
        recorder: HostId(id(2)),
    }
}

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(1_700_000_000_000 + ms)
}

/// A recording of a few slices with a few events each.
fn slices() -> Vec<Slice> {
    let mut recorder = SessionRecorder::new(header(), Limits::default(), None);
    let mut slices = Vec::new();
    let start = SessionStart { size: "80:24".into(), ..SessionStart::default() };
    recorder.event(&mut start.into(), at(0), &mut slices).unwrap();
    for ms in 0..4 {
        let text = format!("output {ms}\r\n");
        recorder.output(text.into(), at(ms * 10), &mut slices).unwrap();
        recorder.output("more".into(), at(ms * 10 + 5), &mut slices).unwrap();
        slices.extend(recorder.flush());
    }
    recorder.event(&mut SessionEnd::default().into(), at(60), &mut slices).unwrap();
    recorder.finish(at(60), &mut slices).unwrap();
    slices
}

fn join(slices: &[Slice]) -> Vec<u8> {
    slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect()
}

struct Reading {
    events: Vec<AuditEvent>,
    fault: Option<DecodeError>,
    status: ChainStatus,
}

fn read(bytes: &[u8]) -> Reading {
    let mut decoder = Decoder::new(bytes);
    let mut events = Vec::new();
    let fault = loop {
        match decoder.next_event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break None,
            Err(fault) => break Some(fault),
        }
    };
    assert!(decoder.next_event().unwrap().is_none(), "nothing comes behind the end or a fault");
    Reading { events, fault, status: decoder.chain_status() }
}

/// How many events each prefix of whole slices has.
fn prefixes(slices: &[Slice]) -> Vec<usize> {
    (0..=slices.len()).map(|count| read(&join(&slices[..count])).events.len()).collect()
}

#[test]
fn a_recording_reads_as_it_was_written() {
    let reading = read(&join(&slices()));
    assert!(reading.fault.is_none());
    assert_eq!(reading.status, ChainStatus::Intact);
    assert_eq!(reading.events.len(), 10);
    for (index, event) in reading.events.iter().enumerate() {
        assert_eq!(usize::try_from(event.metadata().index).unwrap(), index);
    }
    let AuditEvent::SessionPrint(print) = &reading.events[3] else { panic!("no print") };
    assert_eq!((print.chunk_index, print.ms, print.offset, print.bytes), (2, 10, 14, 10));
    assert_eq!(print.data, "output 1\r\n");
}

#[test]
fn every_truncation_gives_a_prefix_of_whole_slices() {
    let slices = slices();
    let whole = join(&slices);
    let all = read(&whole).events;
    let prefixes = prefixes(&slices);
    let mut ends = vec![0];
    for slice in &slices {
        ends.push(ends.last().unwrap() + slice.bytes.len());
    }
    for len in 0..whole.len() {
        let reading = read(&whole[..len]);
        let count = ends.iter().filter(|end| **end <= len).count() - 1;
        assert_eq!(reading.events, all[..prefixes[count]], "cut to {len}");
        assert_eq!(reading.fault.is_none(), ends.contains(&len), "cut to {len}");
        let expected = if count == 0 { ChainStatus::Unsigned } else { ChainStatus::MissingEnd };
        assert_eq!(reading.status, expected, "cut to {len}");
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let slices = slices();
    let whole = join(&slices);
    let all = read(&whole).events;
    let prefixes = prefixes(&slices);
    for at in 0..whole.len() {
        for flip in [0xff, 1, 0x80, 0x20] {
            let mut wrong = whole.clone();
            wrong[at] ^= flip;
            let reading = read(&wrong);
            let place = format!("byte {at} with {flip:#x}");
            // Stronger than asked for: no flip goes unnoticed, since the chain covers every byte.
            let fault = reading.fault.unwrap_or_else(|| panic!("{place}: no fault"));
            assert!(!fault.what.to_string().is_empty() && fault.offset <= at as u64, "{place}");
            let count = usize::try_from(fault.slice).unwrap();
            assert_eq!(reading.events, all[..prefixes[count]], "{place}");
            assert_ne!(reading.status, ChainStatus::Intact, "{place}");
        }
    }
}

/// The same for a recording of another program, which has checksums only.
#[test]
fn recordings_without_a_chain_are_prefix_safe_too() {
    let slices: Vec<Slice> = slices()
        .into_iter()
        .map(|slice| Slice { bytes: foreign(&slice.bytes, 7).into(), ..slice })
        .collect();
    let whole = join(&slices);
    let all = read(&whole);
    assert_eq!((all.events.len(), all.status), (10, ChainStatus::Unsigned));
    let prefixes = prefixes(&slices);
    for at in 0..whole.len() {
        let mut wrong = whole.clone();
        wrong[at] ^= 0xff;
        for (bytes, what) in [(&whole[..at], "cut to"), (&wrong[..], "flipped")] {
            let reading = read(bytes);
            assert!(all.events.starts_with(&reading.events), "{what} {at}");
            assert!(prefixes.contains(&reading.events.len()), "{what} {at}");
            let same = reading.events.len() == all.events.len();
            assert!(same || reading.fault.is_some() || what == "cut to", "{what} {at}");
        }
    }
}

/// The slice as another program would have written it: no link, some padding.
fn foreign(part: &[u8], padding: usize) -> Vec<u8> {
    let mut records = Vec::new();
    MultiGzDecoder::new(&part[format::HEADER..]).read_to_end(&mut records).unwrap();
    let mut body = flate2::GzBuilder::new()
        .operating_system(255)
        .write(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut body, &records).unwrap();
    part_of(&body.finish().unwrap(), padding)
}

fn part_of(body: &[u8], padding: usize) -> Vec<u8> {
    let mut out = format::header(body.len() as u64).to_vec();
    out[16..24].copy_from_slice(&(padding as u64).to_be_bytes());
    out.extend_from_slice(body);
    out.resize(out.len() + padding, 0);
    out
}

#[test]
fn readers_that_do_not_know_the_chain_read_the_same() {
    let slices = slices();
    for slice in &slices {
        let body = &slice.bytes[format::HEADER..];
        // One that reads all members of the body, and one that stops at the end of the first.
        let (mut all, mut first) = (Vec::new(), Vec::new());
        MultiGzDecoder::new(body).read_to_end(&mut all).unwrap();
        flate2::read::GzDecoder::new(body).read_to_end(&mut first).unwrap();
        assert_eq!(all, first);
    }
}

#[test]
fn swapped_doubled_and_missing_slices_are_named() {
    let slices = slices();
    let fault = |order: &[usize]| {
        let picked: Vec<Slice> = order.iter().map(|index| slices[*index].clone()).collect();
        let reading = read(&join(&picked));
        (reading.events.len(), reading.fault.map(|fault| fault.what.to_string()))
    };
    let number = |found: u64, expected: u64| {
        Some(format!("slice is number {found} of the recording where {expected} should be"))
    };
    assert_eq!(fault(&[0, 1, 2, 3, 4]), (10, None));
    assert_eq!(fault(&[0, 2, 1, 3, 4]), (3, number(2, 1)));
    assert_eq!(fault(&[0, 1, 1, 2, 3, 4]), (5, number(1, 2)));
    assert_eq!(fault(&[0, 1, 3, 4]), (5, number(3, 2)));
    assert_eq!(fault(&[1, 2, 3, 4]), (0, number(1, 0)));
    assert_eq!(
        fault(&[0, 1, 2, 3, 4, 4]),
        (10, Some("slice stands behind the end of the recording".into()))
    );
    // A slice without its link, and one of another recording.
    let mut mixed = slices[0].bytes.to_vec();
    mixed.extend(foreign(&slices[1].bytes, 0));
    assert!(matches!(read(&mixed).fault.unwrap().what, Fault::Chain(ChainFault::NoLink)));
    let mut other =
        Encoder::new(Header { session: SessionId::random(), ..header() }, Limits::default());
    other.push(&SessionStart::default().into()).unwrap();
    other.flush().unwrap();
    let mut mixed = slices[0].bytes.to_vec();
    other.push(&SessionEnd::default().into()).unwrap();
    mixed.extend_from_slice(&other.finish().unwrap().bytes);
    assert!(matches!(read(&mixed).fault.unwrap().what, Fault::Chain(ChainFault::Previous)));
}

#[test]
fn a_recording_of_another_session_is_refused() {
    let bytes = join(&slices());
    assert!(Decoder::of_session(&bytes[..], header().session).all(|event| event.is_ok()));
    let fault = Decoder::of_session(&bytes[..], SessionId::random()).next().unwrap().unwrap_err();
    assert!(matches!(fault.what, Fault::Chain(ChainFault::OtherSession { .. })));
}

#[test]
fn filler_between_slices_is_passed() {
    let slices = slices();
    let mut bytes = slices[0].bytes.to_vec();
    bytes.extend(part_of(&[], 100_000));
    for slice in &slices[1..] {
        bytes.extend_from_slice(&slice.bytes);
    }
    let reading = read(&bytes);
    assert_eq!((reading.events.len(), reading.status), (10, ChainStatus::Intact));
    // In a chained recording padding is zero, and nothing stands behind the end.
    bytes[slices[0].bytes.len() + 500] = 1;
    assert!(matches!(read(&bytes).fault.unwrap().what, Fault::Padding));
    let mut bytes = join(&slices);
    bytes.extend(part_of(&[], 10));
    assert!(matches!(read(&bytes).fault.unwrap().what, Fault::Chain(ChainFault::BehindEnd)));
}

#[test]
fn padding_inside_the_body_is_passed() {
    let part = foreign(&slices()[0].bytes, 0);
    let mut body = part[format::HEADER..].to_vec();
    body.resize(body.len() + 5000, 0);
    assert_eq!(read(&part_of(&body, 3)).events.len(), 3);
}

#[test]
fn repeated_events_of_a_resumed_upload_come_once() {
    let slices = slices();
    let parts: Vec<Vec<u8>> = slices.iter().map(|slice| foreign(&slice.bytes, 0)).collect();
    let bytes = [&parts[0][..], &parts[1], &parts[0], &parts[1], &parts[2]].concat();
    let mut decoder = Decoder::new(&bytes[..]);
    assert_eq!(decoder.by_ref().filter(Result::is_ok).count(), 7);
    assert_eq!(decoder.skipped(), 5);
}

#[test]
fn headers_that_lie_allocate_nothing() {
    let mut bytes = format::header(u64::MAX).to_vec();
    assert!(matches!(read(&bytes).fault.unwrap().what, Fault::Large(u64::MAX)));
    bytes = format::header(MAX_BODY).to_vec();
    assert!(matches!(read(&bytes).fault.unwrap().what, Fault::ShortBody { found: 0, .. }));
    bytes = part_of(&[], 0);
    bytes[16] = 0xff;
    assert!(matches!(read(&bytes).fault.unwrap().what, Fault::ShortPadding { found: 0, .. }));
}

#[test]
fn versions_and_flags_are_checked() {
    let mut bytes = join(&slices());
    bytes[7] = 3;
    assert_eq!(read(&bytes).fault.unwrap().what.to_string(), "unsupported protocol version 3");
    bytes[7] = 0;
    assert!(matches!(read(&bytes).fault.unwrap().what, Fault::Version(0)));
    let mut v2 = part_of(&[], 0);
    v2[7] = 2;
    v2.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        read(&v2).fault.unwrap().what.to_string(),
        "reading encrypted protos without decrypter"
    );
    v2[24] = 0;
    assert!(read(&v2).fault.is_none());
    assert!(matches!(read(b"0b1e2f3a-chunks").fault.unwrap().what, Fault::OldArchive));
}

#[test]
fn a_large_part_is_read_piece_by_piece() {
    // 40 MiB of content in one part: more than is kept in memory.
    let mut records = Vec::new();
    for index in 0..640 {
        let data = Bytes::from(vec![b'a' + u8::try_from(index % 26).unwrap(); 64_000]);
        let print = SessionPrint {
            metadata: shared_events::Metadata { index, ..Default::default() },
            data,
            ..SessionPrint::default()
        };
        let record = AuditEvent::from(print).encode_one_of();
        records.extend(u32::try_from(record.len()).unwrap().to_be_bytes());
        records.extend(record);
    }
    let mut body = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut body, &records).unwrap();
    let bytes = part_of(&body.finish().unwrap(), 0);
    let mut decoder = Decoder::new(&bytes[..]);
    let mut count = 0;
    while let Some(event) = decoder.next_event().unwrap() {
        let AuditEvent::SessionPrint(print) = event else { panic!("no print") };
        assert_eq!((print.metadata.index, print.data.len()), (count, 64_000));
        assert!(decoder.records.memory() < 2 * 1024 * 1024);
        count += 1;
    }
    assert_eq!(count, 640);
    assert_eq!(decoder.mark().unwrap().slice, 1);
}

#[test]
fn record_lengths_are_checked_before_anything_comes_out() {
    for (records, expected) in [
        (&[0, 0, 0, 0][..], "unexpected message size 0"),
        (&[0, 1, 0, 1, 9][..], "unexpected message size 65537"),
        (&[0, 0, 0, 9, 1][..], "content of the part ends within a record"),
        (&[0, 0][..], "content of the part ends within a record"),
        (&[0, 0, 0, 1, 0xff][..], "record is no event"),
    ] {
        let mut body = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut body, records).unwrap();
        let reading = read(&part_of(&body.finish().unwrap(), 0));
        assert_eq!(reading.fault.unwrap().what.to_string(), expected);
    }
}

#[test]
fn events_without_a_struct_are_passed_on() {
    let mut encoder = Encoder::new(header(), Limits::default());
    let other =
        OtherEvent { number: 262, raw: Bytes::from_static(&[0x0a, 2, 8, 0]), ..Default::default() };
    encoder.push(&AuditEvent::Other(other)).unwrap();
    let slice = encoder.finish().unwrap();
    assert!(matches!(read(&slice.bytes).events[..], [AuditEvent::Other(_)]));
}

#[test]
fn an_empty_recording_has_an_end() {
    assert_eq!(read(&[]).status, ChainStatus::Unsigned);
    let mut encoder = Encoder::new(header(), Limits::default());
    assert!(encoder.flush().is_none());
    let slice = encoder.finish().unwrap();
    let reading = read(&slice.bytes);
    assert_eq!((reading.events.len(), reading.status), (0, ChainStatus::Intact));
    assert!(encoder.finish().is_none());
    assert!(encoder.push(&SessionEnd::default().into()).is_err());
}

#[test]
fn a_place_can_be_returned_to() {
    let bytes = join(&slices());
    let mut decoder = Decoder::new(Cursor::new(&bytes));
    let mut mark = None;
    let mut rest = Vec::new();
    while let Some(event) = decoder.next_event().unwrap() {
        if mark.is_some() {
            rest.push(event);
        } else if decoder.mark().is_some() && event.metadata().index > 3 {
            mark = decoder.mark();
        }
    }
    decoder.seek(&mark.unwrap()).unwrap();
    let again: Vec<AuditEvent> = decoder.by_ref().map(Result::unwrap).collect();
    assert_eq!(again, rest);
    assert!(!rest.is_empty());
    assert_eq!(decoder.chain_status(), ChainStatus::Intact);
}

fn any_event() -> impl Strategy<Value = AuditEvent> {
    let text = "[a-zA-Z0-9 ü漢\u{1b}]{0,40}";
    prop_oneof![
        4 => (proptest::collection::vec(any::<u8>(), 0..3000), any::<i64>(), any::<i64>())
            .prop_map(|(data, ms, offset)| {
                SessionPrint { data: data.into(), ms, offset, ..SessionPrint::default() }.into()
            }),
        1 => (text, text).prop_map(|(size, reason)| {
            SessionStart { size, reason, ..SessionStart::default() }.into()
        }),
        1 => any::<(bool, bool)>().prop_map(|(interactive, enhanced_recording)| {
            SessionEnd { interactive, enhanced_recording, ..SessionEnd::default() }.into()
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_recorded_is_read(
        mut events in proptest::collection::vec(any_event(), 0..60),
        raw in 100..20_000usize,
        flush_every in 1..30usize,
        cut: proptest::sample::Index,
    ) {
        let mut encoder = Encoder::new(header(), Limits { raw });
        let mut slices = Vec::new();
        for (index, event) in events.iter_mut().enumerate() {
            event.metadata_mut().index = i64::try_from(index).unwrap();
            slices.extend(encoder.push(event).unwrap());
            if index % flush_every == 0 {
                slices.extend(encoder.flush());
            }
        }
        slices.extend(encoder.finish());
        let bytes = join(&slices);
        let reading = read(&bytes);
        prop_assert_eq!(&reading.events, &events);
        prop_assert_eq!(reading.status, ChainStatus::Intact);
        let len = cut.index(bytes.len());
        prop_assert!(events.starts_with(&read(&bytes[..len]).events));
    }

    #[test]
    fn any_bytes_are_survived(data: Vec<u8>) {
        crate::fuzz::recording(&data);
    }

    #[test]
    fn any_damage_is_survived(places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20)) {
        let mut bytes = join(&slices());
        for (place, byte) in places {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        crate::fuzz::recording(&bytes);
    }

    #[test]
    fn any_content_is_survived(content: Vec<u8>, tail: Vec<u8>) {
        let mut body = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut body, &content).unwrap();
        let mut body = body.finish().unwrap();
        body.extend(tail);
        crate::fuzz::recording(&part_of(&body, 0));
    }
}
