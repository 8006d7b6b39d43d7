//! The proxy's use of an agent that a client forwarded (draft-miller-ssh-agent; OpenSSH PROTOCOL.agent).
//!
//! What must stay true: the agent sees a bind of the target connection before anything else, signs only with
//! a certificate the caller picked, and every wait and every size has a limit. The signed request is turned
//! into `publickey-hostbound-v00@openssh.com`, so that the signature is good for that one host key only.

use std::time::Duration;

use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::ssh_key::{Certificate, HashAlg};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::{
    AuthMethod, MAX_MESSAGE, Put, Reply, Request, SessionBind, UserAuthRequest, WireError,
    encode_userauth, frame, parse_reply,
};

/// How long an agent may take to list its keys.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an agent may take to bind or to sign; somebody may have to look at the host's key, or touch their own.
const PERSON_TIMEOUT: Duration = Duration::from_secs(90);
/// How many of an agent's identities are looked at.
const MAX_IDENTITIES: usize = 256;

/// What went wrong on the way to an agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The channel broke or the agent closed it.
    #[error("forwarded agent is gone")]
    Gone(#[source] std::io::Error),
    /// No answer in time.
    #[error("forwarded agent does not answer")]
    Slow,
    /// An answer that is none.
    #[error("forwarded agent answers nonsense")]
    Nonsense(#[source] WireError),
    /// An answer to another question.
    #[error("forwarded agent answers out of turn")]
    OutOfTurn,
    /// The agent said no.
    #[error("forwarded agent refuses to sign")]
    Refused,
    /// The connection to the target ended while the agent signed.
    #[error("connection to the target is gone")]
    Target(#[from] russh::SendError),
}

/// An agent at the other end of a channel.
#[derive(Debug)]
pub struct ForwardedAgent<S> {
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ForwardedAgent<S> {
    /// Speaks the agent protocol over `stream`, a fresh channel.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    async fn ask(&mut self, message: &[u8], limit: Duration) -> Result<Reply, AgentError> {
        let exchange = async {
            self.stream.write_all(&frame(message)).await.map_err(AgentError::Gone)?;
            self.stream.flush().await.map_err(AgentError::Gone)?;
            let mut head = [0_u8; 4];
            self.stream.read_exact(&mut head).await.map_err(AgentError::Gone)?;
            let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
            if len > MAX_MESSAGE {
                return Err(AgentError::Nonsense(WireError::Long(len)));
            }
            let mut body = vec![0_u8; len];
            self.stream.read_exact(&mut body).await.map_err(AgentError::Gone)?;
            parse_reply(&body).map_err(AgentError::Nonsense)
        };
        tokio::time::timeout(limit, exchange).await.map_err(|_| AgentError::Slow)?
    }

    /// Tells the agent which connection it will sign for. `false` where the agent does not know how, or refuses;
    /// an agent that guards its keys then refuses to sign as well.
    pub async fn bind(&mut self, binding: &AgentSessionBinding) -> Result<bool, AgentError> {
        let bind = SessionBind {
            host_key: binding.host_key(),
            session_id: binding.session_id(),
            signature: binding.signature(),
            forwarding: false,
        };
        match self.ask(&bind.encode(), PERSON_TIMEOUT).await? {
            Reply::Success => Ok(true),
            Reply::Failure | Reply::ExtensionFailure => Ok(false),
            Reply::Identities(_) | Reply::Signature(_) => Err(AgentError::OutOfTurn),
        }
    }

    /// The certificates the agent holds, in its order. Other identities, and what cannot be read, are passed over.
    pub async fn certificates(&mut self) -> Result<Vec<Certificate>, AgentError> {
        match self.ask(&Request::encode_list(), REPLY_TIMEOUT).await? {
            Reply::Identities(entries) => Ok(entries
                .iter()
                .take(MAX_IDENTITIES)
                .filter_map(|entry| shared_pki::parse_certificate(&entry.key).ok())
                .collect()),
            Reply::Failure => Ok(Vec::new()),
            _ => Err(AgentError::OutOfTurn),
        }
    }

    /// A signature blob over `data` by the key of the certificate `key`.
    async fn sign(&mut self, key: &[u8], data: &[u8], flags: u32) -> Result<Vec<u8>, AgentError> {
        match self.ask(&Request::encode_sign(key, data, flags), PERSON_TIMEOUT).await? {
            Reply::Signature(blob) => Ok(blob),
            Reply::Failure | Reply::ExtensionFailure => Err(AgentError::Refused),
            _ => Err(AgentError::OutOfTurn),
        }
    }
}

/// Signs userauth requests of one target connection with a forwarded agent.
#[derive(Debug)]
pub struct HostboundSigner<'a, S> {
    agent: &'a mut ForwardedAgent<S>,
    host_key: Option<&'a [u8]>,
}

impl<'a, S> HostboundSigner<'a, S> {
    /// `host_key` is the blob the target presented; `None` for a target that does not know the hostbound method.
    pub fn new(agent: &'a mut ForwardedAgent<S>, host_key: Option<&'a [u8]>) -> Self {
        Self { agent, host_key }
    }
}

/// The request an agent is asked to sign, with the method the target knows.
fn request_to_sign(to_sign: &[u8], host_key: Option<&[u8]>) -> Result<Vec<u8>, WireError> {
    let request = UserAuthRequest::parse(to_sign)?;
    let method = host_key.map_or(AuthMethod::PublicKey, AuthMethod::HostBound);
    Ok(encode_userauth(&UserAuthRequest { method, ..request }))
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> russh::Signer for HostboundSigner<'_, S> {
    type Error = AgentError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        hash_alg: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let mut request = request_to_sign(&to_sign, self.host_key).map_err(AgentError::Nonsense)?;
        let blob = UserAuthRequest::parse(&request).map_err(AgentError::Nonsense)?.key.to_vec();
        let flags = match hash_alg {
            Some(HashAlg::Sha256) => 2,
            Some(HashAlg::Sha512) => 4,
            _ => 0,
        };
        let signature = self.agent.sign(&blob, &request, flags).await?;
        request.put_string(&signature);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{SSH_CONNECTION, parse_request};

    fn plain() -> Vec<u8> {
        encode_userauth(&UserAuthRequest {
            session_id: b"sid",
            user: b"root",
            service: SSH_CONNECTION.as_bytes(),
            method: AuthMethod::PublicKey,
            algorithm: b"ssh-ed25519-cert-v01@openssh.com",
            key: b"blob",
        })
    }

    #[test]
    fn the_host_key_is_appended_and_nothing_else_changes() {
        let bound = request_to_sign(&plain(), Some(b"host")).unwrap();
        let parsed = UserAuthRequest::parse(&bound).unwrap();
        assert_eq!(parsed.method, AuthMethod::HostBound(b"host"));
        assert_eq!(
            (parsed.session_id, parsed.user, parsed.key),
            (&b"sid"[..], &b"root"[..], &b"blob"[..])
        );
        assert_eq!(request_to_sign(&plain(), None).unwrap(), plain());
    }

    #[test]
    fn the_prefix_that_russh_cuts_off_is_untouched() {
        let plain = plain();
        let bound = request_to_sign(&plain, Some(b"host")).unwrap();
        let head = 4 + 3; // the session id
        assert_eq!(bound[..head], plain[..head]);
    }

    #[tokio::test]
    async fn an_answer_longer_than_an_agent_sends_is_refused_before_it_is_read() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(&[0xff, 0xff, 0xff, 0xff]).await.unwrap();
        let answer = ForwardedAgent::new(near).certificates().await;
        assert!(matches!(answer, Err(AgentError::Nonsense(WireError::Long(_)))), "{answer:?}");
    }

    #[tokio::test]
    async fn unreadable_identities_are_passed_over() {
        let (near, mut far) = tokio::io::duplex(4096);
        let agent = tokio::spawn(async move {
            let mut asked = [0_u8; 5];
            far.read_exact(&mut asked).await.unwrap();
            assert!(matches!(parse_request(&asked[4..]), Ok(Request::List)));
            let entry =
                crate::wire::IdentityEntry { key: b"not a key".to_vec(), comment: "x".into() };
            far.write_all(&frame(&Reply::Identities(vec![entry]).encode())).await.unwrap();
            far
        });
        let found = ForwardedAgent::new(near).certificates().await.unwrap();
        assert!(found.is_empty());
        agent.await.unwrap();
    }
}
