use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use chrono::TimeDelta;
use proptest::prelude::*;
use shared_events::{SessionEnd, SessionStart};
use shared_pki::{CaKind, CertAuthority, CheckpointKey, KeyPair, RecorderCertSpec};
use shared_types::{HostId, SystemRole};

use super::*;
use crate::{Limits, SessionRecorder, Signer, Slice};

const SECOND: i64 = 1_790_000_000;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(SECOND, 0).unwrap()
}

fn later() -> DateTime<Utc> {
    now() + TimeDelta::hours(3)
}

fn id(n: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([n; 16])
}

fn header(session: u8) -> Header {
    Header {
        cluster: "example.test".parse().unwrap(),
        session: SessionId(id(session)),
        recorder: HostId(id(99)),
    }
}

static AUTHORITY: LazyLock<CertAuthority> = LazyLock::new(|| authority("example.test"));

fn authority(cluster: &str) -> CertAuthority {
    CertAuthority::generate(CaKind::Recording, &cluster.parse().unwrap(), now()).unwrap()
}

fn trusted() -> TrustedAuthority {
    AUTHORITY.trusted()
}

/// A key of host 99, certified for an hour.
fn key(by: &CertAuthority, host: u8) -> CheckpointKey {
    let key = KeyPair::generate().unwrap();
    let spec = RecorderCertSpec {
        public_key: key.public().clone(),
        host_id: HostId(id(host)),
        role: SystemRole::Proxy,
        cluster: by.cluster().clone(),
        now: now(),
        ttl: std::time::Duration::from_secs(3600),
    };
    let certificate = by.ssh_ca().unwrap().sign_recorder(spec).unwrap();
    CheckpointKey::new(key, &certificate).unwrap()
}

fn signer(clock: fn() -> DateTime<Utc>, key: Option<CheckpointKey>) -> Arc<Signer> {
    let signer = Signer::new(clock);
    if let Some(key) = key {
        signer.replace(key);
    }
    Arc::new(signer)
}

/// Five slices, the last of which is the end; between them the signer may be given another key.
fn record(header: Header, signer: &Arc<Signer>, between: impl Fn(usize)) -> Vec<Slice> {
    let mut recorder = SessionRecorder::new(header, Limits::default(), None).signed(signer.clone());
    let mut slices = Vec::new();
    recorder.event(&mut SessionStart::default().into(), now(), &mut slices).unwrap();
    for n in 0..4 {
        recorder.output(format!("output {n}\r\n").into(), now(), &mut slices).unwrap();
        slices.extend(recorder.flush());
        between(n);
    }
    recorder.event(&mut SessionEnd::default().into(), now(), &mut slices).unwrap();
    recorder.finish(now(), &mut slices).unwrap();
    assert_eq!(slices.len(), 5);
    slices
}

static KEY: LazyLock<Arc<Signer>> = LazyLock::new(|| signer(now, Some(key(&AUTHORITY, 99))));

/// Two recordings, made once: ids in them are random, and with them lengths.
static RECORDINGS: LazyLock<[Vec<Vec<u8>>; 2]> =
    LazyLock::new(|| [1, 2].map(|session| bytes(&record(header(session), &KEY, |_| ()))));

fn slices(session: usize) -> Vec<Vec<u8>> {
    RECORDINGS[session - 1].clone()
}

fn bytes(slices: &[Slice]) -> Vec<Vec<u8>> {
    slices.iter().map(|slice| slice.bytes.to_vec()).collect()
}

fn seal_of(recording: &[u8], session: u8) -> Seal {
    let report = look(recording);
    let received = Received {
        session: SessionId(id(session)),
        state: if report.verdict == Verdict::Intact {
            EndState::Complete
        } else {
            EndState::Truncated
        },
        slices: report.slices,
        bytes: recording.len() as u64,
        head: report.head.unwrap(),
        time: SECOND.unsigned_abs(),
    };
    Seal::sign(received, &AUTHORITY.ssh_ca().unwrap()).unwrap()
}

