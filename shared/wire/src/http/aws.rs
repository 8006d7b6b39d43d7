//! Errors of the AWS JSON protocols (<https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html>).

use std::fmt::Write;

/// The content type of AWS JSON 1.0, which DynamoDB speaks.
pub const JSON_1_0: &str = "application/x-amz-json-1.0";
/// The error that clients show and do not repeat.
pub const ACCESS_DENIED: &str = "com.amazon.coral.service#AccessDeniedException";
/// The error of what is away for now; clients ask again.
pub const UNAVAILABLE: &str = "com.amazon.coral.service#ServiceUnavailableException";

/// The body of an error of the type `kind`, a name behind a namespace and `#`.
pub fn error(kind: &str, message: &str) -> String {
    format!("{{\"__type\":{},\"message\":{}}}", quoted(kind), quoted(message))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Writing to a string cannot fail.
            c if c.is_control() => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_json() {
        assert_eq!(
            error("a#B", "say \"no\"\n"),
            r#"{"__type":"a#B","message":"say \"no\"\u000a"}"#
        );
    }
}
