//! Records of one copy as audit events, in a bounded number.
//!
//! Every operation and every file is an event, up to [`MAX_EVENTS`]; every file stands in a summary too, up to
//! [`MAX_FILES`]. What is beyond is counted, but for files that moved [`LARGE`] bytes or more: those are always listed.

use shared_events::{
    AuditEvent, CommandMetadata, FileContent, FileTransferStat, FileTransferUntracked, Metadata,
    Scp, Sftp, SftpAttributes, SftpSummary, codes,
};
use shared_transfer::{Action, Attributes, Direction, FileRecord, Operation, Record, Tool, Totals};
use shared_types::SessionId;

use crate::ssh::events::{Party, cut, session};

/// Operations and files that have an event of their own.
const MAX_EVENTS: u64 = 10_000;
/// Files that are listed in summaries.
const MAX_FILES: u64 = 100_000;
/// A file that moved so much is listed in any case.
const LARGE: u64 = 1024 * 1024;
/// Files in one summary.
const PAGE_FILES: usize = 200;
/// Bytes of names in one summary.
const PAGE_NAMES: usize = 24 * 1024;

/// What was told of one copy, and what is still to be told.
pub(super) struct Account {
    sid: SessionId,
    party: Party,
    tool: &'static str,
    /// The command, or nothing for a subsystem.
    command: String,
    /// What `scp` was given.
    path: String,
    direction: Option<Direction>,
    events: u64,
    events_left_out: u64,
    files: u64,
    files_left_out: u64,
    page: Vec<FileTransferStat>,
    page_names: usize,
    part: u32,
    untracked: String,
}

impl Account {
    pub(super) fn new(sid: SessionId, tool: &Tool, command: Option<&str>, party: Party) -> Self {
        let path = match tool {
            Tool::Scp { path, .. } => cut(path),
            _ => String::new(),
        };
        Self {
            sid,
            party,
            tool: tool.name(),
            command: command.map(cut).unwrap_or_default(),
            path,
            direction: tool.direction(),
            events: 0,
            events_left_out: 0,
            files: 0,
            files_left_out: 0,
            page: Vec::new(),
            page_names: 0,
            part: 0,
            untracked: String::new(),
        }
    }

    /// Adds the events of a record.
    pub(super) fn add(&mut self, record: Record, folder: &str, events: &mut Vec<AuditEvent>) {
        match record {
            Record::Operation(operation) => {
                if self.has_event(false) {
                    events.push(self.operation(operation, folder));
                }
            }
            Record::File(file) => {
                let large = file.read.max(file.written) >= LARGE;
                if self.has_event(large) {
                    events.push(match self.tool {
                        "scp" => self.scp(&file),
                        _ => self.closed(&file, folder),
                    });
                }
                self.list(&file, large);
                if self.page.len() >= PAGE_FILES || self.page_names >= PAGE_NAMES {
                    events.push(self.summary().into());
                }
            }
            Record::Untracked { reason } => {
                events.push(self.untracked(&reason));
                self.untracked = reason;
            }
        }
    }

    /// The last summary.
    pub(super) fn close(&mut self, totals: Totals) -> AuditEvent {
        SftpSummary {
            last: true,
            files: Some(totals.files),
            bytes_read: Some(totals.read),
            bytes_written: Some(totals.written),
            operations: Some(totals.operations),
            files_unlisted: Some(self.files_left_out),
            operations_unlisted: Some(self.events_left_out),
            untracked: self.untracked.clone(),
            ..self.summary()
        }
        .into()
    }

    fn has_event(&mut self, always: bool) -> bool {
        let has = always || self.events < MAX_EVENTS;
        if has {
            self.events += 1;
        } else {
            self.events_left_out += 1;
        }
        has
    }