fn look(recording: &[u8]) -> Report {
    verify(Cursor::new(recording), &trusted(), None).unwrap()
}

fn verdict(recording: &[u8]) -> Verdict {
    look(recording).verdict
}

fn starts(slices: &[Vec<u8>]) -> Vec<u64> {
    let mut starts = vec![0];
    for slice in slices {
        starts.push(starts.last().unwrap() + slice.len() as u64);
    }
    starts
}

fn place(slice: usize, offset: u64) -> Place {
    Place { slice: slice as u64, offset }
}

#[test]
fn a_recording_as_it_was_recorded() {
    let whole = slices(1).concat();
    let report = look(&whole);
    assert_eq!(report.verdict, Verdict::Intact);
    assert_eq!((report.slices, report.signed, report.last_signed), (5, 5, Some(now())));
    assert_eq!((report.origin, report.seal.is_none()), (Some(header(1)), true));
    // The first slice has the certificate, the others have their signature only.
    let lens: Vec<usize> = slices(1).iter().map(Vec::len).collect();
    assert!(lens[0] > lens[1] + 400 && lens[1..].iter().all(|len| *len < 500), "{lens:?}");
    let sealed = [whole.clone(), seal_of(&whole, 1).to_part()].concat();
    let report = look(&sealed);
    assert_eq!(report.verdict, Verdict::Intact);
    let seal = report.seal.unwrap();
    assert_eq!((seal.state, seal.slices, seal.bytes), (EndState::Complete, 5, whole.len() as u64));
    // The decoder passes over the seal.
    let mut decoder = crate::Decoder::new(&sealed[..]);
    assert_eq!(decoder.by_ref().filter(Result::is_ok).count(), 6);
    assert_eq!(decoder.chain_status(), crate::ChainStatus::Intact);
}

#[test]
fn every_truncation_is_named() {
    let slices = slices(1);
    let (whole, starts) = (slices.concat(), starts(&slices));
    for len in 0..whole.len() {
        let count = starts.iter().filter(|start| **start <= len as u64).count() - 1;
        // What is left of a torn slice begins where the last whole one ends.
        let since = (count > 0).then(now);
        let expected = Verdict::Truncated { slices: count as u64, offset: starts[count], since };
        assert_eq!(verdict(&whole[..len]), expected, "cut to {len}");
    }
    let sealed = [whole.clone(), seal_of(&whole, 1).to_part()].concat();
    assert_eq!(verdict(&sealed[..whole.len()]), Verdict::Intact, "the seal is the auth service's");
    for len in whole.len() + 1..sealed.len() {
        let at = place(5, whole.len() as u64);
        let Verdict::NotCanonical { place, .. } = verdict(&sealed[..len]) else { panic!("{len}") };
        assert_eq!(place, at, "cut to {len}");
    }
}

#[test]
fn every_flipped_byte_is_named() {
    let slices = slices(1);
    let starts = starts(&slices);
    let mut whole = slices.concat();
    let end = whole.len();
    whole.extend(seal_of(&whole, 1).to_part());
    for at in 0..whole.len() {
        for flip in [0xff, 1, 2, 3, 0x80, 0x20] {
            let mut wrong = whole.clone();
            wrong[at] ^= flip;
            let verdict = verdict(&wrong);
            let what = format!("byte {at} with {flip:#x}: {verdict:?}");
            let slice = starts.iter().filter(|start| **start <= at as u64).count() - 1;
            let found = verdict.place().unwrap_or_else(|| panic!("{what}"));
            assert_eq!(found.slice, slice as u64, "{what}");
            // A slice that says it has no body is filler, and what follows is no part.
            assert!([starts[slice], starts[slice] + 24].contains(&found.offset), "{what}");
            match verdict {
                Verdict::Edited { .. } => {}
                // The authority's key in the certificate of the first checkpoint, or what the certificate says.
                Verdict::UnknownKey { .. } => assert_eq!(slice, 0, "{what}"),
                Verdict::NotCanonical { .. } | Verdict::Foreign { .. } => {
                    assert!(at >= end, "{what}")
                }
                // The number of slices that the seal says.
                Verdict::Removed { .. } => panic!("believed a seal with a wrong signature: {what}"),
                _ => panic!("{what}"),
            }
        }
    }
}

