//! Parameters of an execution: one row of them, or MariaDB's many ("COM_STMT_EXECUTE", "COM_STMT_BULK_EXECUTE").

use std::collections::BTreeMap;

use super::read::Reader;
use super::value::{Kind, Value};

/// In place of what cannot be told.
const UNKNOWN: &str = "<unknown>";
/// Least room for a value that is shown at all.
const LEAST: usize = 16;
/// What is told of a value that is cut, and of those left out, in bytes.
const MARK: usize = 64;
/// Bulk executions send types with them.
const SENDS_TYPES: u16 = 128;

/// What is known of a statement's parameters.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    /// How many.
    pub(super) count: usize,
    /// Their types, of an execution before.
    pub(super) types: &'a [Kind],
    /// Bytes that were sent ahead, of those that were.
    pub(super) long: Option<&'a BTreeMap<u16, u64>>,
}

/// Parameters that were read.
#[derive(Debug, PartialEq)]
pub(super) struct Parameters {
    pub(super) shown: Vec<String>,
    /// The types, when new ones came along.
    pub(super) types: Option<Vec<Kind>>,
    /// Nothing was left over.
    pub(super) exact: bool,
}

impl Parameters {
    pub(super) fn unknown() -> Self {
        Self { shown: vec![UNKNOWN.to_owned()], types: None, exact: false }
    }
}

/// Values as text, as long as there is room.
struct Shown {
    values: Vec<String>,
    room: usize,
    left_out: usize,
}

impl Shown {
    fn new(room: usize) -> Self {
        Self { values: Vec::new(), room: room.saturating_sub(MARK), left_out: 0 }
    }

    fn push(&mut self, value: impl FnOnce(usize) -> String) {
        if self.room < LEAST {
            self.left_out += 1;
            return;
        }
        let text = value(self.room.saturating_sub(MARK).max(LEAST));
        self.room = self.room.saturating_sub(text.len() + 1);
        self.values.push(text);
    }

    fn finish(mut self, cut: bool) -> Vec<String> {
        if cut {
            self.values.push("… [cut: more parameters]".to_owned());
        } else if self.left_out > 0 {
            self.values.push(format!("… [cut: {} more parameters]", self.left_out));
        }
        self.values
    }
}

/// Reads what follows the head of an execution. `cut`: only the beginning is here. None when it is not what it should
/// be.
pub(super) fn one(body: &[u8], known: &Known<'_>, room: usize, cut: bool) -> Option<Parameters> {
    let mut reader = Reader::new(body);
    let mut shown = Shown::new(room);
    if known.count == 0 {
        return Some(Parameters {
            shown: Vec::new(),
            types: None,
            exact: reader.rest().is_empty(),
        });
    }
    let Some((nulls, types)) = head(&mut reader, known.count) else {
        return cut.then(Parameters::unknown);
    };
    let in_force = types.as_deref().unwrap_or(known.types);
    if in_force.len() != known.count {
        return None;
    }
    for (at, &kind) in in_force.iter().enumerate() {
        let is_null = nulls.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
        let ahead = known.long.and_then(|long| long.get(&u16::try_from(at).ok()?));
        if let Some(size) = ahead {
            shown.push(|_| format!("<long data: {size} bytes>"));
        } else if is_null {
            shown.push(|_| "NULL".to_owned());
        } else {
            match Value::read(kind, &mut reader) {
                Some(value) => shown.push(|room| value.show(room)),
                None if cut => {
                    return Some(Parameters { shown: shown.finish(true), types, exact: false });
                }
                None => return None,
            }
        }
    }
    Some(Parameters { shown: shown.finish(false), types, exact: reader.rest().is_empty() })
}

/// Which are null, and the types if they are new.
fn head<'a>(reader: &mut Reader<'a>, count: usize) -> Option<(&'a [u8], Option<Vec<Kind>>)> {
    let nulls = reader.take(count.div_ceil(8))?;
    let types = match reader.u8()? {
        0 => None,
        _ => Some(kinds(reader, count)?),
    };
    Some((nulls, types))
}

fn kinds(reader: &mut Reader<'_>, count: usize) -> Option<Vec<Kind>> {
    let bytes = reader.take(count.checked_mul(2)?)?;
    Some(bytes.chunks_exact(2).map(|two| Kind::from_le_bytes([two[0], two[1]])).collect())
}

