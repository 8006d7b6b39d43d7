//! Sections of other programs' configuration files: `[name]` and the settings below it, as libpq's service file and
//! MySQL's option files have them.
//!
//! Only the section that is meant is touched. Everything else stays byte for byte, also comments and blank lines
//! between it and the next; a file is replaced as a whole, with the mode it had, through symbolic links.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Largest file that is changed, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Why a file was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SectionError {
    /// The file cannot be read or replaced.
    #[error("{step} {path}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: io::Error,
    },
    /// Larger than anybody's configuration.
    #[error("{0} is larger than 4 MiB and stays as it is")]
    TooLarge(PathBuf),
}

/// What a line is to whoever looks for sections.
enum Line<'a> {
    Header(&'a [u8]),
    Setting,
    /// Blank, or a comment.
    Nothing,
    /// Something else, such as `!include`.
    Other,
}

fn line(bytes: &[u8]) -> Line<'_> {
    let trimmed = bytes.trim_ascii();
    match trimmed.first() {
        None | Some(b'#' | b';') => Line::Nothing,
        Some(b'!') => Line::Other,
        Some(b'[') => {
            let name = trimmed.get(1..).unwrap_or_default();
            let end = name.iter().position(|&byte| byte == b']').unwrap_or(name.len());
            Line::Header(name.get(..end).unwrap_or_default())
        }
        Some(_) => Line::Setting,
    }
}

/// Where the sections of this name are: from the header to the last setting.
fn places(text: &[u8], name: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut inside = false;
    let mut at = 0;
    for bytes in text.split_inclusive(|&byte| byte == b'\n') {
        let end = at + bytes.len();
        match line(bytes) {
            Line::Header(header) => {
                inside = header == name.as_bytes();
                if inside {
                    found.push(at..end);
                }
            }
            Line::Setting if inside => {
                if let Some(last) = found.last_mut() {
                    last.end = end;
                }
            }
            Line::Other => inside = false,
            Line::Setting | Line::Nothing => {}
        }
        at = end;
    }
    found
}

