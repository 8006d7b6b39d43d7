//! HTTP as databases speak it: what a refusal looks like.
//!
//! Requests and replies are read by hyper; here is only what is written without it.

pub mod aws;

/// A whole reply of HTTP/1.1 with an error of the AWS JSON protocols, after which the connection closes: what a client
/// reads that may not come in at all. `kind` is the type of the error, such as [`aws::ACCESS_DENIED`].
pub fn refuse(status: u16, kind: &str, text: &str) -> Vec<u8> {
    let reason = match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        // The words mean nothing to programs.
        _ => "Refused",
    };
    let body = aws::error(kind, text);
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        aws::JSON_1_0,
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_whole_reply() {
        let wanted = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 74\r\n\
            Connection: close\r\n\r\n{\"__type\":\"com.amazon.coral.service#AccessDeniedException\",\"message\":\"no\"}";
        let refusal = refuse(400, aws::ACCESS_DENIED, "no");
        assert_eq!(String::from_utf8(refusal).unwrap(), wanted);
    }
}