/// Reads what follows the statement of a bulk execution; rows come one after the other.
pub(super) fn bulk(body: &[u8], known: &Known<'_>, room: usize, cut: bool) -> Option<Parameters> {
    let mut reader = Reader::new(body);
    let flags = reader.u16()?;
    let types = match flags & SENDS_TYPES {
        0 => None,
        _ => match kinds(&mut reader, known.count) {
            Some(types) => Some(types),
            None => return cut.then(Parameters::unknown),
        },
    };
    let in_force = types.as_deref().unwrap_or(known.types);
    if in_force.is_empty() || in_force.len() != known.count {
        return None;
    }
    let mut shown = Shown::new(room);
    let mut kinds = in_force.iter().cycle();
    let mut row_ends = 0;
    while let (false, Some(&kind)) = (reader.rest().is_empty(), kinds.next()) {
        row_ends = (row_ends + 1) % known.count;
        let text = match reader.u8()? {
            0 => match Value::read(kind, &mut reader) {
                Some(value) => {
                    shown.push(|room| value.show(room));
                    continue;
                }
                None if cut => {
                    return Some(Parameters { shown: shown.finish(true), types, exact: false });
                }
                None => return None,
            },
            1 => "NULL",
            2 => "DEFAULT",
            3 => "<ignored>",
            _ => return None,
        };
        shown.push(|_| text.to_owned());
    }
    Some(Parameters { shown: shown.finish(cut), types, exact: row_ends == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(count: usize, types: &[Kind]) -> Known<'_> {
        Known { count, types, long: None }
    }

    /// Types new: a byte and a string, the second of three is null.
    const ROW: &[u8] = &[0b010, 1, 1, 0, 3, 0, 0xfd, 0, 7, 2, b'h', b'i'];

    #[test]
    fn a_row_with_types_and_one_without() {
        let first = one(ROW, &known(3, &[]), 1000, false).unwrap();
        assert_eq!(first.shown, ["7", "NULL", "hi"]);
        assert_eq!(first.types.as_deref(), Some(&[1, 3, 0xfd][..]));
        assert!(first.exact);
        let again = one(&[0b110, 0, 9], &known(3, &[1, 3, 0xfd]), 1000, false).unwrap();
        assert_eq!(
            (again.shown, again.types, again.exact),
            (vec!["9".into(), "NULL".into(), "NULL".into()], None, true)
        );
        assert_eq!(one(&[0b110, 0, 9], &known(3, &[]), 1000, false), None, "no types yet");
    }

    #[test]
    fn what_was_sent_ahead_has_no_value_here() {
        let long = BTreeMap::from([(2, 5_000_000)]);
        let known = Known { long: Some(&long), ..known(3, &[]) };
        let read = one(&ROW[..9], &known, 1000, false).unwrap();
        assert_eq!(read.shown, ["7", "NULL", "<long data: 5000000 bytes>"]);
        assert!(read.exact);
    }

    #[test]
    fn a_cut_row_tells_what_there_is_and_a_short_one_is_refused() {
        for end in 0..ROW.len() {
            assert_eq!(one(&ROW[..end], &known(3, &[]), 1000, false), None, "{end}");
            assert!(!one(&ROW[..end], &known(3, &[]), 1000, true).unwrap().exact, "{end}");
        }
        let cut = one(&ROW[..10], &known(3, &[]), 1000, true).unwrap();
        assert_eq!(cut.shown, ["7", "NULL", "… [cut: more parameters]"]);
    }

    #[test]
    fn many_parameters_keep_to_the_room() {
        let count = 5000;
        let mut body = vec![0; 625];
        body.push(1);
        body.extend([1, 0].repeat(count));
        body.extend([5].repeat(count));
        let shown = one(&body, &known(count, &[]), 1000, false).unwrap().shown;
        assert!(shown.iter().map(String::len).sum::<usize>() <= 1000);
        assert_eq!(
            shown.last().unwrap(),
            &format!("… [cut: {} more parameters]", count - shown.len() + 1)
        );
    }

    #[test]
    fn bulk_rows_follow_each_other() {
        let body = [128, 0, 1, 0, 0xfd, 0, 0, 1, 0, 1, b'a', 1, 2, 3, 0, 1, b'b'];
        let read = bulk(&body, &known(2, &[]), 1000, false).unwrap();
        assert_eq!(read.shown, ["1", "a", "NULL", "DEFAULT", "<ignored>", "b"]);
        assert!(read.exact);
        assert_eq!(bulk(&body[..16], &known(2, &[]), 1000, false), None);
        assert_eq!(bulk(&body, &known(0, &[]), 1000, false), None);
    }
}
