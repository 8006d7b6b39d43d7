//! The fuzz targets of `fuzz/`, for seconds each: well-formed inputs, damaged in ways that parsers dislike. An input
//! that breaks a promise is printed; it belongs into a test of the crate then.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use shared_pki::ssh_key::certificate::{Builder, CertType};
use shared_pki::{
    CaKind, CertAuthority, CheckpointKey, HostCertSpec, HostTlsSpec, KeyPair, RecorderCertSpec,
    TlsKey, UserCertSpec,
};
use shared_recording::checkpoint::Checkpoint;
use shared_recording::{EndState, Header, Limits, Received, Seal, SessionRecorder, Signer};
use shared_ssh::wire::{
    AuthMethod, IdentityEntry, Reply, Request, SSH_CONNECTION, SessionBind, UserAuthRequest,
    encode_userauth,
};
use shared_types::{ClusterName, HostId, SessionId, SystemRole};

/// How long each target runs.
const FOR: Duration = Duration::from_secs(3);
const HOUR: Duration = Duration::from_secs(3600);

/// Numbers that are nothing special but the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `limit`; 0 where nothing is.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        const LIKED: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, 0x1b, b'@', b':', b'-', b'\n', b'"', 0x20];
        if self.next().is_multiple_of(2) {
            LIKED[self.below(LIKED.len())]
        } else {
            self.next().to_le_bytes()[3]
        }
    }

    /// One of `seeds`, damaged a little or a lot.
    fn damaged(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut data = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(6) {
            let (at, end) = (self.below(data.len()), self.below(data.len() + 1));
            let (from, to) = (at.min(end), at.max(end));
            match self.below(7) {
                0 if !data.is_empty() => data[at] = self.byte(),
                1 if !data.is_empty() => data[at] ^= 1 << self.below(8),
                2 => data.truncate(end),
                3 => data.insert(end, self.byte()),
                4 if data.len() < 100_000 => {
                    let piece = data[from..to].to_vec();
                    data.splice(end..end, piece);
                }
                5 => drop(data.drain(from..to)),
                _ => {
                    let length =
                        [0_u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX][self.below(5)].to_be_bytes();
                    for (byte, new) in data.iter_mut().skip(at).zip(length) {
                        *byte = new;
                    }
                }
            }
        }
        if self.below(8) == 0 {
            let other = &seeds[self.below(seeds.len())];
            let cut = self.below(other.len());
            data.truncate(self.below(data.len() + 1));
            data.extend_from_slice(&other[cut..]);
        }
        data
    }
}

/// Runs a target on its seeds and on damaged ones.
fn fuzz(target: impl Fn(&[u8]), seeds: &[Vec<u8>]) -> Result<()> {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let begun = Instant::now();
    let mut runs = 0_u64;
    let mut seeds_left = seeds.iter();
    while begun.elapsed() < FOR {
        let data = seeds_left.next().cloned().unwrap_or_else(|| numbers.damaged(seeds));
        let kept = std::panic::catch_unwind(AssertUnwindSafe(|| target(&data)));
        ensure!(
            kept.is_ok(),
            "after {runs} inputs, this one breaks a promise: {}",
            data.escape_ascii()
        );
        runs += 1;
    }
    ensure!(runs > 100, "only {runs} inputs");
    Ok(())
}

fn moment() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap_or_default()
}

fn cluster() -> Result<ClusterName> {
    Ok("example.com".parse()?)
}

