//! A host with accounts for the tests, seen only by what is started here.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use server_ssh::child::{Child, ChildSpec, Exit, Launcher, Program, PtySpec, SpawnError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The program under test.
pub(crate) const TELEPORT: &str = env!("CARGO_BIN_EXE_teleport");

/// The account that tests use, and its ids.
pub(crate) const JOE: (&str, u32, u32) = ("joe", 44_001, 44_002);

/// Longer than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Accounts `joe` (home in `folder`), `ghost` (no home), `old` (expired), `closed` (nologin shell), `odd` (no shell).
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
    launcher: Launcher,
}

impl Host {
    /// None without the rights to make one.
    pub(crate) fn new() -> Option<Self> {
        Self::with(&[])
    }

    /// Further files: path in `/etc` and text.
    pub(crate) fn with(files: &[(&str, &str)]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
        let (name, uid, gid) = JOE;
        let home = root.join("home");
        std::fs::create_dir(&home).unwrap();
        let passwd = format!(
            "root:x:0:0::/root:/bin/sh\n{name}:x:{uid}:{gid}::{}:/bin/sh\nghost:x:44003:44003::/no/such/home:\n\
             old:x:44004:44004::/:/bin/sh\nclosed:x:44005:44005::/:/usr/sbin/nologin\nodd:x:44006:44006::/:/no/shell\n",
            home.display()
        );
        let group = format!("root:x:0:\ntty:x:5:\n{name}:x:{gid}:\nextra:x:44010:{name}\n");
        let mut etc = vec![
            ("passwd", passwd.as_str()),
            ("group", group.as_str()),
            ("shadow", "joe:!:1::::::\nold:x:1:::::100:\n"),
            ("environment", "FROM_HOST=yes\n"),
        ];
        etc.extend_from_slice(files);
        for (file, text) in etc {
            std::fs::create_dir_all(root.join("etc")).unwrap();
            std::fs::write(root.join("etc").join(file), text).unwrap();
        }
        std::os::unix::fs::chown(&home, Some(uid), Some(gid)).ok();
        // /etc itself is overlaid, so that files it does not have can be added.
        let script = format!(
            "cp -a /etc/ld.so.cache /etc/nsswitch.conf /etc/login.defs {root}/etc/ 2>/dev/null; \
             mount --bind {root}/etc /etc && exec \"$0\" \"$@\"",
            root = root.display()
        );
        let arguments = ["--mount", "--propagation", "private", "sh", "-c", &script, TELEPORT];
        let launcher = Launcher::new("/usr/bin/unshare", arguments.map(OsString::from));
        let able = std::process::Command::new("unshare").args(["--mount", "true"]).status();
        if !able.is_ok_and(|status| status.success()) {
            assert!(
                std::env::var_os("CI").is_none(),
                "programs of a login cannot be tested without root"
            );
            eprintln!("SKIPPED: needs root and mount namespaces");
            return None;
        }
        Some(Self { folder, launcher })
    }

    pub(crate) fn home(&self) -> std::path::PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) async fn spawn(&self, spec: ChildSpec) -> Result<Child, SpawnError> {
        tokio::time::timeout(DEADLINE, self.launcher.spawn(spec)).await.unwrap()
    }

    /// Runs a command as joe without input.
    pub(crate) async fn run(&self, command: &str) -> Ran {
        let child = self.spawn(spec("joe", exec(command))).await.unwrap();
        finish(child, b"").await
    }
}

pub(crate) fn exec(command: &str) -> Program {
    Program::Exec(command.as_bytes().to_vec())
}

pub(crate) fn spec(login: &str, program: Program) -> ChildSpec {
    ChildSpec {
        login: shared_types::Login::new(login).unwrap(),
        program,
        pty: None,
        client_env: Vec::new(),
        env: Vec::new(),
        permit_user_env: false,
    }
}

pub(crate) fn pty(modes: &[(u8, u32)]) -> PtySpec {
    PtySpec { term: "xterm".into(), columns: 81, rows: 25, pixels: (0, 0), modes: modes.to_vec() }
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) output: String,
    pub(crate) error: String,
}

/// Gives all input and takes all output.
pub(crate) async fn finish(mut child: Child, input: &[u8]) -> Ran {
    let (mut output, mut error) = (Vec::new(), Vec::new());
    let work = async {
        let feed = async {
            child.input.write_all(input).await.unwrap();
            child.input.shutdown().await.unwrap();
        };
        let errors = async {
            if let Some(from) = &mut child.error {
                from.read_to_end(&mut error).await.unwrap();
            }
        };
        let all = async { child.output.read_to_end(&mut output).await.unwrap() };
        tokio::join!(feed, errors, all);
        child.control.wait().await
    };
    let exit = tokio::time::timeout(DEADLINE, work).await.expect("the program ends in time");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { exit, output: text(output), error: text(error) }
}

/// Waits until a file is there.
pub(crate) async fn appears(path: &Path) -> String {
    let look = async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(DEADLINE, look).await.expect("the file appears in time")
}

/// Waits until a process is gone.
pub(crate) async fn ends(pid: &str) {
    let folder = Path::new("/proc").join(pid);
    let gone = || {
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        !folder.exists() || status.contains("State:\tZ")
    };
    let look = async {
        while !gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, look).await.expect("the process ends in time");
}
