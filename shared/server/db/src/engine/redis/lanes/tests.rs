//! Both directions with a made-up server, which says what it read.

use std::sync::atomic::AtomicU64;

use proptest::prelude::*;
use shared_events::AuditEvent;
use shared_wire::redis::{Commands, encode};
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

use super::*;
use crate::audit::AuditError;
use crate::session::EndReason;

/// A session that remembers what it was told.
#[derive(Default)]
struct Host {
    traffic: AtomicU64,
    told: Mutex<Vec<String>>,
}

impl Watched for Host {
    fn moved(&self, bytes: usize) {
        self.traffic.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn traffic(&self) -> u64 {
        self.traffic.load(Ordering::Relaxed)
    }

    async fn happened(&self, events: &mut Vec<AuditEvent>) -> Result<(), AuditError> {
        for event in events.drain(..) {
            self.told.lock().unwrap().push(match event {
                AuditEvent::DatabaseSessionQuery(query) if query.status.success => query.query,
                AuditEvent::DatabaseSessionQuery(query) => format!("refused: {}", query.query),
                AuditEvent::DatabaseSessionCommandResult(result) => {
                    format!("= {}", result.status.error)
                }
                other => panic!("{other:?}"),
            });
        }
        Ok(())
    }

    async fn malformed(&self, payload: &[u8]) -> Result<(), AuditError> {
        self.told.lock().unwrap().push(format!("malformed {}", payload.escape_ascii()));
        Ok(())
    }

    async fn ended(&self) -> EndReason {
        std::future::pending().await
    }
}

/// Answers as a server does: `AUTH` for alice's password, and everything else with what it is.
async fn server(mut stream: DuplexStream) -> Vec<String> {
    let (mut commands, mut read, mut chunk) = (Commands::default(), Vec::new(), [0; 4096]);
    loop {
        let Ok(count @ 1..) = stream.read(&mut chunk).await else { return read };
        let mut rest = &chunk[..count];
        while !rest.is_empty() {
            let (used, complete) = commands.scan(rest).unwrap();
            rest = &rest[used..];
            if !complete {
                continue;
            }
            let command = commands.command();
            let text: Vec<String> =
                command.args().map(|arg| arg.kept.escape_ascii().to_string()).collect();
            let text = text.join(" ");
            let answer = match text.as_str() {
                "AUTH alice pw" => "+OK\r\n".to_owned(),
                text if text.starts_with("AUTH") => "-WRONGPASS no\r\n".to_owned(),
                _ => format!("${}\r\n{text}\r\n", text.len()),
            };
            read.push(text);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// What came of a talk.
struct Came {
    /// The server read these commands.
    read: Vec<String>,
    /// The client read this.
    heard: String,
    told: Vec<String>,
}

/// Says `bytes` in pieces of `cut`, each when the one before was taken.
fn talk(gate: Gate, bytes: &[u8], cut: usize) -> Came {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let (client, mut ours) = duplex(cut);
        let (mut upstream, theirs) = duplex(1 << 16);
        let host = Host::default();
        let talk = Talk::new(gate);
        let (mut hears, mut says) = tokio::io::split(client);
        let say = async {
            for piece in bytes.chunks(cut) {
                // A talk that has ended takes no more.
                if says.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            says.shutdown().await.ok();
        };
        let hear = async {
            let mut heard = Vec::new();
            hears.read_to_end(&mut heard).await.ok();
            String::from_utf8(heard).unwrap()
        };
        let run = async {
            let _ended = talk.run(&host, &mut ours, &mut upstream).await;
            drop((ours, upstream));
        };
        let (read, (), heard, ()) = tokio::join!(server(theirs), say, hear, run);
        Came { read, heard, told: host.told.lock().unwrap().clone() }
    })
}

/// The commands without the answers.
fn asked(came: &Came) -> Vec<&str> {
    came.told.iter().map(String::as_str).filter(|told| !told.starts_with('=')).collect()
}

#[test]
fn a_closed_gate_opens_in_the_middle_of_a_pipeline() {
    let bytes = b"PING\r\nAUTH alice no\r\nGET a\r\nAUTH pw\r\nGET b\r\nRESET\r\nGET c\r\nAUTH bob pw\r\nQUIT\r\n";
    for cut in [1, 7, 1000] {
        let came = talk(Gate::new("alice", false), bytes, cut);
        assert_eq!(came.read, ["AUTH alice no", "AUTH alice pw", "GET b", "RESET", "QUIT"]);
        let heard: Vec<&str> =
            came.heard.split("\r\n").filter(|line| !line.starts_with('$')).collect();
        let begins: Vec<&str> =
            heard.iter().map(|line| line.split(' ').next().unwrap_or_default()).collect();
        let wanted = [
            "-NOAUTH",
            "-WRONGPASS",
            "-NOAUTH",
            "+OK",
            "GET",
            "RESET",
            "-NOAUTH",
            "-NOPERM",
            "QUIT",
            "",
        ];
        assert_eq!(begins, wanted, "{heard:?}");
        assert_eq!(
            asked(&came),
            [
                "refused: PING",
                "AUTH alice <redacted>",
                "refused: GET a",
                "AUTH <redacted>",
                "GET b",
                "RESET",
                "refused: GET c",
                "refused: AUTH bob <redacted>",
                "QUIT",
            ]
        );
    }
}

#[test]
fn what_is_refused_is_not_held_however_long_it_is() {
    let long = vec![b'x'; 3_000_000];
    let mut bytes = encode([b"SET".as_slice(), b"k", &long].into_iter());
    bytes.extend_from_slice(b"AUTH pw\r\nPING\r\n");
    let came = talk(Gate::new("alice", false), &bytes, 10_000);
    assert_eq!(came.read, ["AUTH alice pw", "PING"]);
    let came =
        talk(Gate::new("alice", false), &encode([b"AUTH".as_slice(), &long].into_iter()), 10_000);
    assert!(
        came.read.is_empty() && came.heard.starts_with("-ERR Protocol error: AUTH is too long"),
        "{}",
        came.heard
    );
}

#[test]
fn what_stands_before_malformed_bytes_is_answered() {
    for cut in [1, 5, 1000] {
        let came = talk(Gate::new("default", true), b"PING\r\n*1\r\n$4\r\nECHOxxPING\r\n", cut);
        assert_eq!(came.read, ["PING"]);
        assert_eq!(
            came.heard,
            "$4\r\nPING\r\n-ERR Protocol error: expected CR LF after an argument\r\n"
        );
        assert_eq!(asked(&came).first(), Some(&"PING"));
        assert!(came.told.iter().any(|told| told.starts_with("malformed ")), "{:?}", came.told);
        let came = talk(Gate::new("default", true), b"AUTH \"pw\r\n", cut);
        assert_eq!(came.told, ["malformed <redacted>"]);
    }
}

proptest! {
    #[test]
    fn every_cut_gives_the_same(
        commands in prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec!["GET", "k", "", "a b", "AUTH", "SYNC", "x\0y"]), 1..5), 1..30),
        cut in 1_usize..200)
    {
        let bytes: Vec<u8> = commands
            .iter()
            .flat_map(|args| encode(args.iter().map(|arg| arg.as_bytes())))
            .collect();
        let (some, whole) = (talk(Gate::new("default", true), &bytes, cut), talk(Gate::new("default", true), &bytes, 1 << 16));
        prop_assert_eq!(&some.read, &whole.read);
        prop_assert_eq!(&some.heard, &whole.heard);
        prop_assert_eq!(asked(&some), asked(&whole));
        prop_assert_eq!(asked(&some).len(), commands.len());
    }
}