#[test]
fn certificates() -> Result<()> {
    let users = CertAuthority::generate(CaKind::User, &cluster()?, moment())?;
    let hosts = CertAuthority::generate(CaKind::Host, &cluster()?, moment())?;
    let key = KeyPair::generate()?;
    let logins = vec!["root".parse()?, "joe".parse()?];
    let user =
        UserCertSpec::new(key.public().clone(), "joe".parse()?, logins, cluster()?, moment(), HOUR);
    let user = users.ssh_ca()?.sign_user(user)?;
    let host = hosts.ssh_ca()?.sign_host(HostCertSpec {
        public_key: key.public().clone(),
        principals: vec!["db".into(), "*.example.com".into()],
        role: SystemRole::Node,
        cluster: cluster()?,
        now: moment(),
        ttl: Some(HOUR),
    })?;
    // What no authority of ours would sign: a critical option, and a certificate without principals.
    let mut odd = Builder::new(vec![7; 16], key.public(), 1_789_999_000, 1_790_009_000)?;
    odd.cert_type(CertType::User)?
        .key_id("joe")?
        .valid_principal("root")?
        .critical_option("force-command", "id")?;
    let mut open = Builder::new(vec![7; 16], key.public(), 1_789_999_000, 1_790_009_000)?;
    open.cert_type(CertType::Host)?.all_principals_valid()?;
    let tls_key = TlsKey::generate()?;
    let spec = HostTlsSpec {
        host_id: HostId::random(),
        role: SystemRole::Auth,
        cluster: cluster()?,
        names: vec!["localhost".into()],
    };
    let tls = hosts.tls_ca()?.sign_server(&spec, &tls_key.public(), moment(), Some(HOUR))?;
    let seeds = [
        user.to_bytes()?,
        host.to_bytes()?,
        odd.sign(key.private())?.to_bytes()?,
        open.sign(key.private())?.to_bytes()?,
        user.to_openssh()?.into_bytes(),
        key.public_openssh().into_bytes(),
        tls.der().to_vec(),
    ];
    fuzz(shared_pki::fuzz::certificate, &seeds)
}

#[test]
fn agent_messages() -> Result<()> {
    let hosts = CertAuthority::generate(CaKind::Host, &cluster()?, moment())?;
    let key = KeyPair::generate()?;
    let host = hosts.ssh_ca()?.sign_host(HostCertSpec {
        public_key: key.public().clone(),
        principals: vec!["db".into()],
        role: SystemRole::Node,
        cluster: cluster()?,
        now: moment(),
        ttl: Some(HOUR),
    })?;
    let blob = host.to_bytes()?;
    let request = |method| {
        encode_userauth(&UserAuthRequest {
            session_id: &[7; 32],
            user: b"root",
            service: SSH_CONNECTION.as_bytes(),
            method,
            algorithm: b"ssh-ed25519-cert-v01@openssh.com",
            key: &blob,
        })
    };
    let bind = SessionBind {
        host_key: &blob,
        session_id: &[7; 32],
        signature: &blob[..80],
        forwarding: false,
    };
    let entry = IdentityEntry { key: blob.clone(), comment: "teleport:joe".into() };
    let seeds = [
        bind.encode(),
        Request::encode_list(),
        Request::encode_sign(&blob, &request(AuthMethod::HostBound(&blob)), 0),
        Request::encode_remove(&blob),
        request(AuthMethod::PublicKey),
        request(AuthMethod::HostBound(&blob)),
        Reply::Identities(vec![entry.clone(), entry]).encode(),
        Reply::Signature(blob.clone()).encode(),
        [bind.encode(), vec![0xff], Request::encode_list()].concat(),
    ];
    fuzz(shared_ssh::fuzz::agent, &seeds)
}

#[test]
fn recordings() -> Result<()> {
    let header =
        Header { cluster: cluster()?, session: SessionId::random(), recorder: HostId::random() };
    let mut recorder = SessionRecorder::new(header, Limits { raw: 1024 }, None);
    let mut slices = Vec::new();
    for line in 0..60 {
        recorder.output(
            format!("line {line} \x1b[3{}mred\x1b[0m\r\n", line % 8).into(),
            moment(),
            &mut slices,
        )?;
    }
    recorder.finish(moment(), &mut slices)?;
    let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect();
    let first = slices.first().map(|slice| slice.bytes.to_vec()).unwrap_or_default();
    ensure!(slices.len() > 1, "one slice only");
    fuzz(shared_recording::fuzz::recording, &[whole, first])
}

