//! What this service vouches for: recorders' keys, and recordings that arrived.

use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use shared_api::{CompleteUpload, ErrorKind, RecorderCertRequest};
use shared_events::{AuditEvent, SessionEnd, SessionStart, SessionUpload};
use shared_pki::verify::SshVerifier;
use shared_pki::{CaKind, CheckpointKey, KeyPair, TrustedAuthority};
use shared_recording::{
    EndState, Header, Limits, Report, SessionRecorder, Signer, Verdict, verify,
};
use shared_types::{HostId, SessionId, SystemRole};
use uuid::Uuid;

use super::{Bed, host, name, settings};

fn exported(bed: &Bed) -> TrustedAuthority {
    let text = bed.service.export(Some("recording")).unwrap();
    TrustedAuthority::from_authorized_lines(CaKind::Recording, &text).unwrap()
}

async fn signer(bed: &Bed) -> Arc<Signer> {
    let key = KeyPair::generate().unwrap();
    let ask = RecorderCertRequest { public_key: key.public_openssh() };
    let reply = bed.service.sign_recorder(&bed.system(SystemRole::Proxy), ask).await.unwrap();
    let certificate = shared_pki::parse_certificate_line(&reply.certificate).unwrap();
    let signer = Signer::new(Utc::now);
    signer.replace(CheckpointKey::new(key, &certificate).unwrap());
    Arc::new(signer)
}

/// Slices of a signed recording; the last is its end.
async fn recorded(bed: &Bed, sid: SessionId) -> Vec<Vec<u8>> {
    recorded_by(bed, sid, host()).await
}

async fn recorded_by(bed: &Bed, sid: SessionId, recorder: HostId) -> Vec<Vec<u8>> {
    let header = Header { cluster: name("example.test"), session: sid, recorder };
    let mut recorder =
        SessionRecorder::new(header, Limits::default(), None).signed(signer(bed).await);
    let mut slices = Vec::new();
    let mut start = SessionStart::default();
    start.session.sid = sid.to_string();
    start.user.user = "joe".to_owned();
    recorder.event(&mut start.into(), Utc::now(), &mut slices).unwrap();
    for line in ["one", "two"] {
        recorder.output(line.into(), Utc::now(), &mut slices).unwrap();
        slices.extend(recorder.flush());
    }
    recorder.finish(Utc::now(), &mut slices).unwrap();
    slices.iter().map(|slice| slice.bytes.to_vec()).collect()
}

async fn upload(bed: &Bed, sid: SessionId, bytes: &[u8], truncated: bool) {
    let proxy = bed.system(SystemRole::Proxy);
    let id = Uuid::new_v4();
    let part = Bytes::copy_from_slice(bytes);
    bed.service.upload_part(&proxy, id, &sid, 1, part).await.unwrap();
    let whole = CompleteUpload { parts: 1, bytes: bytes.len() as u64, truncated };
    for _ in 0..2 {
        bed.service.complete_upload(&proxy, id, &sid, whole.clone()).await.unwrap();
    }
}

