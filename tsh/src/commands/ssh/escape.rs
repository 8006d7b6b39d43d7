//! `~.` and `~?` at the beginning of a line, as in `ssh`.

/// Shown for `~?`.
pub(super) const HELP: &str = "~?\r\n\
    Supported escape sequences:\r\n \
    ~.  - close the session\r\n \
    ~?  - this message\r\n \
    ~~  - send the escape character by typing it twice\r\n";

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Bytes for the server.
    Input(Vec<u8>),
    /// Show the help.
    Help,
    /// Close the session.
    End,
}

/// Where in a line the typing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    LineStart,
    Tilde,
    Line,
}

/// Looks for escapes in what is typed.
#[derive(Debug, Default)]
pub(super) struct Escapes {
    at: At,
}

impl Escapes {
    /// Takes escapes out. What comes before `~?` in one read is dropped with it: a person types it alone.
    pub(super) fn filter(&mut self, bytes: &[u8]) -> Typed {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            self.at = match (self.at, byte) {
                (At::LineStart, b'~') => At::Tilde,
                (At::Tilde, b'.') => return Typed::End,
                (At::Tilde, b'?') => {
                    self.at = At::LineStart;
                    return Typed::Help;
                }
                (At::Tilde, b'~') => {
                    out.push(b'~');
                    At::Line
                }
                (at, byte) => {
                    if at == At::Tilde {
                        out.push(b'~');
                    }
                    out.push(byte);
                    if matches!(byte, b'\r' | b'\n') { At::LineStart } else { At::Line }
                }
            };
        }
        Typed::Input(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(text: &[u8]) -> Typed {
        Escapes::default().filter(text)
    }

    #[test]
    fn escapes_count_at_the_beginning_of_a_line_only() {
        assert_eq!(input(b"~."), Typed::End);
        assert_eq!(input(b"ls\r~."), Typed::End);
        assert_eq!(input(b"cat ~.x"), Typed::Input(b"cat ~.x".to_vec()));
        assert_eq!(input(b"~?"), Typed::Help);
        assert_eq!(input(b"~~."), Typed::Input(b"~.".to_vec()));
        assert_eq!(input(b"~/bin\r"), Typed::Input(b"~/bin\r".to_vec()));
    }

    #[test]
    fn escapes_are_found_when_typed_key_by_key() {
        let mut escapes = Escapes::default();
        assert_eq!(escapes.filter(b"\r"), Typed::Input(b"\r".to_vec()));
        assert_eq!(escapes.filter(b"~"), Typed::Input(Vec::new()));
        assert_eq!(escapes.filter(b"."), Typed::End);
    }
}
