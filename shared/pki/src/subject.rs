//! The subject of X.509 certificates: an identity as a list of attributes, each its own relative name.
//!
//! rcgen keeps one value per attribute type, and an identity repeats some (roles, logins), so the subject is written
//! here and put into the certificate before it is signed.

use crate::{PkiError, der};
use x509_parser::prelude::X509Certificate;

/// One attribute type: the first two numbers of its identifier joined, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attribute(u8, &'static [u64]);

pub(crate) const COMMON_NAME: Attribute = Attribute(0x55, &[4, 3]);
pub(crate) const LOCALITY: Attribute = Attribute(0x55, &[4, 7]);
pub(crate) const STREET: Attribute = Attribute(0x55, &[4, 9]);
pub(crate) const ORGANIZATION: Attribute = Attribute(0x55, &[4, 10]);
pub(crate) const ORGANIZATIONAL_UNIT: Attribute = Attribute(0x55, &[4, 11]);
pub(crate) const POSTAL_CODE: Attribute = Attribute(0x55, &[4, 17]);
/// 1.3.9999.1.7: the cluster of the identity.
pub(crate) const CLUSTER: Attribute = Attribute(0x2b, &[9999, 1, 7]);
/// 1.3.9999.1.9: the address the user logged in from.
pub(crate) const LOGIN_IP: Attribute = Attribute(0x2b, &[9999, 1, 9]);
/// 1.3.9999.1.20: `local` or `sso`.
pub(crate) const USER_TYPE: Attribute = Attribute(0x2b, &[9999, 1, 20]);
/// 1.3.9999.2.1 to 2.4: the database a certificate is for.
pub(crate) const DB_SERVICE: Attribute = Attribute(0x2b, &[9999, 2, 1]);
pub(crate) const DB_PROTOCOL: Attribute = Attribute(0x2b, &[9999, 2, 2]);
pub(crate) const DB_USER: Attribute = Attribute(0x2b, &[9999, 2, 3]);
pub(crate) const DB_NAME: Attribute = Attribute(0x2b, &[9999, 2, 4]);
/// 1.3.9999.2.15: the only address the certificate may be used from.
pub(crate) const PINNED_IP: Attribute = Attribute(0x2b, &[9999, 2, 15]);

/// A subject in the making.
#[derive(Default)]
pub(crate) struct SubjectBuilder(Vec<u8>);

impl SubjectBuilder {
    pub(crate) fn push(&mut self, attribute: Attribute, value: &str) {
        let mut pair = der::tlv(der::OID, &der::oid_content(attribute.0, attribute.1));
        der::push(&mut pair, der::UTF8_STRING, value.as_bytes());
        der::push(&mut self.0, der::SET, &der::tlv(der::SEQUENCE, &pair));
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        der::tlv(der::SEQUENCE, &self.0)
    }
}

/// A subject as it was read: pairs of attribute identifier and text.
pub(crate) struct Subject(Vec<(Vec<u8>, String)>);

impl Subject {
    pub(crate) fn read(certificate: &X509Certificate<'_>) -> Result<Self, PkiError> {
        let mut pairs = Vec::new();
        for attribute in certificate.subject().iter_attributes() {
            let text = attribute.as_str().map_err(|_| PkiError::Identity("subject"))?;
            pairs.push((attribute.attr_type().as_bytes().to_vec(), text.to_owned()));
        }
        Ok(Self(pairs))
    }

    /// All values of an attribute, in order.
    pub(crate) fn all(&self, attribute: Attribute) -> impl Iterator<Item = &str> {
        let wanted = der::oid_content(attribute.0, attribute.1);
        self.0.iter().filter(move |(found, _)| *found == wanted).map(|(_, text)| text.as_str())
    }

    /// The value of an attribute that stands at most once; a second one is an attempt to be read two ways.
    pub(crate) fn one(
        &self,
        attribute: Attribute,
        what: &'static str,
    ) -> Result<Option<&str>, PkiError> {
        let mut values = self.all(attribute);
        match (values.next(), values.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(PkiError::Identity(what)),
        }
    }
}

/// Puts `subject` into a to-be-signed certificate in place of the one that is there.
pub(crate) fn replace_subject(tbs: &[u8], subject: &[u8]) -> Option<Vec<u8>> {
    let outer =
        der::split(tbs).filter(|outer| outer.tag == der::SEQUENCE && outer.rest.is_empty())?;
    let mut content = Vec::with_capacity(outer.content.len() + subject.len());
    let mut rest = outer.content;
    // RFC 5280 §4.1: version, serial number, signature, issuer, validity, subject, …
    for _ in 0..5 {
        let element = der::split(rest)?;
        content.extend_from_slice(element.whole);
        rest = element.rest;
    }
    let old = der::split(rest).filter(|old| old.tag == der::SEQUENCE)?;
    content.extend_from_slice(subject);
    content.extend_from_slice(old.rest);
    Some(der::tlv(der::SEQUENCE, &content))
}
