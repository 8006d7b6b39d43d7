//! The container's numbers. A recording is parts one after the other; a part is a header, a gzip
//! body, zero padding. Nothing stands before, between or behind them.

/// Header of an unencrypted part.
pub const HEADER: usize = 24;
/// Header of a part of version 2.
pub const HEADER_V2: usize = 32;
/// Largest record, as the reader's buffer has been since ever.
pub const MAX_RECORD: usize = 65_536;
/// Data of one print: leaves room for the event around it.
pub const MAX_PRINT: usize = 63 * 1024;
/// Largest body a reader takes. Parts are cut at 5 MiB and a little more.
pub const MAX_BODY: u64 = 64 * 1024 * 1024;
/// Largest content of one body once unpacked. 64 MiB of the best compression would give 64 GiB.
pub const MAX_CONTENT: u64 = 4 * 1024 * 1024 * 1024;

/// Version of parts without encryption.
pub const VERSION: u64 = 1;
/// Version of parts with flags.
pub const VERSION_FLAGS: u64 = 2;
/// The flag of an encrypted body.
pub const FLAG_ENCRYPTED: u8 = 1;

/// The bytes of a version 1 header without padding.
#[must_use]
pub fn header(body: u64) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    let (version, rest) = out.split_at_mut(8);
    version.copy_from_slice(&VERSION.to_be_bytes());
    let (size, _padding) = rest.split_at_mut(8);
    size.copy_from_slice(&body.to_be_bytes());
    out
}