fn without(text: &[u8], places: &[Range<usize>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for place in places {
        out.extend_from_slice(text.get(at..place.start).unwrap_or_default());
        at = place.end;
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out
}

/// The text with this section in it: in the place of one of that name, or at the end.
pub(super) fn put(text: &[u8], name: &str, settings: &[String]) -> Vec<u8> {
    let mut section = format!("[{name}]\n");
    for setting in settings {
        section.push_str(setting);
        section.push('\n');
    }
    let places = places(text, name);
    let Some((first, others)) = places.split_first() else {
        let mut out = text.to_vec();
        if !out.is_empty() && !out.ends_with(b"\n") {
            out.push(b'\n');
        }
        out.extend_from_slice(section.as_bytes());
        return out;
    };
    let (head, tail) = (text.get(..first.start).unwrap_or_default(), text.get(first.end..));
    let others: Vec<Range<usize>> =
        others.iter().map(|place| place.start - first.end..place.end - first.end).collect();
    [head, section.as_bytes(), &without(tail.unwrap_or_default(), &others)].concat()
}

/// The text without the sections of this name that contain `mark`; none where there is no such section.
pub(super) fn take(text: &[u8], name: &str, mark: &str) -> Option<Vec<u8>> {
    let marked = |place: &Range<usize>| {
        let section = text.get(place.clone()).unwrap_or_default();
        section.windows(mark.len().max(1)).any(|part| part == mark.as_bytes())
    };
    let places: Vec<Range<usize>> = places(text, name).into_iter().filter(marked).collect();
    (!places.is_empty()).then(|| without(text, &places))
}

/// Replaces a file's text by what `change` makes of it; answers whether it did. What ends up empty is removed.
pub(super) fn edit(
    path: &Path,
    change: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<bool, SectionError> {
    let fault = |step, path: &Path| {
        let path = path.to_path_buf();
        move |source| SectionError::Io { step, path, source }
    };
    // A link stays a link: what it leads to is replaced.
    let real = match std::fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_path_buf(),
        Err(error) => return Err(fault("find", path)(error)),
    };
    let (text, mode) = match File::open(&real) {
        Ok(file) => {
            let mode = file.metadata().map_err(fault("read", &real))?.permissions().mode() & 0o777;
            let mut text = Vec::new();
            file.take(LARGEST + 1).read_to_end(&mut text).map_err(fault("read", &real))?;
            if text.len() as u64 > LARGEST {
                return Err(SectionError::TooLarge(real));
            }
            (text, mode)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (Vec::new(), 0o600),
        Err(error) => return Err(fault("read", &real)(error)),
    };
    match change(&text) {
        None => Ok(false),
        Some(new) if new == text => Ok(true),
        Some(new) if new.is_empty() && real == path => {
            std::fs::remove_file(&real).map_err(fault("remove", &real)).map(|()| true)
        }
        Some(new) => replace(&real, &new, mode).map_err(fault("write", &real)).map(|()| true),
    }
}

/// Whole or not at all.
fn replace(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    std::fs::remove_file(&temporary).ok();
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        std::fs::remove_file(&temporary).ok();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# my services\n[prod]\nhost=db\n\n  [ours]  \nhost=a # x\n# inside\nsslcert=/t/ours.crt\n\n# the next is old\n[old]\r\nhost=o\r\n";

    fn settings(host: &str) -> Vec<String> {
        vec![format!("host={host}"), "sslcert=/t/new.crt".to_owned()]
    }

    #[test]
    fn what_is_put_and_taken_leaves_the_rest_byte_for_byte() {
        for text in ["", "\n", "# only\n", "[a]\nx=1\n", FILE, "[new\nbroken\n", "\u{feff}[q]\n"] {
            let with = put(text.as_bytes(), "new", &settings("h"));
            let again = take(&with, "new", "/t/new.crt").unwrap();
            // A section that was cut off counts as one of its name.
            if !text.contains("[new") {
                assert_eq!(String::from_utf8(again).unwrap(), text);
            }
        }
    }

    #[test]
    fn a_section_is_replaced_in_its_place() {
        let text = String::from_utf8(put(FILE.as_bytes(), "ours", &settings("b"))).unwrap();
        assert_eq!(
            text,
            "# my services\n[prod]\nhost=db\n\n[ours]\nhost=b\nsslcert=/t/new.crt\n\n# the next is old\n[old]\r\nhost=o\r\n"
        );
        let twice = "[s]\na=1\n[t]\nb=2\n[s]\nc=3\n# end\n";
        let once = String::from_utf8(put(twice.as_bytes(), "s", &settings("b"))).unwrap();
        assert_eq!(once, "[s]\nhost=b\nsslcert=/t/new.crt\n[t]\nb=2\n# end\n");
    }

    #[test]
    fn a_section_without_the_mark_is_somebody_elses() {
        assert!(take(FILE.as_bytes(), "ours", "/elsewhere/ours.crt").is_none());
        assert!(take(FILE.as_bytes(), "none", "").is_none());
        let left = take(FILE.as_bytes(), "ours", "/t/ours.crt").unwrap();
        assert_eq!(
            String::from_utf8(left).unwrap(),
            "# my services\n[prod]\nhost=db\n\n\n# the next is old\n[old]\r\nhost=o\r\n"
        );
    }

    #[test]
    fn the_last_line_may_lack_its_end() {
        let with = put(b"[a]\nx=1", "new", &settings("h"));
        assert_eq!(take(&with, "new", "new.crt").unwrap(), b"[a]\nx=1\n");
        assert_eq!(take(b"[a]\nx=1\n[n]\ny=2", "n", "y=2").unwrap(), b"[a]\nx=1\n");
    }

    #[test]
    fn mode_and_link_stay_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("dot.cnf"), folder.path().join("my.cnf"));
        std::fs::write(&file, "[client]\nuser=me\n").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(edit(&link, |text| Some(put(text, "n", &settings("h")))).unwrap());
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(std::fs::read_to_string(&file).unwrap().contains("[n]\nhost=h\n"));
        assert!(edit(&link, |text| take(text, "n", "new.crt")).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "[client]\nuser=me\n");
        assert!(!edit(&link, |text| take(text, "n", "new.crt")).unwrap());

        let own = folder.path().join("own");
        assert!(edit(&own, |text| Some(put(text, "n", &settings("h")))).unwrap());
        assert_eq!(std::fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(edit(&own, |text| take(text, "n", "new.crt")).unwrap());
        assert!(!own.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
