//! Reading SSH certificates from bytes of a peer.
//!
//! ssh-key's decoder follows a certificate in the place of the signing key into itself without a limit, ignores
//! bytes behind the fields of a nested string, and reads some fields in more than one spelling. So the outer form is
//! walked first, a signing key that is itself a certificate is refused unread, and the decoded certificate has to
//! encode to the very bytes that came: what is verified afterwards is what was signed.

use crate::ssh_ca::certifiable;
use crate::ssh_key::{Certificate, PublicKey};
use crate::verify::CertRefusal;

/// The longest certificate that is read.
pub const MAX_CERTIFICATE: usize = 128 * 1024;

/// The longest line of a public key that is read: RSA of 16384 bits and a comment fit.
const MAX_KEY_LINE: usize = 8 * 1024;

/// Reads a public key of a peer, `TYPE BASE64 [COMMENT]`: of a kind that is certified, and no certificate.
pub fn parse_public_key(line: &str) -> Result<PublicKey, CertRefusal> {
    // The decoder follows nested certificates here as well; a short line nests little.
    let line = line.trim();
    if line.len() > MAX_KEY_LINE {
        return Err(CertRefusal::Malformed("too long"));
    }
    let kind = line.split([' ', '\t']).next().unwrap_or_default();
    if is_certificate_type(kind.as_bytes()) {
        return Err(CertRefusal::UnsupportedKey(printable(kind.as_bytes())));
    }
    let key = PublicKey::from_openssh(line).map_err(|_| CertRefusal::Malformed("public key"))?;
    if certifiable(key.key_data()) {
        Ok(key)
    } else {
        Err(CertRefusal::UnsupportedKey(key.algorithm().to_string()))
    }
}

/// Reads a certificate blob.
pub fn parse_certificate(blob: &[u8]) -> Result<Certificate, CertRefusal> {
    if blob.len() > MAX_CERTIFICATE {
        return Err(CertRefusal::Malformed("too long"));
    }
    let signing_key_type = signing_key_type(blob)?;
    if is_certificate_type(signing_key_type) {
        return Err(CertRefusal::SignedByCertificate);
    }
    let certificate =
        Certificate::from_bytes(blob).map_err(|_| CertRefusal::Malformed("encoding"))?;
    match certificate.to_bytes() {
        Ok(bytes) if bytes == blob => Ok(certificate),
        _ => Err(CertRefusal::Malformed("not in canonical form")),
    }
}

/// Reads a certificate in the form of a `-cert.pub` file, `TYPE BASE64 [COMMENT]`.
pub fn parse_certificate_line(line: &str) -> Result<Certificate, CertRefusal> {
    use base64::Engine as _;
    let mut words = line.trim().splitn(3, [' ', '\t']);
    let (Some(kind), Some(body)) = (words.next(), words.next()) else {
        return Err(CertRefusal::Malformed("not one line of type and base64"));
    };
    if !is_certificate_type(kind.as_bytes()) {
        return Err(CertRefusal::NotCertificate);
    }
    if body.len() > MAX_CERTIFICATE.saturating_mul(4) / 3 + 4 {
        return Err(CertRefusal::Malformed("too long"));
    }
    let blob = base64::engine::general_purpose::STANDARD
        .decode(body)
        .map_err(|_| CertRefusal::Malformed("base64"))?;
    let mut certificate = parse_certificate(&blob)?;
    if certificate.algorithm().to_certificate_type() != kind {
        return Err(CertRefusal::Malformed("type"));
    }
    if let Some(comment) = words.next() {
        certificate.set_comment(comment.trim());
    }
    Ok(certificate)
}

/// Whether an algorithm name is that of a certificate.
fn is_certificate_type(name: &[u8]) -> bool {
    std::str::from_utf8(name)
        .is_ok_and(|name| name.split('@').next().is_some_and(|front| front.ends_with("-cert-v01")))
}

/// A name from a peer, short and without anything a terminal would act on.
fn printable(name: &[u8]) -> String {
    name.iter()
        .filter(|byte| byte.is_ascii_graphic())
        .take(64)
        .map(|byte| char::from(*byte))
        .collect()
}

/// The type of the key that signed, found by walking the fields (PROTOCOL.certkeys, "New public key formats").
fn signing_key_type(blob: &[u8]) -> Result<&[u8], CertRefusal> {
    let mut fields = Fields(blob);
    let kind = fields.string()?;
    if !is_certificate_type(kind) {
        return Err(CertRefusal::NotCertificate);
    }
    fields.string()?; // nonce
    let key_fields = match kind {
        b"ssh-ed25519-cert-v01@openssh.com" => 1,
        b"ssh-rsa-cert-v01@openssh.com"
        | b"rsa-sha2-256-cert-v01@openssh.com"
        | b"rsa-sha2-512-cert-v01@openssh.com" => 2,
        b"ecdsa-sha2-nistp256-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp384-cert-v01@openssh.com"
        | b"ecdsa-sha2-nistp521-cert-v01@openssh.com"
        | b"sk-ssh-ed25519-cert-v01@openssh.com" => 2,
        b"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com" => 3,
        other => {
            return Err(CertRefusal::UnsupportedKey(printable(other)));
        }
    };
    for _ in 0..key_fields {
        fields.string()?;
    }
    fields.take(8 + 4)?; // serial, type
    fields.string()?; // key id
    fields.string()?; // principals
    fields.take(8 + 8)?; // valid after, valid before
    fields.string()?; // critical options
    fields.string()?; // extensions
    fields.string()?; // reserved
    let signing_key = fields.string()?;
    fields.string()?; // signature
    if !fields.0.is_empty() {
        return Err(CertRefusal::Malformed("bytes behind the end"));
    }
    Fields(signing_key).string()
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CertRefusal> {
        let (front, rest) =
            self.0.split_at_checked(count).ok_or(CertRefusal::Malformed("truncated"))?;
        self.0 = rest;
        Ok(front)
    }

    fn string(&mut self) -> Result<&'a [u8], CertRefusal> {
        let length = self.take(4)?.iter().fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
        self.take(length)
    }
}