async fn download(bed: &Bed, sid: SessionId) -> Vec<u8> {
    let stream = bed.service.recording(&bed.admin(), &sid).await.unwrap();
    stream.try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

fn look(bed: &Bed, bytes: &[u8]) -> Report {
    verify(Cursor::new(bytes), &exported(bed), None).unwrap()
}

async fn uploads(bed: &Bed) -> Vec<SessionUpload> {
    let (now, day) = (bed.service.now(), chrono::Duration::days(1));
    let found = bed.service.audit.search(now - day, now + day, &[SessionUpload::KIND], 10).await;
    let found = found.unwrap().into_iter().map(|event| match event {
        AuditEvent::SessionUpload(upload) => upload,
        other => panic!("{other:?}"),
    });
    found.collect()
}

#[tokio::test]
async fn what_another_host_recorded_is_not_sealed() {
    let bed = Bed::new().await;
    let sid = SessionId::random();
    let whole = recorded_by(&bed, sid, HostId::random()).await.concat();
    upload(&bed, sid, &whole, false).await;
    let [event] = uploads(&bed).await.try_into().unwrap();
    assert_eq!((event.recording_state.as_str(), event.recording_head.as_str()), ("damaged", ""));
    assert_eq!(download(&bed, sid).await, whole, "kept, and not vouched for");
}

#[tokio::test]
async fn a_recording_is_sealed_as_it_arrived() {
    let bed = Bed::new().await;
    let sid = SessionId::random();
    let slices = recorded(&bed, sid).await;
    let whole = slices.concat();
    upload(&bed, sid, &whole, false).await;
    let fetched = download(&bed, sid).await;
    assert!(fetched.starts_with(&whole) && fetched.len() > whole.len());
    let report = look(&bed, &fetched);
    assert_eq!((&report.verdict, report.signed, report.slices), (&Verdict::Intact, 3, 3));
    let seal = report.seal.unwrap();
    assert_eq!((seal.state, seal.slices, seal.session), (EndState::Complete, 3, sid));
    // What is stored is what was uploaded, and verifies as well.
    let [event] = uploads(&bed).await.try_into().unwrap();
    assert_eq!(
        (event.recording_state.as_str(), event.recording_slices, event.recording_bytes),
        ("complete", 3, whole.len() as u64)
    );
    assert_eq!(event.recording_head, hex::encode(report.head.unwrap()));
    assert_eq!(look(&bed, &whole).verdict, Verdict::Intact);
    // The seal outlives a cut that the recorder's own signatures do not tell from a crash.
    let seal = &fetched[whole.len()..];
    let cut = [slices[..2].concat(), seal.to_vec()].concat();
    assert_eq!(look(&bed, &cut).verdict.word(), "removed");
}

#[tokio::test]
async fn a_recorder_that_died_leaves_a_truncated_recording() {
    let bed = Bed::new().await;
    let sid = SessionId::random();
    let cut = recorded(&bed, sid).await[..2].concat();
    upload(&bed, sid, &cut, true).await;
    let report = look(&bed, &download(&bed, sid).await);
    let Verdict::Truncated { slices: 2, offset, since: Some(_) } = report.verdict else {
        panic!("{}", report.verdict)
    };
    assert_eq!(offset, cut.len() as u64);
    assert_eq!(report.seal.map(|seal| seal.state), Some(EndState::Truncated));
    let [event] = uploads(&bed).await.try_into().unwrap();
    assert_eq!((event.recording_state.as_str(), event.recording_slices), ("truncated", 2));
    let ends = bed.events().await.iter().filter(|kind| kind.starts_with(SessionEnd::KIND)).count();
    assert_eq!(ends, 1);
}

#[tokio::test]
async fn what_is_no_whole_chain_is_not_sealed() {
    let bed = Bed::new().await;
    let sids = [(); 4].map(|()| SessionId::random());
    let mut recordings = Vec::new();
    for sid in sids {
        recordings.push(recorded(&bed, sid).await);
    }
    let [_, other, third, swapped] = &recordings[..] else { panic!() };
    let cases = [
        (b"not a recording".to_vec(), false, "damaged"),
        // Of another session.
        (third.concat(), false, "damaged"),
        (other.concat(), false, "damaged"),
        ([&swapped[0][..], &swapped[2], &swapped[1]].concat(), false, "damaged"),
    ];
    for (sid, (bytes, truncated, state)) in sids.into_iter().zip(cases) {
        upload(&bed, sid, &bytes, truncated).await;
        assert!(bed.service.seal_part(&sid).await.unwrap().is_none(), "{state}");
        let all = uploads(&bed).await;
        let told = all.iter().find(|event| event.session.sid == sid.to_string()).unwrap();
        assert_eq!((told.recording_state.as_str(), told.recording_head.as_str()), (state, ""));
    }
    // Torn within a slice: what is whole is truncated, and nothing is sealed behind what is torn.
    let sid = SessionId::random();
    let slices = recorded(&bed, sid).await;
    upload(&bed, sid, &[&slices[0][..], &slices[1][..20]].concat(), true).await;
    assert!(bed.service.seal_part(&sid).await.unwrap().is_none());
    let all = uploads(&bed).await;
    let told = all.iter().find(|event| event.session.sid == sid.to_string()).unwrap();
    assert_eq!(told.recording_state, "truncated");
}

#[tokio::test]
async fn recorders_are_services_and_their_keys_do_not_last() {
    let bed = Bed::new().await;
    bed.user("ed", &["editor"], &[]).await;
    let key = KeyPair::generate().unwrap();
    let ask = || RecorderCertRequest { public_key: key.public_openssh() };
    let trusted = [exported(&bed)];
    for role in [SystemRole::Proxy, SystemRole::Node] {
        let reply = bed.service.sign_recorder(&bed.system(role), ask()).await.unwrap();
        let certificate = shared_pki::parse_certificate_line(&reply.certificate).unwrap();
        let known = SshVerifier::new(&trusted, bed.service.now()).recorder(&certificate).unwrap();
        assert_eq!((known.host_id, known.role), (host(), role));
        let end: DateTime<Utc> = reply.valid_until.unwrap();
        assert!(end - bed.service.now() < chrono::Duration::days(4));
        assert!(SshVerifier::new(&trusted, end).recorder(&certificate).is_err());
    }
    for caller in
        [bed.system(SystemRole::Admin), bed.system(SystemRole::Auth), bed.caller("ed").await]
    {
        let refused = bed.service.sign_recorder(&caller, ask()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
    }
    for bad in ["", "nonsense", &format!("{} x", exported(&bed).ssh_keys[0])] {
        let ask = RecorderCertRequest { public_key: bad.to_owned() };
        let refused =
            bed.service.sign_recorder(&bed.system(SystemRole::Proxy), ask).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BadRequest, "{bad}");
    }
}

/// A data directory from before there was such an authority gets one, and keeps it.
#[tokio::test]
async fn the_authority_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = Bed::open(settings(folder.path())).await;
    let made = exported(&first);
    first.service.close().await;
    drop(first);
    let again = Bed::open(settings(folder.path())).await;
    assert_eq!(exported(&again), made);
    let key = crate::service::AuthService::authority_key(CaKind::Recording).unwrap();
    let gone = server_store::Op::Delete { key, condition: server_store::Condition::Any };
    again.service.store().write(vec![gone]).await.unwrap();
    again.service.close().await;
    drop(again);
    let renewed = Bed::open(settings(folder.path())).await;
    assert_ne!(exported(&renewed), made);
}