/// `Intact` for the slices in order.
fn arranged(order: &[usize]) -> Verdict {
    let slices = slices(1);
    let picked: Vec<u8> = order.iter().flat_map(|slice| slices[*slice].clone()).collect();
    verdict(&picked)
}

/// Where the slice at a position begins.
fn at(order: &[usize], position: usize) -> Place {
    let slices = slices(1);
    place(position, order[..position].iter().map(|slice| slices[*slice].len() as u64).sum())
}

#[test]
fn every_swap_is_named() {
    assert_eq!(arranged(&[0, 1, 2, 3, 4]), Verdict::Intact);
    for first in 0..5 {
        for second in first + 1..5 {
            let mut order = [0, 1, 2, 3, 4];
            order.swap(first, second);
            let place = at(&order, first);
            let (expected, found) = (first as u64, second as u64);
            assert_eq!(arranged(&order), Verdict::Reordered { place, expected, found });
        }
    }
}

#[test]
fn every_removal_is_named() {
    for first in 0..5 {
        for count in 1..=5 - first {
            let order: Vec<usize> = (0..first).chain(first + count..5).collect();
            let place = at(&order, first);
            let expected = if first + count == 5 {
                let since = (first > 0).then(now);
                Verdict::Truncated { slices: first as u64, offset: place.offset, since }
            } else {
                Verdict::Removed { place, first: first as u64, count: count as u64 }
            };
            assert_eq!(arranged(&order), expected, "{order:?}");
        }
    }
    // The seal knows how many there were.
    let slices = slices(1);
    let seal = seal_of(&slices.concat(), 1).to_part();
    let cut = [slices[..3].concat(), seal].concat();
    let place = at(&[0, 1, 2], 3);
    let place = Place { slice: 3, ..place };
    assert_eq!(verdict(&cut), Verdict::Removed { place, first: 3, count: 2 });
}

#[test]
fn every_repetition_is_named() {
    for slice in 0..5 {
        for position in 0..=5 {
            let mut order = vec![0, 1, 2, 3, 4];
            order.insert(position, slice);
            let verdict = arranged(&order);
            let number = slice as u64;
            let expected = if position > slice {
                // The copy stands behind the original; where they touch, the second counts as the copy.
                Verdict::Repeated { place: at(&order, position), slice: number }
            } else if position == slice {
                Verdict::Repeated { place: at(&order, position + 1), slice: number }
            } else {
                let (place, expected) = (at(&order, position), position as u64);
                Verdict::Reordered { place, expected, found: number }
            };
            assert_eq!(verdict, expected, "{order:?}");
        }
    }
}

#[test]
fn every_foreign_slice_is_named() {
    let (own, other) = (slices(1), slices(2));
    for (from, foreign) in other.iter().enumerate() {
        for to in 0..=5 {
            for insert in [true, false] {
                let mut mixed = own.clone();
                match (insert, mixed.get_mut(to)) {
                    (true, _) => mixed.insert(to, foreign.clone()),
                    (false, Some(slice)) => slice.clone_from(foreign),
                    (false, None) => continue,
                }
                let verdict = verdict(&mixed.concat());
                let what = format!("{from} to {to}, {insert}: {verdict:?}");
                let place = verdict.place().unwrap_or_else(|| panic!("{what}"));
                match (from, to) {
                    // A file that begins with the other recording is that one, and then ours are foreign.
                    (0, 0) => assert_eq!((verdict.word(), place.slice), ("foreign", 1), "{what}"),
                    // One that begins in the middle of it says nothing of itself yet.
                    (_, 0) => {
                        let expected = if insert { "reordered" } else { "removed" };
                        assert_eq!((verdict.word(), place.slice), (expected, 0), "{what}");
                    }
                    _ => {
                        assert_eq!((verdict.word(), place.slice), ("foreign", to as u64), "{what}")
                    }
                }
            }
        }
    }
    let whole = own.concat();
    let asked = verify(Cursor::new(&whole), &trusted(), Some(SessionId(id(2)))).unwrap();
    assert_eq!((asked.verdict.word(), asked.verdict.place()), ("foreign", Some(place(0, 0))));
    // Of another cluster, whoever signed.
    let cluster = Header { cluster: "other.test".parse().unwrap(), ..header(1) };
    let elsewhere = bytes(&record(cluster, &KEY, |_| ())).concat();
    assert_eq!(verdict(&elsewhere).word(), "foreign");
    // A seal of another recording.
    let sealed = [whole, seal_of(&other.concat(), 2).to_part()].concat();
    assert_eq!(verdict(&sealed).word(), "foreign");
}