    fn list(&mut self, file: &FileRecord, always: bool) {
        if !always && self.files >= MAX_FILES {
            self.files_left_out += 1;
            return;
        }
        self.files += 1;
        let error = file.error.clone().unwrap_or_default();
        self.page_names += file.path.len() + error.len();
        self.page.push(FileTransferStat {
            path: file.path.clone(),
            bytes_read: file.read,
            bytes_written: file.written,
            file: content(file),
            error,
        });
    }

    fn summary(&mut self) -> SftpSummary {
        self.part += 1;
        self.page_names = 0;
        SftpSummary {
            user: self.party.user.clone(),
            connection: self.party.connection.clone(),
            session: session(self.sid),
            server: self.party.server.clone(),
            file_transfer_stats: std::mem::take(&mut self.page),
            tool: self.tool.to_owned(),
            command: self.command.clone(),
            direction: self.direction.map(Direction::as_str).unwrap_or_default().to_owned(),
            part: self.part,
            ..SftpSummary::default()
        }
    }

    fn sftp(&self, path: &str, folder: &str, action: Action) -> Sftp {
        Sftp {
            user: self.party.user.clone(),
            connection: self.party.connection.clone(),
            session: session(self.sid),
            server: self.party.server.clone(),
            working_directory: cut(folder),
            path: path.to_owned(),
            action: action.number(),
            ..Sftp::default()
        }
    }

    fn operation(&self, operation: Operation, folder: &str) -> AuditEvent {
        let code = if operation.refused { codes::SFTP_DISALLOWED } else { "" };
        Sftp {
            metadata: Metadata { code: code.to_owned(), ..Metadata::default() },
            target_path: operation.target.unwrap_or_default(),
            flags: operation.flags.unwrap_or_default(),
            attributes: operation.attributes.and_then(attributes),
            error: operation.error.unwrap_or_default(),
            ..self.sftp(&operation.path, folder, operation.action)
        }
        .into()
    }

    /// The closing of a file over SFTP.
    fn closed(&self, file: &FileRecord, folder: &str) -> AuditEvent {
        Sftp {
            error: file.error.clone().unwrap_or_default(),
            file: content(file),
            bytes_read: Some(file.read),
            bytes_written: Some(file.written),
            ..self.sftp(&file.path, folder, Action::Close)
        }
        .into()
    }

    /// A file copied by `scp`.
    fn scp(&self, file: &FileRecord) -> AuditEvent {
        let error = file.error.clone().unwrap_or_default();
        Scp {
            user: self.party.user.clone(),
            connection: self.party.connection.clone(),
            session: session(self.sid),
            server: self.party.server.clone(),
            command: CommandMetadata {
                command: self.command.clone(),
                exit_code: if error.is_empty() { "0" } else { "1" }.to_owned(),
                exit_error: error,
            },
            path: self.path.clone(),
            action: file.direction.as_str().to_owned(),
            file: content(file),
            name: file.path.clone(),
            bytes_read: Some(file.read),
            bytes_written: Some(file.written),
            ..Scp::default()
        }
        .into()
    }

    fn untracked(&self, reason: &str) -> AuditEvent {
        FileTransferUntracked {
            user: self.party.user.clone(),
            connection: self.party.connection.clone(),
            session: session(self.sid),
            server: self.party.server.clone(),
            tool: self.tool.to_owned(),
            reason: reason.to_owned(),
            ..FileTransferUntracked::default()
        }
        .into()
    }
}

fn content(file: &FileRecord) -> FileContent {
    let (sha256, sha256_missing) = match &file.sha256 {
        Ok(hash) => (hash.iter().map(|byte| format!("{byte:02x}")).collect(), String::new()),
        Err(why) => (String::new(), why.to_string()),
    };
    FileContent {
        direction: file.direction.as_str().to_owned(),
        file_size: file.size,
        duration_ms: Some(u64::try_from(file.duration.as_millis()).unwrap_or(u64::MAX)),
        sequential: file.sequential,
        sha256,
        sha256_missing,
    }
}

