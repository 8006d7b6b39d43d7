use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;

/// Requests, one after the other, and the answers to them.
#[derive(Default)]
struct Client {
    requests: Vec<u8>,
    next: u32,
}

fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn path(path: &Path) -> Vec<u8> {
    text(path.as_os_str().as_encoded_bytes())
}

/// The handle that is given out first.
fn handle(number: u32) -> Vec<u8> {
    text(number.to_be_bytes())
}

const NO_ATTRIBUTES: &[u8] = &[0; 4];

impl Client {
    fn new() -> Self {
        let mut client = Self::default();
        client.raw(kind::INIT, &3_u32.to_be_bytes());
        client
    }

    fn raw(&mut self, kind: u8, body: &[u8]) {
        self.requests.extend_from_slice(&u32::try_from(body.len() + 1).unwrap().to_be_bytes());
        self.requests.push(kind);
        self.requests.extend_from_slice(body);
    }

    fn ask(&mut self, kind: u8, parts: &[&[u8]]) -> &mut Self {
        self.next += 1;
        let body = [&self.next.to_be_bytes()[..], &parts.concat()].concat();
        self.raw(kind, &body);
        self
    }

    /// Type and body (without the request's number) of each answer after the greeting.
    fn answers(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut output = Vec::new();
        serve(self.requests.as_slice(), &mut output).unwrap();
        let mut stream = Packets::new(output.as_slice());
        let mut all = Vec::new();
        while let Some(packet) = stream.next().unwrap() {
            all.push((packet[0], packet[1..].to_vec()));
        }
        assert_eq!(all.remove(0).0, kind::VERSION);
        assert_eq!(all.len(), self.next as usize);
        for (number, (_, body)) in all.iter_mut().enumerate() {
            let id: Vec<u8> = body.drain(..4).collect();
            assert_eq!(id, u32::try_from(number + 1).unwrap().to_be_bytes());
        }
        all
    }

    /// The status codes; 100 for answers that are no status.
    fn codes(&mut self) -> Vec<u32> {
        let code = |(kind, body): (u8, Vec<u8>)| match kind {
            kind::STATUS => u32::from_be_bytes(*body.first_chunk().unwrap()),
            _ => 100,
        };
        self.answers().into_iter().map(code).collect()
    }
}

#[test]
fn files_are_written_and_read_at_any_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    let far = 5 * 1024 * 1024 * 1024_u64;
    let attributes = [&4_u32.to_be_bytes()[..], &0o600_u32.to_be_bytes()].concat();
    let answers = Client::new()
        .ask(kind::OPEN, &[&path(&file), &(1_u32 | 2 | 8).to_be_bytes(), &attributes])
        .ask(kind::WRITE, &[&handle(0), &far.to_be_bytes(), &text("end")])
        .ask(kind::READ, &[&handle(0), &(far - 1).to_be_bytes(), &100_u32.to_be_bytes()])
        .ask(kind::READ, &[&handle(0), &(far + 3).to_be_bytes(), &100_u32.to_be_bytes()])
        .ask(kind::READ, &[&handle(0), &0_u64.to_be_bytes(), &u32::MAX.to_be_bytes()])
        .ask(kind::CLOSE, &[&handle(0)])
        .ask(kind::CLOSE, &[&handle(0)])
        .answers();
    assert_eq!(answers[2], (kind::DATA, text(b"\0end")));
    assert_eq!(answers[3].1[..4], (StatusCode::Eof as u32).to_be_bytes());
    assert_eq!(answers[4].1.len(), 4 + MAX_READ, "a read is cut to what a packet holds");
    assert_eq!(answers[5].1[..4], (StatusCode::Ok as u32).to_be_bytes());
    assert_eq!(answers[6].1[..4], (StatusCode::Failure as u32).to_be_bytes());
    let meta = file.metadata().unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o777), (far + 3, 0o600));
}

#[test]
fn open_flags_mean_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    let open = |client: &mut Client, flags: u32| {
        client.ask(kind::OPEN, &[&path(&file), &flags.to_be_bytes(), NO_ATTRIBUTES]);
    };
    let mut client = Client::new();
    open(&mut client, 1);
    open(&mut client, 2 | 8 | 0x20);
    open(&mut client, 2 | 8 | 0x20);
    client.ask(kind::WRITE, &[&handle(0), &0_u64.to_be_bytes(), &text("abc")]);
    open(&mut client, 2 | 4);
    client.ask(kind::WRITE, &[&handle(1), &0_u64.to_be_bytes(), &text("def")]);
    client.ask(kind::READ, &[&handle(1), &0_u64.to_be_bytes(), &9_u32.to_be_bytes()]);
    assert_eq!(
        client.codes(),
        [2, 100, 4, 0, 100, 0, 2],
        "reading what was opened to write is EBADF"
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"abcdef");
    let mut client = Client::new();
    open(&mut client, 2 | 0x10);
    client.codes();
    assert_eq!(std::fs::read(&file).unwrap(), b"");
}