#[test]
fn keys_that_nobody_vouches_for() {
    let stranger = signer(now, Some(key(&authority("example.test"), 99)));
    let other_host = signer(now, Some(key(&AUTHORITY, 98)));
    for signer in [stranger, other_host] {
        let whole = bytes(&record(header(1), &signer, |_| ())).concat();
        let verdict = verdict(&whole);
        assert_eq!((verdict.word(), verdict.place()), ("unknown_key", Some(place(0, 0))));
    }
    // A key past its end is not used: its slices have no checkpoint.
    let ended = signer(later, Some(key(&AUTHORITY, 99)));
    let whole = bytes(&record(header(1), &ended, |_| ())).concat();
    assert_eq!(verdict(&whole), Verdict::Unvouched { signed: 0, slices: 5 });
}

/// Whoever has a key that has ended may go on signing with it.
#[test]
fn a_key_that_has_ended() {
    let (ended, origin) = (key(&AUTHORITY, 99), header(1).origin());
    let mut link = Link {
        seq: 0,
        end: true,
        previous: origin,
        slice: [0; 32],
        origin: Some(header(1)),
        checkpoint: None,
    };
    for (hours, with_certificate) in [(0, true), (3, true), (3, false)] {
        let trusted = trusted();
        let mut vouch = Vouch::new(&trusted);
        let time = SECOND.unsigned_abs() + hours * 3600;
        let message = crate::checkpoint::Checkpoint::message(&origin, &link, time);
        let signature = ended.sign(crate::checkpoint::NAMESPACE, &message).unwrap();
        let certificate = if with_certificate { ended.certificate().to_vec() } else { Vec::new() };
        let checkpoint = crate::checkpoint::Checkpoint { time, signature, certificate };
        link.checkpoint = Some(checkpoint.encode());
        let checked = vouch.checkpoint(&link, &header(1), place(0, 0));
        assert_eq!(checked.is_ok(), hours == 0);
        assert!(checked.is_ok() || checked.unwrap_err().word() == "unknown_key");
    }
}

#[test]
fn what_was_taken_off_is_missed() {
    // The chain made anew without checkpoints.
    let unsigned = bytes(&record(header(1), &signer(now, None), |_| ())).concat();
    assert_eq!(verdict(&unsigned), Verdict::Unvouched { signed: 0, slices: 5 });
    // With a seal, the auth service vouches for it.
    let sealed = [unsigned.clone(), {
        let report = look(&unsigned);
        let received = Received {
            session: SessionId(id(1)),
            state: EndState::Complete,
            slices: 5,
            bytes: unsigned.len() as u64,
            head: report.head.unwrap(),
            time: 0,
        };
        Seal::sign(received, &AUTHORITY.ssh_ca().unwrap()).unwrap().to_part()
    }]
    .concat();
    assert_eq!(verdict(&sealed), Verdict::Intact);
    // The chain taken off.
    let mut bare = Vec::new();
    for slice in record(header(1), &KEY, |_| ()) {
        let body = &slice.bytes[crate::format::HEADER..];
        let len = Records::new().open(body).unwrap();
        bare.extend(crate::format::header(len as u64));
        bare.extend(&body[..len]);
    }
    assert_eq!(verdict(&bare), Verdict::Unsigned);
    // Checkpoints that end before the recording does.
    let one = signer(now, Some(key(&AUTHORITY, 99)));
    let longer = record(header(1), &one, |n| {
        if n == 1 {
            one.replace(key(&authority("example.test"), 99));
        }
    });
    assert_eq!(verdict(&bytes(&longer).concat()).word(), "unknown_key");
}

