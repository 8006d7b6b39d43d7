//! Answers that the real servers of the tests do not give: stores that know less than S3, that keep less than was
//! sent, and that lie.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::bucket::{Block, Written};
use super::*;

/// A request as it came.
#[derive(Debug, Clone)]
struct Asked {
    /// Method and path.
    line: String,
    headers: String,
    bytes: usize,
}

/// Answers one request after the other, by a function or by what was laid ready.
struct Stub {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    async fn start(mut answer: impl FnMut(&Asked) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &mut answer, &log).await;
            }
        });
        Self { address, asked }
    }

    async fn answering(answers: impl IntoIterator<Item = String>) -> Self {
        let mut answers: VecDeque<String> = answers.into_iter().collect();
        Self::start(move |_| answers.pop_front().unwrap_or_else(|| reply("500 Empty", "", "")))
            .await
    }

    fn s3(&self) -> S3 {
        let text = format!(
            "s3://audit?endpoint={}&insecure=true&disablesse=true&acl=private",
            self.address
        );
        let env = StoreEnv::of([("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
        match text.parse() {
            Ok(shared_config::SessionsUri::S3(uri)) => S3::open(&uri, &env).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn gcs(&self) -> Gcs {
        let account =
            r#"{"private_key":"","private_key_id":"","client_email":"","disable_oauth":true}"#;
        let text = format!("gs://audit?endpoint=http://{}", self.address);
        match text.parse() {
            Ok(shared_config::SessionsUri::Gcs(uri)) => {
                Gcs::open(&uri, &StoreEnv::of([("GOOGLE_SERVICE_ACCOUNT_KEY", account)])).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn serve(
    stream: TcpStream,
    answer: &mut (impl FnMut(&Asked) -> String + Send),
    log: &Mutex<Vec<Asked>>,
) {
    let mut stream = BufReader::new(stream);
    let (mut line, mut headers) = (String::new(), String::new());
    stream.read_line(&mut line).await.unwrap();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.unwrap();
        if header.trim().is_empty() {
            break;
        }
        headers.push_str(&header.to_ascii_lowercase());
    }
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
    let bytes = length.map_or(0, |text| text.trim().parse().unwrap());
    stream.read_exact(&mut vec![0; bytes]).await.unwrap();
    let asked = Asked { line, headers, bytes };
    let answer = answer(&asked);
    log.lock().unwrap().push(asked);
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.ok();
}

const NOT_IMPLEMENTED: &str = "<Error><Code>NotImplemented</Code><Message>no</Message></Error>";

#[tokio::test]
async fn a_store_that_knows_neither_conditions_nor_versions_is_used_all_the_same() {
    let stub = Stub::start(|asked| {
        if asked.line.contains("?versions=") || asked.headers.contains("if-none-match: *") {
            reply("501 Not Implemented", "", NOT_IMPLEMENTED)
        } else if asked.line.contains("list-type=2") {
            reply("200 OK", "", "<R><Contents><Key>k.tar</Key><Size>7</Size></Contents></R>")
        } else {
            reply("200 OK", "ETag: \"e\"\r\n", "")
        }
    })
    .await;
    let s3 = stub.s3();
    for _ in 0..2 {
        assert_eq!(s3.put("k.tar", Bytes::from_static(b"content")).await.unwrap(), Written::Stored);
        let found = s3.oldest("k.tar").await.unwrap();
        assert_eq!(found, Some(Object { bytes: 7, version: None }));
        assert_eq!(s3.oldest("k.ta").await.unwrap(), None, "a longer name is another object");
    }
    let asked = stub.asked();
    let with = |text: &str| asked.iter().filter(|asked| asked.line.contains(text)).count();
    assert_eq!((with("?versions="), with("PUT ")), (1, 3), "what is not there is asked for once");
    assert!(asked.iter().any(|asked| asked.headers.contains("x-amz-acl: private")));
    let puts = asked.iter().filter(|asked| asked.line.starts_with("PUT "));
    assert!(
        puts.clone().all(|asked| asked.headers.contains("content-md5: mgnkuembtiddjehwkeyfvq==")
            && asked.bytes == 7)
    );
}

#[tokio::test]
async fn without_the_permission_to_list_versions_the_newest_is_read() {
    let denied = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    let stub = Stub::answering([
        reply("403 Forbidden", "", denied),
        reply("200 OK", "", "<R><Contents><Key>k</Key><Size>7</Size></Contents></R>"),
    ])
    .await;
    assert_eq!(stub.s3().oldest("k").await.unwrap(), Some(Object { bytes: 7, version: None }));
}

#[tokio::test]
async fn a_failure_behind_a_status_of_success_is_one() {
    let error =
        "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>m</Message></Error>";
    let stub =
        Stub::answering([reply("200 OK", "ETag: \"e\"\r\n", ""), reply("200 OK", "", error)]).await;
    let last = Block { index: 1, offset: 8, total: 9, bytes: Bytes::from_static(b"x") };
    let fault = stub.s3().finish("k", "u", &["\"d\"".into()], last).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Busy, "{fault}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let stub = Stub::answering([reply("206 Partial Content", "", &"x".repeat(4096))]).await;
    let object = Object { bytes: 10, version: Some("v".into()) };
    let fault = stub.s3().read("k", &object, 0, 10).await.unwrap_err();
    assert!(fault.detail.contains("over 10 bytes"), "{fault}");
}

#[tokio::test]
async fn what_google_did_not_keep_is_sent_again() {
    let part = 256 << 10;
    let more =
        |last: usize| reply("308 Resume Incomplete", &format!("Range: bytes=0-{last}\r\n"), "");
    let stub = Stub::answering([
        more(part - 1),
        more(2 * part - 1),
        more(part / 2),
        reply("308 Resume Incomplete", "", ""),
        reply("412 Precondition Failed", "", "{}"),
        reply("410 Gone", "", ""),
    ])
    .await;
    let gcs = stub.gcs();
    let upload = format!("http://{}/session", stub.address);
    let block = |index: usize| Block {
        index,
        offset: (index * part) as u64,
        total: 10 << 20,
        bytes: Bytes::from(vec![0; 2 * part]),
    };
    gcs.block("k", &upload, block(0)).await.unwrap();
    let asked = stub.asked();
    assert!(asked[0].headers.contains(&format!(
        "content-range: bytes 0-{}/{}",
        2 * part - 1,
        10 << 20
    )));
    assert!(asked[1].headers.contains(&format!("content-range: bytes {part}-{}/", 2 * part - 1)));
    assert_eq!(asked[1].bytes, part);
    assert!(asked.iter().all(|asked| !asked.headers.contains("authorization:")));
    // Less than it had, and nothing at all: the upload begins anew.
    for index in [2, 0] {
        let fault = gcs.block("k", &upload, block(index)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::UploadGone, "{fault}");
    }
    assert_eq!(gcs.finish("k", &upload, &[], block(0)).await.unwrap(), Written::Exists);
    let fault = gcs.finish("k", &upload, &[], block(0)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UploadGone);
}