#[test]
fn rename_replaces_only_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    std::fs::write(&a, "a").unwrap();
    std::fs::write(&b, "b").unwrap();
    let mut client = Client::new();
    client.ask(kind::RENAME, &[&path(&a), &path(&b)]);
    assert_eq!(client.codes(), [StatusCode::Failure as u32]);
    assert_eq!(std::fs::read(&b).unwrap(), b"b");
    let mut client = Client::new();
    client.ask(kind::EXTENDED, &[&text("posix-rename@openssh.com"), &path(&a), &path(&b)]);
    client.ask(kind::RENAME, &[&path(&b), &path(&a)]);
    client.ask(kind::RENAME, &[&path(&b), &path(&a)]);
    assert_eq!(client.codes(), [0, 0, 2]);
    assert_eq!(std::fs::read(&a).unwrap(), b"a");
}

#[test]
fn links_come_as_everyone_sends_them() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    let answers = Client::new()
        .ask(kind::SYMLINK, &[&text("../target\n"), &path(&link)])
        .ask(kind::READLINK, &[&path(&link)])
        .ask(kind::LSTAT, &[&path(&link)])
        .ask(kind::STAT, &[&path(&link)])
        .answers();
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("../target\n"));
    let name =
        [&1_u32.to_be_bytes()[..], &text("../target\n"), &text("../target\n"), NO_ATTRIBUTES]
            .concat();
    assert_eq!(answers[1], (kind::NAME, name));
    assert_eq!(answers[2].0, kind::ATTRS);
    assert_eq!(answers[3].1[..4], (StatusCode::NoSuchFile as u32).to_be_bytes());
}

#[test]
fn attributes_are_set_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    std::fs::write(&file, "abcdef").unwrap();
    let parts = [1_u32 | 4 | 8].map(u32::to_be_bytes).concat();
    let rest = [0o100_640_u32, 1_000, 2_000].map(u32::to_be_bytes).concat();
    let attributes = [&parts[..], &3_u64.to_be_bytes(), &rest].concat();
    let mut client = Client::new();
    client.ask(kind::SETSTAT, &[&path(&file), &attributes]);
    client.ask(kind::SETSTAT, &[&path(&folder.path().join("none")), &attributes]);
    assert_eq!(client.codes(), [0, 2]);
    let meta = file.metadata().unwrap();
    assert_eq!(
        (meta.len(), meta.mode() & 0o7777, meta.atime(), meta.mtime()),
        (3, 0o640, 1_000, 2_000)
    );
}

#[test]
fn real_paths() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("d")).unwrap();
    std::os::unix::fs::symlink("d", root.join("l")).unwrap();
    std::os::unix::fs::symlink("d/new", root.join("dangling")).unwrap();
    std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
    let found = |from: &Path| {
        let answer = Client::new().ask(kind::REALPATH, &[&path(from)]).answers().remove(0);
        (answer.0 == kind::NAME).then(|| {
            let mut body = &answer.1[4..];
            wire::take_text(&mut body).unwrap().to_vec()
        })
    };
    let is = |path: &Path| Some(path.as_os_str().as_encoded_bytes().to_vec());
    assert_eq!(found(&root.join("l/../l/./x")), is(&root.join("d/x")));
    assert_eq!(found(&root.join("dangling")), is(&root.join("d/new")));
    assert_eq!(found(&root.join("none/x")), None);
    assert_eq!(found(&root.join("loop")), None);
    assert_eq!(found(Path::new("/../..")), is(Path::new("/")));
    assert_eq!(found(Path::new("")), is(&std::env::current_dir().unwrap()));
}

#[test]
fn listings_end() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..250 {
        std::fs::write(folder.path().join(number.to_string()), "").unwrap();
    }
    let mut client = Client::new();
    client.ask(kind::OPENDIR, &[&path(folder.path())]);
    for _ in 0..4 {
        client.ask(kind::READDIR, &[&handle(0)]);
    }
    client.ask(kind::READ, &[&handle(0), &0_u64.to_be_bytes(), &9_u32.to_be_bytes()]);
    let answers = client.answers();
    let count: u32 = answers[1..4]
        .iter()
        .map(|(_, body)| u32::from_be_bytes(*body.first_chunk().unwrap()))
        .sum();
    assert_eq!(count, 252, "with . and ..");
    assert_eq!(answers[4].1[..4], (StatusCode::Eof as u32).to_be_bytes());
    assert_eq!(answers[5].0, kind::STATUS, "a folder has no contents");
}