#[test]
fn checkpoints() -> Result<()> {
    let authority = CertAuthority::generate(CaKind::Recording, &cluster()?, moment())?;
    let (key, recorder) = (KeyPair::generate()?, HostId::random());
    let certificate = authority.ssh_ca()?.sign_recorder(RecorderCertSpec {
        public_key: key.public().clone(),
        host_id: recorder,
        role: SystemRole::Proxy,
        cluster: cluster()?,
        now: moment(),
        ttl: HOUR,
    })?;
    let signer = Signer::new(moment);
    signer.replace(CheckpointKey::new(key, &certificate)?);
    let header = Header { cluster: cluster()?, session: SessionId::random(), recorder };
    let mut recorder =
        SessionRecorder::new(header.clone(), Limits::default(), None).signed(Arc::new(signer));
    let mut slices = Vec::new();
    for line in 0..5 {
        recorder.output(format!("line {line}").into(), moment(), &mut slices)?;
        slices.extend(recorder.flush());
    }
    recorder.finish(moment(), &mut slices)?;
    let mut whole: Vec<u8> = slices.iter().flat_map(|slice| slice.bytes.to_vec()).collect();
    let received = Received {
        session: header.session,
        state: EndState::Complete,
        slices: slices.len() as u64,
        bytes: whole.len() as u64,
        head: slices.last().map(|slice| slice.head).unwrap_or_default(),
        time: 0,
    };
    let seal = Seal::sign(received, &authority.ssh_ca()?)?.to_part();
    whole.extend(&seal);
    let checkpoint =
        Checkpoint { time: 7, signature: [7; 64], certificate: certificate.to_bytes()? }.encode();
    fuzz(shared_recording::fuzz::checkpoint, &[whole, seal[24..].to_vec(), checkpoint])
}

#[test]
fn terminal_output() -> Result<()> {
    let seeds = [
        b"plain \xe6\xbc\xa2\xe5\xad\x97 \x1b[1;31mred\x1b[0m\r\n\x1b[2J\x1b[H\x1b[?25l".to_vec(),
        b"\x1b]52;c;ZXZpbA==\x07\x1b]0;title\x1b\\\x1bPq#0\x1b\\\x1b[c\x1b[6n\x1b[?1049h\x1b[?2004h".to_vec(),
        b"\x1b_apc\x1b\\\x1b^pm\x1b\\\x9b31m\x90x\x9c\x1b]8;;http://x\x07link\x1b(0lqk\x1b(B".to_vec(),
    ];
    fuzz(shared_recording::fuzz::output, &seeds)
}

#[test]
fn proxy_requests() -> Result<()> {
    let seeds = [
        "proxy:web-1:22",
        "proxy:[::1]:22",
        "proxy:::1:22",
        "proxy:10.0.0.7:3022@leaf.example.com",
        "proxy:web-1:22@default@leaf",
        "proxysites",
        "proxy:@leaf",
        "proxy:-oProxyCommand=x:22",
        "proxy:a\x1b[0m\u{202e}:22",
    ];
    fuzz(shared_ssh::fuzz::proxy_request, &seeds.map(|seed| seed.as_bytes().to_vec()))
}

#[test]
fn file_copies() -> Result<()> {
    // Each piece: side, length, bytes (shared-transfer, `fuzz`).
    let talk = |choice: u8, lines: &[(u8, &[u8])]| {
        let mut seed = vec![choice];
        for (side, said) in lines {
            seed.push(*side);
            seed.extend(u16::try_from(said.len()).unwrap_or_default().to_be_bytes());
            seed.extend_from_slice(said);
        }
        seed
    };
    let packet = |kind: u8, body: &[&[u8]]| {
        let body = body.concat();
        let length = u32::try_from(body.len() + 1).unwrap_or_default();
        [&length.to_be_bytes()[..], &[kind], &body].concat()
    };
    let number = |number: u32| number.to_be_bytes();
    let open = packet(3, &[&number(1), &number(1), b"a", &number(0x1a), &number(0)]);
    let write = packet(6, &[&number(2), &number(1), b"h", &[0; 8], &number(3), b"abc"]);
    let read = packet(5, &[&number(3), &number(1), b"h", &[0; 8], &number(3)]);
    let rename = packet(18, &[&number(4), &number(1), b"a", &number(1), b"b"]);
    let extended = packet(200, &[&number(5), &number(9), b"copy-data", &number(1), b"h", &[0; 20]]);
    let close = packet(4, &[&number(6), &number(1), b"h"]);
    let answers = [
        packet(102, &[&number(1), &number(1), b"h"]),
        packet(101, &[&number(2), &number(0), &number(0), &number(0)]),
        packet(103, &[&number(3), &number(3), b"abc"]),
        packet(101, &[&number(6), &number(0), &number(0), &number(0)]),
    ];
    let asked = [open, write, read, rename, extended, close].concat();
    let (init, version) = (packet(1, &[&number(3)]), packet(2, &[&number(3)]));
    let lines: [(u8, &[u8]); 4] = [(0, &init), (1, &version), (0, &asked), (1, &answers.concat())];
    let scp: [(u8, &[u8]); 6] = [
        (1, b"\0"),
        (0, b"D0755 0 d\n"),
        (1, b"\0"),
        (0, b"C0644 3 a\n"),
        (1, b"\0"),
        (0, b"abc\0E\n"),
    ];
    let mut seeds: Vec<_> = (0..4).map(|choice| talk(choice, &lines)).collect();
    seeds.push(talk(8, &scp));
    fuzz(shared_transfer::fuzz::transfer, &seeds)
}

