//! Hosts that show a plain key, which no authority vouches for.
//!
//! By default such a host is refused. Where the cluster does not check host keys, the user's client may
//! say who decides: it asks the person and remembers the answer. What a peer proves comes first: nobody
//! is asked about a key whose owner has not signed the session id.

use async_trait::async_trait;
use russh::keys::ssh_key::PublicKey;
use russh::keys::ssh_key::public::KeyData;

/// The shortest RSA key that may stand for a host, in bits.
const MIN_RSA: u32 = 2048;

/// Decides whether a plain key is the host's that the user named.
#[async_trait]
pub trait HostKeys: Send + Sync + std::fmt::Debug {
    /// Accepts `key`, which has proved that it is held by the other side. May ask a person.
    async fn accept(&self, key: &PublicKey) -> Result<(), HostKeyRefusal>;

    /// A session is about to begin, whose output the other side chooses: waits for an open question, and
    /// asks none from now on. Otherwise a proxy could paint over a question, or have it answered by what is
    /// typed into the session.
    async fn settle(&self) {}
}

/// Why a plain key was refused; for the user, never for the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostKeyRefusal(pub String);

/// Reads a plain host key: of a kind that hosts have, long enough, and written in the one way.
pub(crate) fn plain_key(blob: &[u8]) -> Option<PublicKey> {
    let key = PublicKey::from_bytes(blob).ok()?;
    let good = match key.key_data() {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => true,
        KeyData::Rsa(rsa) => rsa.key_size() >= MIN_RSA,
        _ => false,
    };
    (good && key.to_bytes().is_ok_and(|bytes| bytes == blob)).then_some(key)
}