#[test]
fn extensions() {
    let folder = tempfile::tempdir().unwrap();
    let (file, hard, soft) =
        (folder.path().join("f"), folder.path().join("h"), folder.path().join("s"));
    std::fs::write(&file, "x").unwrap();
    std::os::unix::fs::symlink("none", &soft).unwrap();
    let times = [8_u32, 5, 6].map(u32::to_be_bytes).concat();
    let mut client = Client::new();
    let mut extended = |name: &str, rest: &[u8]| {
        client.ask(kind::EXTENDED, &[&text(name), rest]);
    };
    extended("hardlink@openssh.com", &[path(&file), path(&hard)].concat());
    extended("lsetstat@openssh.com", &[path(&soft), times].concat());
    extended("statvfs@openssh.com", &path(&file));
    extended("limits@openssh.com", &[]);
    extended("expand-path@openssh.com", &text("~root"));
    extended("home-directory", &text("no-such-login-here"));
    extended("nobody@knows", &[]);
    let answers = client.answers();
    let kinds: Vec<_> = answers.iter().map(|(kind, _)| *kind).collect();
    let reply = kind::EXTENDED_REPLY;
    assert_eq!(
        kinds,
        [kind::STATUS, kind::STATUS, reply, reply, kind::NAME, kind::STATUS, kind::STATUS]
    );
    assert_eq!(hard.metadata().unwrap().nlink(), 2);
    assert_eq!(soft.symlink_metadata().unwrap().mtime(), 6);
    assert_eq!(answers[2].1.len(), 11 * 8);
    assert_eq!(answers[3].1[..8], (MAX_PACKET as u64).to_be_bytes());
    assert_eq!(answers[6].1[..4], (StatusCode::OpUnsupported as u32).to_be_bytes());
}

#[test]
fn hostile_paths_and_requests_are_refused_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("new\nline \u{1b}[2J");
    let mut client = Client::new();
    client.ask(kind::STAT, &[&text("a\0b")]);
    client.ask(kind::MKDIR, &[&path(&odd), NO_ATTRIBUTES]);
    client.ask(kind::STAT, &[&text("x".repeat(5_000))]);
    client.ask(kind::STAT, &[&[0xff, 0xff, 0xff, 0xff, b'a']]);
    client.ask(kind::READ, &[&handle(77)]);
    client.ask(kind::WRITE, &[&text("longer than a handle"), &0_u64.to_be_bytes(), &text("x")]);
    client.ask(kind::READDIR, &[&handle(u32::MAX)]);
    client.ask(99, &[]);
    client.ask(kind::STAT, &[&text("/")]);
    assert_eq!(client.codes(), [5, 0, 5, 5, 5, 4, 4, 8, 100]);
    assert!(odd.is_dir());
}

#[test]
fn rights_are_the_kernels() {
    if !nix::unistd::Uid::effective().is_root() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o500)).unwrap();
        let mut client = Client::new();
        client.ask(kind::MKDIR, &[&path(&folder.path().join("x")), NO_ATTRIBUTES]);
        assert_eq!(client.codes(), [3]);
    }
}

#[test]
fn nothing_before_the_greeting() {
    let mut early = Client::default();
    early.ask(kind::STAT, &[&text("/")]);
    assert!(serve(early.requests.as_slice(), Vec::new()).is_err());
    assert!(serve(&[0, 0, 0, 2, kind::STAT, 0][..], Vec::new()).is_err());
}

proptest::proptest! {
    #[test]
    fn garbage_is_answered_or_ends_it(
        packets in proptest::collection::vec(
            // Nothing that could change the file system.
            (proptest::sample::select(&[4_u8, 5, 7, 8, 11, 12, 16, 17, 19, 77, 101, 200][..]),
             proptest::collection::vec(proptest::num::u8::ANY, 0..60)),
            0..20,
        ),
        tail in proptest::collection::vec(proptest::num::u8::ANY, 0..20),
    ) {
        let mut client = Client::new();
        for (kind, body) in &packets {
            client.raw(*kind, body);
        }
        client.requests.extend_from_slice(&tail);
        let _ = serve(client.requests.as_slice(), Vec::new());
    }
}