fn attributes(set: Attributes) -> Option<SftpAttributes> {
    let told = SftpAttributes {
        file_size: set.size,
        uid: set.owner.map(|owner| owner.0),
        gid: set.owner.map(|owner| owner.1),
        permissions: set.permissions,
    };
    (told != SftpAttributes::default()).then_some(told)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared_events::{ConnectionMetadata, MAX_RECORD, ServerMetadata, UserMetadata};
    use shared_transfer::Missing;

    use super::*;

    fn account() -> Account {
        let party = Party {
            user: UserMetadata::default(),
            server: ServerMetadata::default(),
            connection: ConnectionMetadata::default(),
        };
        Account::new(SessionId::random(), &Tool::Sftp, None, party)
    }

    fn file(path: String, written: u64) -> Record {
        Record::File(FileRecord {
            path,
            direction: Direction::Upload,
            size: Some(written),
            read: 0,
            written,
            duration: Duration::from_millis(1500),
            sequential: true,
            sha256: if written == 0 { Err(Missing::Appended) } else { Ok([0xab; 32]) },
            error: None,
        })
    }

    #[test]
    fn any_number_of_files_makes_a_bounded_number_of_events_and_the_rest_is_counted() {
        let (mut account, mut events) = (account(), Vec::new());
        let (mut told, mut listed) = (0_u64, 0);
        let all = 120_000_u64;
        for number in 0..all {
            account.add(file(format!("f{number}"), 1), "/", &mut events);
            for event in events.drain(..) {
                match event {
                    AuditEvent::Sftp(_) => told += 1,
                    AuditEvent::SftpSummary(summary) => {
                        listed += summary.file_transfer_stats.len() as u64;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        account.add(file("large".to_owned(), LARGE), "/", &mut events);
        assert!(matches!(&events[..], [AuditEvent::Sftp(last)] if last.path == "large"));
        let totals = Totals { files: all + 1, ..Totals::default() };
        let AuditEvent::SftpSummary(last) = account.close(totals) else { panic!() };
        listed += last.file_transfer_stats.len() as u64;
        assert_eq!((told, listed), (MAX_EVENTS, MAX_FILES + 1));
        assert_eq!(last.files_unlisted, Some(all - MAX_FILES));
        assert_eq!(last.operations_unlisted, Some(all - MAX_EVENTS));
        assert!(last.last && last.part > 400);
    }

    #[test]
    fn a_summary_with_the_longest_names_fits_a_record() {
        let (mut account, mut events) = (account(), Vec::new());
        for _ in 0..20 {
            account.add(file("ä".repeat(2048), 1), "/", &mut events);
        }
        let summaries: Vec<_> =
            events.iter().filter(|event| matches!(event, AuditEvent::SftpSummary(_))).collect();
        assert!(summaries.len() >= 2);
        assert!(summaries.iter().all(|summary| summary.inner_len() < MAX_RECORD));
    }

    #[test]
    fn what_is_known_of_a_file_is_told() {
        let (mut account, mut events) = (account(), Vec::new());
        account.add(file("x".to_owned(), 5), "/home/joe", &mut events);
        account.add(file("y".to_owned(), 0), "/home/joe", &mut events);
        let AuditEvent::Sftp(first) = &events[0] else { panic!() };
        assert_eq!((first.action, first.working_directory.as_str()), (2, "/home/joe"));
        assert_eq!((first.file.sha256.len(), first.file.duration_ms), (64, Some(1500)));
        assert_eq!(events[0].default_code(), "TS002I");
        let AuditEvent::Sftp(second) = &events[1] else { panic!() };
        assert_eq!(second.file.sha256_missing, "added to an existing file");
        let refused = Operation {
            action: Action::Open,
            path: "x".to_owned(),
            target: None,
            flags: Some(2),
            attributes: None,
            error: Some("file uploads are not permitted".to_owned()),
            refused: true,
        };
        account.add(Record::Operation(refused), "/", &mut events);
        assert_eq!(events.last().map(|event| event.metadata().code.as_str()), Some("TS020E"));
    }
}
