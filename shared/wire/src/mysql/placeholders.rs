//! Counts the `?` of a statement, for a client that executes it before the server has said how many there are.

/// Question marks outside strings, names and comments.
pub(super) fn count(sql: &[u8]) -> usize {
    let mut rest = sql;
    let mut found = 0;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'?' => {
                found += 1;
                after
            }
            b'\'' | b'"' | b'`' => after_quote(after, byte),
            b'#' => after_line(after),
            b'-' if is_line_comment(after) => after_line(after),
            b'/' if after.first() == Some(&b'*') => after_comment(after),
            _ => after,
        };
    }
    found
}

fn after_quote(mut rest: &[u8], quote: u8) -> &[u8] {
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'\\' if quote != b'`' => after.get(1..).unwrap_or_default(),
            _ => after,
        };
        // A doubled quote ends one string and begins the next, which counts the same.
        if byte == quote {
            break;
        }
    }
    rest
}

fn is_line_comment(after: &[u8]) -> bool {
    match after {
        [b'-'] => true,
        [b'-', next, ..] => next.is_ascii_whitespace() || next.is_ascii_control(),
        _ => false,
    }
}

fn after_line(rest: &[u8]) -> &[u8] {
    rest.iter().position(|&byte| byte == b'\n').and_then(|end| rest.get(end..)).unwrap_or_default()
}

/// `/*! … */` and `/*M! … */` are statements.
fn after_comment(rest: &[u8]) -> &[u8] {
    if rest.starts_with(b"*!") || rest.starts_with(b"*M!") {
        return rest;
    }
    let inside = rest.get(1..).unwrap_or_default();
    inside
        .windows(2)
        .position(|two| two == b"*/")
        .and_then(|end| inside.get(end + 2..))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::count;

    #[test]
    fn only_those_that_are_parameters() {
        let cases: [(&str, usize); 12] = [
            ("select ?", 1),
            ("insert into t values (?, '?', \"?\", `?`, ?)", 2),
            ("select '\\'?', ?", 1),
            ("select '''?', ?", 1),
            ("select 1 -- ?\n, ?", 1),
            ("select 1--?", 1),
            ("select 1 # ?\n, ?", 1),
            ("select /* ? */ ?", 1),
            ("select /*! ? */ ?", 2),
            ("select /* ?", 0),
            ("select '?", 0),
            ("", 0),
        ];
        for (sql, want) in cases {
            assert_eq!(count(sql.as_bytes()), want, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(sql in "[?'\"`#/*! \\\\\n-]{0,40}") {
            prop_assert!(count(sql.as_bytes()) <= sql.matches('?').count());
        }
    }
}
