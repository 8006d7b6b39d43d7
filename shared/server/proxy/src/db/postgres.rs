//! How PostgreSQL's clients begin: requests for encryption, then the start-up message or a request to cancel
//! (PostgreSQL manual, "Message Flow", "SSL Session Encryption" and "GSSAPI Session Encryption").

use rustls::pki_types::CertificateDer;
use server_core::tunnel::BoxedStream;
use shared_transport::Rewind;
use shared_wire::postgres::{FIRST_LIMIT, First, first};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Speaks;
use super::meet::{Guest, MeetError};
use super::tls::{DbTls, Shown};

/// Length of either request for encryption.
const REQUEST: usize = 8;

/// Answers requests for encryption until something comes that is for the database, which is left unread. `shown` is
/// what the client has shown in TLS of ours; TLS of its own is then not needed, and refused as servers refuse it.
pub(super) async fn meet(
    tls: &DbTls,
    mut stream: Rewind<BoxedStream>,
    mut shown: Option<CertificateDer<'static>>,
) -> Result<Guest, MeetError> {
    let guest = |stream, shown| Guest::new(Speaks::Postgres, stream, shown);
    let (mut asked_tls, mut asked_gss) = (false, false);
    loop {
        let wanted = loop {
            match first(stream.seen()) {
                Ok(Some((wanted, _))) => break wanted,
                Ok(None) => {}
                Err(err) => return Ok(guest(stream, shown).at_fault(err.to_string())),
            }
            if stream.look(FIRST_LIMIT).await? == 0 {
                return Err(MeetError::Closed);
            }
        };
        match wanted {
            First::Ssl if asked_tls => {
                return Ok(guest(stream, shown).at_fault("received more than one SSLRequest"));
            }
            First::GssEnc if asked_gss => {
                return Ok(guest(stream, shown).at_fault("received more than one GSSEncRequest"));
            }
            First::Ssl => {
                asked_tls = true;
                stream.read_exact(&mut [0; REQUEST]).await?;
                if shown.is_some() {
                    answer(&mut stream, b"N").await?;
                    continue;
                }
                if !stream.seen().is_empty() {
                    // It would be taken for a part of what comes encrypted (CVE-2021-23214).
                    let why = "received unencrypted data after SSL request";
                    return Ok(guest(stream, shown).at_fault(why));
                }
                answer(&mut stream, b"S").await?;
                let (inner, certificate) = tls.accept(stream, Shown::Host, None).await?;
                (stream, shown) = (Rewind::new(inner), certificate);
            }
            First::GssEnc => {
                asked_gss = true;
                stream.read_exact(&mut [0; REQUEST]).await?;
                answer(&mut stream, b"N").await?;
            }
            First::Cancel(_) => return Ok(Guest { cancels: true, ..guest(stream, shown) }),
            First::Startup(_) => return Ok(guest(stream, shown)),
        }
    }
}

async fn answer(stream: &mut Rewind<BoxedStream>, byte: &[u8; 1]) -> std::io::Result<()> {
    stream.write_all(byte).await?;
    stream.flush().await
}