#[test]
fn postgres() -> Result<()> {
    let message = |tag: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap_or_default();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    };
    let said = [
        message(b'Q', b"select 1, 'a text longer than what is kept of it'\0"),
        message(b'P', b"s\0select $1\0\0\x01\0\0\0\x17"),
        message(b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\0"),
        message(b'E', b"p\0\0\0\0\0"),
        message(b'd', &[7; 60]),
        message(b'F', b"\0\0\x04\xd2\0\0\0\x01\0\0\0\x01a\0\0"),
        message(b'C', b"Ss\0"),
        message(b'X', b""),
    ];
    let heard = [
        shared_wire::postgres::AUTHENTICATION_OK.to_vec(),
        message(b'K', b"\0\0\0\x07abcd"),
        message(b'Z', b"I"),
        message(b'D', &[1; 60]),
        message(b'C', b"SELECT 3\0"),
        message(b'E', b"SERROR\0C42P01\0Mno such table\0\0"),
    ];
    let first = b"\0\0\0\x20\0\x03\0\0user\0joe\0database\0shop\0\0";
    let seeds = [
        shared_wire::postgres::SSL_REQUEST.to_vec(),
        first.to_vec(),
        [&[3][..], &said.concat()].concat(),
        [&[5][..], &heard.concat()].concat(),
    ];
    fuzz(shared_wire::postgres::fuzz::postgres, &seeds)
}

#[test]
fn redis() -> Result<()> {
    let said: [&[u8]; 5] = [
        b"\x03*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\x00\r\nb\r\n*1\r\n$4\r\nPING\r\n",
        b"\x05SET k \"a b\\x00\" 'it\\'s'\r\n\r\nAUTH alice pw\n*0\r\n",
        b"\x02*6\r\n$7\r\nMIGRATE\r\n$1\r\nh\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\n0\r\n$1\r\n9\r\n",
        b"\x07*4\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$11\r\nrequirepass\r\n$2\r\npw\r\n",
        b"\x09MULTI\r\nCLIENT REPLY OFF\r\nSUBSCRIBE a b\r\nEXEC\r\n",
    ];
    fuzz(shared_wire::redis::fuzz::redis_commands, &said.map(<[u8]>::to_vec))?;
    let heard: [&[u8]; 4] = [
        b"\x03+OK\r\n-ERR no\r\n:12\r\n$3\r\nabc\r\n$-1\r\n*2\r\n$1\r\na\r\n*1\r\n-ERR x\r\n",
        b"\x04%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n#t\r\n|1\r\n+ttl\r\n:1\r\n_\r\n(123\r\n=5\r\ntxt:a\r\n!3\r\nERR\r\n",
        b"\x05*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n",
        b"\x06>2\r\n+invalidate\r\n_\r\n+1.5 [0 127.0.0.1:1] \"GET\" \"k\"\r\n",
    ];
    fuzz(shared_wire::redis::fuzz::redis_replies, &heard.map(<[u8]>::to_vec))
}

/// The control: a promise that is broken is seen.
#[test]
fn a_target_that_panics_is_told() {
    let picky = |data: &[u8]| assert!(!data.contains(&0xff));
    assert!(fuzz(picky, &[b"seed".to_vec()]).is_err());
}
