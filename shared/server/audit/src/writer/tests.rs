use std::{
    fs,
    path::Path,
    sync::{Mutex, mpsc as std_mpsc},
};

use super::*;

/// Fails as told: for each batch what writing and synchronising do.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// Half is written, then the disk is full.
    Write,
    Sync,
}

struct FaultyDisk {
    faults: std_mpsc::Receiver<Fault>,
    now: Fault,
}

impl Disk for FaultyDisk {
    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.now = self.faults.try_recv().unwrap_or(Fault::None);
        match self.now {
            Fault::Write => {
                file.write_all(&bytes[..bytes.len() / 2])?;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => file.write_all(bytes),
        }
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        match self.now {
            Fault::Sync => Err(io::Error::other("lost")),
            _ => file.sync_data(),
        }
    }
}

struct Rig {
    dir: tempfile::TempDir,
    now: Arc<Mutex<DateTime<Utc>>>,
    writer: Writer<FaultyDisk>,
    faults: std_mpsc::Sender<Fault>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(Mutex::new("2025-03-04T23:59:58Z".parse().unwrap()));
        let (faults, receiver) = std_mpsc::channel();
        let clock = now.clone();
        let writer = Writer::new(
            dir.path().to_owned(),
            Arc::new(move || *clock.lock().unwrap()),
            Recent::new(100),
            None,
            FaultyDisk { faults: receiver, now: Fault::None },
        );
        Self { dir, now, writer, faults }
    }

    fn append(&mut self, uids: &[&str], fault: Fault) -> bool {
        self.faults.send(fault).unwrap();
        let entries = uids
            .iter()
            .map(|uid| Entry { uid: (*uid).into(), line: format!("{{\"uid\":\"{uid}\"}}") })
            .collect();
        self.writer.commit(&[Append { entries, done: oneshot::channel().0 }]).is_ok()
    }

    fn files(&self) -> Vec<(String, String)> {
        let read = |path: &Path| {
            fs::read_to_string(path).unwrap().replace("{\"uid\":\"", "").replace("\"}\n", " ")
        };
        let segments = Segment::list(self.dir.path()).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        segments.iter().map(|segment| (name(&segment.path), read(&segment.path))).collect()
    }
}

#[test]
fn a_full_disk_leaves_no_half_line_behind() {
    let mut rig = Rig::new();
    assert!(rig.append(&["a"], Fault::None));
    assert!(!rig.append(&["b", "c"], Fault::Write));
    assert!(rig.append(&["b", "c"], Fault::None), "not taken for written");
    assert_eq!(rig.files(), [("2025-03-04.00:00:00.log".into(), "a b c ".into())]);
}

#[test]
fn a_file_that_failed_to_synchronise_is_given_up() {
    let mut rig = Rig::new();
    assert!(rig.append(&["a"], Fault::None));
    assert!(!rig.append(&["b"], Fault::Sync));
    assert!(!rig.append(&["b"], Fault::Sync));
    assert!(rig.append(&["b"], Fault::None));
    let files = rig.files();
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["2025-03-04.00:00:00.log", "2025-03-04.23:59:58.log", "2025-03-04.23:59:59.log"]
    );
    assert_eq!((files[0].1.as_str(), files[2].1.as_str()), ("a ", "b "));
}

#[test]
fn a_new_day_gets_a_new_file_and_an_old_clock_does_not() {
    let mut rig = Rig::new();
    assert!(rig.append(&["a"], Fault::None));
    *rig.now.lock().unwrap() += TimeDelta::seconds(5);
    assert!(rig.append(&["b"], Fault::None));
    *rig.now.lock().unwrap() -= TimeDelta::seconds(5);
    assert!(rig.append(&["c"], Fault::None));
    let expected = [
        ("2025-03-04.00:00:00.log".to_owned(), "a ".to_owned()),
        ("2025-03-05.00:00:00.log".into(), "b c ".into()),
    ];
    assert_eq!(rig.files(), expected);
}

#[test]
fn what_is_sent_twice_is_written_once() {
    let mut rig = Rig::new();
    assert!(rig.append(&["a", "a", "b"], Fault::None));
    assert!(rig.append(&["b", "c", "", ""], Fault::None));
    assert_eq!(rig.files()[0].1, "a b c   ");
}