#[test]
fn a_key_that_is_replaced_shows_its_certificate() {
    let one = signer(now, Some(key(&AUTHORITY, 99)));
    let slices = record(header(1), &one, |n| {
        if n == 1 {
            one.replace(key(&AUTHORITY, 99));
        }
    });
    assert_eq!(verdict(&bytes(&slices).concat()), Verdict::Intact);
    assert!(slices[2].bytes.len() > slices[1].bytes.len() + 400);
}

#[test]
fn more_than_the_recorder_wrote() {
    let slices = slices(1);
    let whole = slices.concat();
    let filler = |padding: usize, byte: u8| {
        let mut part = crate::format::header(0).to_vec();
        part[16..24].copy_from_slice(&(padding as u64).to_be_bytes());
        part.resize(part.len() + padding, byte);
        part
    };
    let end = place(5, whole.len() as u64);
    for tail in [filler(10, 0), filler(10, 1), vec![0; 3], vec![0; 100], b"more".repeat(20)] {
        let verdict = verdict(&[&whole[..], &tail].concat());
        assert_eq!((verdict.word(), verdict.place()), ("not_canonical", Some(end)));
    }
    let between = [&slices[0][..], &filler(10, 1), &slices[1..].concat()].concat();
    assert_eq!(
        verdict(&between),
        Verdict::NotCanonical {
            place: place(1, slices[0].len() as u64),
            why: "padding is not zero".to_owned()
        }
    );
    // Filler of zeros may stand between slices, but not where the auth service did not receive it.
    let between = [&slices[0][..], &filler(10, 0), &slices[1..].concat()].concat();
    assert_eq!(verdict(&between), Verdict::Intact);
    let sealed = [between, seal_of(&whole, 1).to_part()].concat();
    assert_eq!(verdict(&sealed).word(), "not_canonical");
    let twice = seal_of(&whole, 1).to_part().repeat(2);
    assert_eq!(verdict(&[whole, twice].concat()).word(), "not_canonical");
}

/// The auth service vouches for what it received of a recorder that died.
#[test]
fn truncated_and_sealed() {
    let slices = slices(1);
    let cut = slices[..3].concat();
    let sealed = [cut.clone(), seal_of(&cut, 1).to_part()].concat();
    let report = look(&sealed);
    let offset = cut.len() as u64;
    assert_eq!(report.verdict, Verdict::Truncated { slices: 3, offset, since: Some(now()) });
    assert_eq!(report.slices, 3);
    assert_eq!(report.seal.map(|seal| seal.state), Some(EndState::Truncated));
    // It does not go on behind that.
    let longer = [sealed, slices[3].clone(), slices[4].clone()].concat();
    assert_eq!(verdict(&longer).word(), "not_canonical");
}

#[test]
fn not_of_this_kind() {
    for (bytes, word) in [
        (&b""[..], "truncated"),
        (b"\x89PNG\r\n\x1a\n and so on and on and on", "edited"),
        (b"0.events.gz and so on and on and on", "unreadable"),
    ] {
        assert_eq!(verdict(bytes).word(), word);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(data: Vec<u8>) {
        crate::fuzz::checkpoint(&data);
    }

    #[test]
    fn any_damage_is_survived_and_found(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut: prop::sample::Index,
    ) {
        let whole = slices(1).concat();
        let mut wrong = whole.clone();
        for (place, byte) in places {
            let at = place.index(wrong.len());
            wrong[at] = byte;
        }
        wrong.truncate(cut.index(wrong.len()) + 1);
        crate::fuzz::checkpoint(&wrong);
        prop_assert_eq!(wrong == whole, verdict(&wrong) == Verdict::Intact);
    }
}
