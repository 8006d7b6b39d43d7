//! A peer's identification line (RFC 4253 §4.2), read ahead of the handshake.

/// What an identification says of the software behind it. A hint for choosing algorithms, never for trust.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientIdent {
    /// OpenSSH's version, where it is OpenSSH.
    pub openssh: Option<(u32, u32)>,
}

impl ClientIdent {
    /// Reads a line such as `SSH-2.0-OpenSSH_9.2p1 Debian-2`.
    pub fn parse(line: &str) -> Self {
        let openssh = line.trim_end().strip_prefix("SSH-2.0-OpenSSH_").and_then(|rest| {
            // `for_Windows_8.1` is OpenSSH as well.
            let rest = rest.strip_prefix("for_Windows_").unwrap_or(rest);
            let digits =
                |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
            let major = digits(rest);
            let minor = digits(rest.get(major.len()..)?.strip_prefix('.')?);
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        Self { openssh }
    }

    /// Whether it has AES-GCM: OpenSSH since 6.2.
    pub fn has_gcm(&self) -> bool {
        self.openssh.is_some_and(|version| version >= (6, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_clients_send() {
        for (line, version) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r", Some((9, 2))),
            ("SSH-2.0-OpenSSH_10.0", Some((10, 0))),
            ("SSH-2.0-OpenSSH_for_Windows_8.1", Some((8, 1))),
            ("SSH-2.0-OpenSSH_6.1", Some((6, 1))),
            ("SSH-2.0-OpenSSH_", None),
            ("SSH-2.0-OpenSSH_9", None),
            ("SSH-2.0-OpenSSH_99999999999999.1", None),
            ("SSH-2.0-PuTTY_Release_0.78", None),
            ("SSH-2.0-dropbear_2022.83", None),
        ] {
            assert_eq!(ClientIdent::parse(line).openssh, version, "{line}");
        }
    }
}
