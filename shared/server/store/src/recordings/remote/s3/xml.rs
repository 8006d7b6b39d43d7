//! The XML of S3's answers, as far as it is read, and of the one request that has a body of it.

use bytes::Bytes;
use quick_xml::de::DeError;
use quick_xml::escape::escape;
use serde::Deserialize;

/// An answer as a value.
pub(super) fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DeError> {
    quick_xml::de::from_str(text)
}

/// `Error`: what is wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
}

/// Whether the answer is an `Error`.
pub(super) fn is_error(body: &Bytes) -> bool {
    let head = body.get(..body.len().min(200)).unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    let head = head.trim_start();
    let root = head.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>"));
    root.map_or(head, |(_, rest)| rest.trim_start()).starts_with("<Error>")
}

/// The code and message of an `Error`; empty for anything else, such as a proxy's page.
pub(super) fn error(text: &str) -> Refusal {
    read(text).unwrap_or_default()
}

/// `InitiateMultipartUploadResult`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Begun {
    pub(super) upload_id: String,
}

/// `ListVersionsResult`: stored newest first for each name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Versions {
    #[serde(rename = "Version")]
    pub(super) versions: Vec<Version>,
    #[serde(rename = "DeleteMarker")]
    pub(super) deletions: Vec<Version>,
    #[serde(rename = "IsTruncated")]
    pub(super) truncated: bool,
    #[serde(rename = "NextKeyMarker")]
    pub(super) next_key: Option<String>,
    #[serde(rename = "NextVersionIdMarker")]
    pub(super) next_version: Option<String>,
}

impl Versions {
    /// Takes what `page` has of this name.
    pub(super) fn extend_of(&mut self, page: Self, key: &str) {
        self.versions.extend(page.versions.into_iter().filter(|version| version.key == key));
        self.deletions.extend(page.deletions.into_iter().filter(|version| version.key == key));
    }
}

/// One version, or one deletion.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Version {
    #[serde(rename = "Key")]
    pub(super) key: String,
    #[serde(rename = "VersionId")]
    pub(super) id: String,
    #[serde(rename = "Size", default)]
    pub(super) bytes: u64,
}

/// `ListBucketResult`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Objects {
    #[serde(rename = "Contents")]
    pub(super) objects: Vec<Listed>,
}

/// One object.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    #[serde(rename = "Key")]
    pub(super) key: String,
    #[serde(rename = "Size", default)]
    pub(super) bytes: u64,
}

/// `ListMultipartUploadsResult`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Uploads {
    #[serde(rename = "Upload")]
    pub(super) uploads: Vec<Open>,
}

/// One open upload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Open {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiator: Option<Initiator>,
}

/// Who began an upload.
#[derive(Debug, Deserialize)]
pub(super) struct Initiator {
    #[serde(rename = "DisplayName", default)]
    pub(super) name: String,
}

/// `VersioningConfiguration`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Versioning {
    status: String,
}

/// Whether the bucket keeps versions.
pub(super) fn versioning_enabled(text: &str) -> bool {
    read::<Versioning>(text).is_ok_and(|found| found.status == "Enabled")
}

/// `CompleteMultipartUpload`: the parts in their order, by their ETags.
pub(super) fn completion<'a>(etags: impl Iterator<Item = &'a String>) -> String {
    let mut text = String::from("<CompleteMultipartUpload>");
    for (number, etag) in (1u32..).zip(etags) {
        let etag = escape(etag.as_str());
        text += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    text + "</CompleteMultipartUpload>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_deletions_may_alternate() {
        let text = r#"<?xml version="1.0"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
          <Name>audit</Name><IsTruncated>true</IsTruncated><NextKeyMarker>p/a</NextKeyMarker>
          <Version><Key>p/a</Key><VersionId>3</VersionId><IsLatest>true</IsLatest><Size>9</Size></Version>
          <DeleteMarker><Key>p/a</Key><VersionId>2</VersionId></DeleteMarker>
          <Version><Key>p/a</Key><VersionId>1</VersionId><Size>5</Size></Version>
          <Version><Key>p/a.more</Key><VersionId>0</VersionId><Size>1</Size></Version></ListVersionsResult>"#;
        let page: Versions = read(text).unwrap();
        assert!(page.truncated && page.next_key.as_deref() == Some("p/a"));
        let mut all = Versions::default();
        all.extend_of(page, "p/a");
        let ids: Vec<&str> = all.versions.iter().map(|version| version.id.as_str()).collect();
        assert_eq!((ids, all.versions[1].bytes, all.deletions.len()), (vec!["3", "1"], 5, 1));
    }

    #[test]
    fn an_error_is_one_behind_any_status() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code><Message>m</Message></Error>";
        assert!(is_error(&Bytes::from(text)));
        assert_eq!(error(text).code, "InternalError");
        assert!(!is_error(&Bytes::from_static(b"<CompleteMultipartUploadResult/>")));
        assert!(error("<html>busy").code.is_empty());
    }

    #[test]
    fn uploads_and_completion() {
        let text = "<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>u</UploadId><Initiator><ID>1</ID>\
            <DisplayName>auth</DisplayName></Initiator></Upload></ListMultipartUploadsResult>";
        let found: Uploads = read(text).unwrap();
        assert_eq!(found.uploads[0].initiator.as_ref().unwrap().name, "auth");
        assert!(read::<Uploads>("<ListMultipartUploadsResult/>").unwrap().uploads.is_empty());
        let etags = ["\"a<b\"".to_owned()];
        assert!(
            completion(etags.iter())
                .contains("<PartNumber>1</PartNumber><ETag>&quot;a&lt;b&quot;</ETag>")
        );
        assert!(versioning_enabled(
            "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        ));
        assert!(!versioning_enabled("<VersioningConfiguration/>"));
    }
}
