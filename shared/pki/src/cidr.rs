//! An address with a prefix length, as the critical option `source-address` writes it.

use std::net::{IpAddr, Ipv6Addr};

/// The text is no address and no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IP address or network")]
pub struct CidrError(String);

/// A network, or one address as a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// A network; refuses a prefix that is too long and an address with bits behind the prefix, as OpenSSH does.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        let refused = || CidrError(format!("{address}/{prefix}"));
        let (bits, width) = bits(address);
        if prefix > width || bits & !mask(prefix, width) != 0 {
            return Err(refused());
        }
        Ok(Self { address, prefix })
    }

    /// The network that holds one address only.
    pub fn single(address: IpAddr) -> Self {
        let address = plain(address);
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether the network holds the address. An IPv4 address inside IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, width) = bits(self.address);
        let (candidate, other) = bits(plain(address));
        width == other && candidate & mask(self.prefix, width) == network
    }
}

/// IPv4 inside IPv6 as IPv4, everything else as it is.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4),
        four => four,
    }
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(four) => (u128::from(u32::from(four)), 32),
        IpAddr::V6(six) => (u128::from(Ipv6Addr::from(six.octets())), 128),
    }
}

fn mask(prefix: u8, width: u8) -> u128 {
    let all = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
    let host = u32::from(width.saturating_sub(prefix));
    // A shift by the whole width is no shift in hardware, so it is written out.
    if prefix == 0 { 0 } else { (all >> host) << host }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let refused = || CidrError(text.chars().take(64).collect());
        match text.split_once('/') {
            None => text
                .parse()
                .map(|address: IpAddr| Self { address, prefix: bits(address).1 })
                .map_err(|_| refused()),
            Some((address, prefix)) => {
                if prefix.is_empty()
                    || prefix.len() > 3
                    || !prefix.bytes().all(|byte| byte.is_ascii_digit())
                {
                    return Err(refused());
                }
                let address = address.parse().map_err(|_| refused())?;
                Self::new(address, prefix.parse().map_err(|_| refused())?).map_err(|_| refused())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks() {
        let cases = [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("192.0.2.7/32", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("2001:db8::/32", "2001:db8:1::9", true),
            ("2001:db8::/32", "2001:db9::9", false),
            ("192.0.2.0/24", "::ffff:192.0.2.9", true),
        ];
        for (network, address, expected) in cases {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{network} {address}");
        }
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::1/129",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "!10.0.0.0/8",
            "x/8",
            "10.0.0.0/8 ",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!(Cidr::single("::ffff:192.0.2.9".parse().unwrap()).to_string(), "192.0.2.9/32");
        assert_eq!(Cidr::single("2001:db8::1".parse().unwrap()).to_string(), "2001:db8::1/128");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}", address: u32) {
            if let Ok(network) = text.parse::<Cidr>() {
                network.contains(IpAddr::from(std::net::Ipv4Addr::from(address)));
            }
        }

        #[test]
        fn single_holds_itself_only(address: u128, other: u128) {
            let (address, other) = (IpAddr::from(Ipv6Addr::from(address)), IpAddr::from(Ipv6Addr::from(other)));
            prop_assert!(Cidr::single(address).contains(address));
            prop_assert_eq!(Cidr::single(address).contains(other), plain(address) == plain(other));
        }
    }
}
