//! Principals of host certificates as patterns.
//!
//! OpenSSH 10.3 "consistently" takes wildcards in the principals of host certificates and never in those of user
//! certificates; before, they were plain names. The pattern is the one of `match_pattern` (ssh_config(5), PATTERNS):
//! `*` is any run of characters, dots included, `?` is exactly one; case counts. So `*.example.com` stands for
//! `a.example.com` and for `a.b.example.com`, not for `example.com`.
//! Narrower than OpenSSH: a pattern without a letter or digit (`*`, `*.*`) matches nothing, since it would stand for
//! every host, and a pattern never matches an address literal.

use std::net::IpAddr;

/// Whether a principal of a host certificate stands for the name a user typed.
pub fn host_principal_matches(principal: &str, name: &str) -> bool {
    if name.is_empty() || principal.is_empty() {
        return false;
    }
    if !principal.contains(['*', '?']) {
        return principal == name;
    }
    // A typed name with a wildcard is no name; equal text must not open a host either.
    if name.contains(['*', '?']) || name.parse::<IpAddr>().is_ok() {
        return false;
    }
    principal.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && matches(principal.as_bytes(), name.as_bytes())
}

/// Iterative, with one place to go back to: linear in memory, quadratic in time at worst.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p + 1, t));
                p += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((after, from)) => {
                    p = after;
                    t = from + 1;
                    back = Some((after, t));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        let cases = [
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "A.example.com", false),
            ("a.example.com", "b.example.com", false),
            ("a.example.com", "a.example.com.", false),
            ("a.example.com", "", false),
            ("", "", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", ".example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.example.com.evil.org", false),
            ("*.example.com", "aexample.com", false),
            ("*.example.com", "*.example.com", false),
            ("web-?.example.com", "web-1.example.com", true),
            ("web-?.example.com", "web-12.example.com", false),
            ("web*", "web", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("*", "a.example.com", false),
            ("*.*", "a.example.com", false),
            ("?", "a", false),
            ("10.0.0.*", "10.0.0.7", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("::1", "::1", true),
            ("*:1", "::1", false),
        ];
        for (principal, name, expected) in cases {
            assert_eq!(host_principal_matches(principal, name), expected, "{principal} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_principal_matches_itself_only(principal in "[a-z0-9.:-]{1,20}", name in "[a-z0-9.:-]{1,20}") {
            prop_assert!(host_principal_matches(&principal, &principal));
            prop_assert_eq!(host_principal_matches(&principal, &name), principal == name);
        }

        #[test]
        fn star_is_any_run(front in "[a-z]{1,5}", middle in "[a-z.]{0,9}", end in "[a-z]{1,5}") {
            let (pattern, name) = (format!("{front}*{end}"), format!("{front}{middle}{end}"));
            prop_assert!(host_principal_matches(&pattern, &name));
        }

        #[test]
        fn never_panics(principal in "\\PC{0,30}", name in "\\PC{0,30}") {
            host_principal_matches(&principal, &name);
        }

        #[test]
        fn many_stars_end_soon(length in 0usize..250) {
            let pattern = format!("{}b", "*a".repeat(100));
            prop_assert!(!host_principal_matches(&pattern, &"a".repeat(length)));
        }
    }
}
