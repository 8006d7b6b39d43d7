//! Downloads from a server that wants to write elsewhere.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::Path;

use russh_sftp::client::SftpSession;
use russh_sftp::protocol::{
    Attrs, Data, File, FileAttributes, Handle, Name, OpenFlags, Status, StatusCode,
};
use russh_sftp::server;

use super::place::Plan;
use super::{How, Report, download, upload};

const FILE: u32 = 0o100_644;
const FOLDER: u32 = 0o040_755;

/// Lists what it is told to, whatever the names; every file holds its path.
#[derive(Default)]
struct Hostile {
    /// Names in each folder, with their modes.
    folders: HashMap<String, Vec<(&'static str, u32)>>,
    /// Folders that were listed already.
    listed: HashMap<String, bool>,
    modes: HashMap<String, u32>,
}

impl Hostile {
    fn with(mut self, folder: &str, names: &[(&'static str, u32)]) -> Self {
        self.folders.insert(folder.to_owned(), names.to_vec());
        self.modes.insert(folder.to_owned(), FOLDER);
        for (name, mode) in names {
            self.modes.insert(format!("{folder}/{name}"), *mode);
        }
        self
    }

    fn mode(&self, path: &str) -> u32 {
        // A tree without an end.
        if path.ends_with("/deep") { FOLDER } else { self.modes.get(path).copied().unwrap_or(FILE) }
    }
}

fn attributes(mode: u32, path: &str) -> FileAttributes {
    FileAttributes {
        size: Some(path.len() as u64),
        permissions: Some(mode),
        ..FileAttributes::empty()
    }
}

impl server::Handler for Hostile {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        Ok(Attrs { id, attrs: attributes(self.mode(&path), &path) })
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusCode> {
        self.listed.insert(path.clone(), false);
        Ok(Handle { id, handle: path })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusCode> {
        if self.listed.insert(handle.clone(), true) == Some(true) {
            return Err(StatusCode::Eof);
        }
        let deep = [("deep", FOLDER)];
        let names = match self.folders.get(&handle) {
            Some(names) => names.as_slice(),
            None => &deep,
        };
        let files = names.iter().map(|(name, mode)| File::new(*name, attributes(*mode, name)));
        Ok(Name { id, files: files.collect() })
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        _pflags: OpenFlags,
        _attrs: FileAttributes,
    ) -> Result<Handle, StatusCode> {
        Ok(Handle { id, handle: filename })
    }

    async fn read(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        _len: u32,
    ) -> Result<Data, StatusCode> {
        match usize::try_from(offset).ok().and_then(|offset| handle.as_bytes().get(offset..)) {
            Some(rest) if !rest.is_empty() => Ok(Data { id, data: rest.to_vec() }),
            _ => Err(StatusCode::Eof),
        }
    }

    async fn close(&mut self, id: u32, _handle: String) -> Result<Status, StatusCode> {
        Ok(Status {
            id,
            status_code: StatusCode::Ok,
            error_message: String::new(),
            language_tag: String::new(),
        })
    }
}

const RECURSIVE: How = How { recursive: true, preserve: true, quiet: true };

/// Copies `db:from` to `to`; answers whether everything was copied.
async fn fetch(server: Hostile, from: &str, to: &Path) -> bool {
    let (near, far) = tokio::io::duplex(64 * 1024);
    server::run(far, server).await;
    let sftp = SftpSession::new(near).await.unwrap();
    let places = [format!("db:{from}"), to.display().to_string()];
    let plan = Plan::parse(&places).unwrap();
    let mut report = Report { quiet: true, failed: false };
    let done = download::all(&sftp, &plan, RECURSIVE, &mut report).await;
    done.is_ok() && !report.failed
}

/// Everything below a folder, with what files hold.
fn everything(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            let shown = path.strip_prefix(folder).unwrap().display().to_string();
            if kind.is_dir() {
                open.push(path);
                found.push(format!("{shown}/"));
            } else if kind.is_symlink() {
                found.push(format!("{shown} ->"));
            } else {
                found.push(format!("{shown} = {}", std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn names_that_lead_elsewhere_write_nothing() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let absolute: &'static str =
        Box::leak(place.path().join("absolute").display().to_string().into_boxed_str());
    let server = Hostile::default()
        .with(
            "tree",
            &[
                ("../outside", FILE),
                ("../../outside", FILE),
                ("..", FOLDER),
                (".", FOLDER),
                ("", FILE),
                (absolute, FILE),
                ("a/../../outside", FILE),
                ("below/x", FILE),
                ("new\nline", FILE),
                ("\x1b]0;title\x07", FILE),
                ("good", FILE),
                ("sub", FOLDER),
                ("sub/../../outside-folder", FOLDER),
            ],
        )
        .with("tree/sub", &[("../outside", FILE), ("fine", FILE)]);
    assert!(!fetch(server, "tree", &target).await, "what was refused is a failure");
    assert_eq!(
        everything(place.path()),
        [
            "target/",
            "target/tree/",
            "target/tree/good = tree/good",
            "target/tree/sub/",
            "target/tree/sub/fine = tree/sub/fine",
        ]
    );
}

#[tokio::test]
async fn links_that_are_there_are_not_written_through() {
    let place = tempfile::tempdir().unwrap();
    let (target, outside) = (place.path().join("target"), place.path().join("outside"));
    std::fs::create_dir_all(target.join("tree")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "kept").unwrap();
    symlink(&outside, target.join("tree/folder")).unwrap();
    symlink(outside.join("precious"), target.join("tree/file")).unwrap();
    symlink(outside.join("made"), target.join("tree/dangling")).unwrap();
    let server = Hostile::default()
        .with("tree", &[("folder", FOLDER), ("file", FILE), ("dangling", FILE), ("good", FILE)])
        .with("tree/folder", &[("x", FILE)]);
    assert!(!fetch(server, "tree", &target).await);
    assert_eq!(everything(&outside), ["precious = kept"]);
    assert!(everything(&target).contains(&"tree/good = tree/good".to_owned()));
}

#[tokio::test]
async fn a_link_that_the_server_shows_is_never_made_here() {
    let place = tempfile::tempdir().unwrap();
    const LINK: u32 = 0o120_777;
    // A link, and then a file below it: what once wrote through such links.
    let server = Hostile::default()
        .with("tree", &[("link", LINK), ("link", FOLDER)])
        .with("tree/link", &[("x", FILE)]);
    let _ = fetch(server, "tree", place.path()).await;
    assert!(everything(place.path()).iter().all(|path| !path.ends_with("->")));
    assert!(everything(place.path()).iter().all(|path| path.starts_with("tree")));
}

#[tokio::test]
async fn the_name_of_a_single_file_is_the_users() {
    let place = tempfile::tempdir().unwrap();
    assert!(fetch(Hostile::default(), "/etc/motd", place.path()).await);
    assert!(fetch(Hostile::default(), "x", &place.path().join("mine")).await);
    assert_eq!(everything(place.path()), ["mine = x", "motd = /etc/motd"]);
    for from in ["..", "/", "a/.."] {
        assert!(!fetch(Hostile::default(), from, place.path()).await, "{from}");
    }
    assert_eq!(everything(place.path()).len(), 2);
}

#[tokio::test]
async fn a_tree_without_an_end_has_one_here() {
    let place = tempfile::tempdir().unwrap();
    assert!(
        !fetch(Hostile::default().with("tree", &[("deep", FOLDER)]), "tree", place.path()).await
    );
    let depth = everything(place.path()).len();
    assert!((super::MAX_DEPTH - 2..=super::MAX_DEPTH + 2).contains(&depth), "{depth}");
}

#[tokio::test]
async fn a_folder_is_not_copied_unasked() {
    let place = tempfile::tempdir().unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    server::run(far, Hostile::default().with("tree", &[])).await;
    let sftp = SftpSession::new(near).await.unwrap();
    let mut report = Report { quiet: true, failed: false };
    let how = How { recursive: false, ..RECURSIVE };
    let down = Plan::parse(&["db:tree".to_owned(), place.path().display().to_string()]).unwrap();
    download::all(&sftp, &down, how, &mut report).await.unwrap();
    assert!(report.failed && everything(place.path()).is_empty());
    let mut report = Report { quiet: true, failed: false };
    let up = Plan::parse(&[place.path().display().to_string(), "db:tree".to_owned()]).unwrap();
    upload::all(&sftp, &up, how, &mut report).await.unwrap();
    assert!(report.failed);
}
