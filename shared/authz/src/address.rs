//! Addresses that a wildcard never reaches.
//!
//! A role with `'*': '*'` must not open the proxy's own services or a cloud's metadata service. The address
//! judged is the one that will be dialled; how it was spelt does not matter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address it is, as far as access is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// Any other.
    Ordinary,
    /// The machine itself.
    Loopback,
    /// The unspecified address, which a dial takes for the machine itself.
    Unspecified,
    /// Good on one link only.
    LinkLocal,
    /// A cloud's metadata service.
    Metadata,
    /// Multicast, broadcast or reserved: no host.
    NoHost,
    /// One of the cluster's own addresses and ports.
    Cluster,
}

impl AddressClass {
    /// Whether a role has to name the address.
    pub fn needs_literal(self) -> bool {
        self != AddressClass::Ordinary
    }
}

impl std::fmt::Display for AddressClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            AddressClass::Ordinary => "ordinary",
            AddressClass::Loopback => "loopback",
            AddressClass::Unspecified => "unspecified",
            AddressClass::LinkLocal => "link-local",
            AddressClass::Metadata => "metadata",
            AddressClass::NoHost => "multicast and reserved",
            AddressClass::Cluster => "cluster",
        })
    }
}

/// The address that packets to `address` end up at: an IPv4 address inside an IPv6 one comes out.
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
    }
}

fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = v6.octets();
    let at = |start: usize| match bytes.get(start..start + 4) {
        Some(&[a, b, c, d]) => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return Some(v4);
    }
    match v6.segments() {
        // NAT64 (RFC 6052 §2.1, RFC 8215) and SIIT (RFC 2765): the last 32 bits.
        [0x64, 0xff9b, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => at(12),
        // 6to4 (RFC 3056): bits 16 to 47.
        [0x2002, ..] => at(2),
        // IPv4-compatible (RFC 4291 §2.5.5.1), but not :: and ::1.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => at(12),
        _ => None,
    }
}

/// Judges an address.
pub fn classify(address: IpAddr) -> AddressClass {
    match canonical(address) {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(v4: Ipv4Addr) -> AddressClass {
    // AWS, Google and Azure; Alibaba; Azure's host agent; Oracle.
    const METADATA: [Ipv4Addr; 4] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    if METADATA.contains(&v4) {
        AddressClass::Metadata
    } else if v4.is_loopback() {
        AddressClass::Loopback
    } else if v4.octets()[0] == 0 {
        AddressClass::Unspecified
    } else if v4.is_link_local() {
        AddressClass::LinkLocal
    } else if v4.octets()[0] >= 224 {
        AddressClass::NoHost
    } else {
        AddressClass::Ordinary
    }
}

fn classify_v6(v6: Ipv6Addr) -> AddressClass {
    // AWS; Google.
    const METADATA: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    if METADATA.contains(&v6) {
        AddressClass::Metadata
    } else if v6.is_loopback() {
        AddressClass::Loopback
    } else if v6.is_unspecified() {
        AddressClass::Unspecified
    } else if v6.is_unicast_link_local() || v6.segments()[0] & 0xffc0 == 0xfec0 {
        AddressClass::LinkLocal
    } else if v6.is_multicast() {
        AddressClass::NoHost
    } else {
        AddressClass::Ordinary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for (address, class) in [
            ("10.1.2.3", AddressClass::Ordinary),
            ("192.168.0.1", AddressClass::Ordinary),
            ("8.8.8.8", AddressClass::Ordinary),
            ("2001:db8::1", AddressClass::Ordinary),
            ("fd12::1", AddressClass::Ordinary),
            ("127.0.0.1", AddressClass::Loopback),
            ("127.9.9.9", AddressClass::Loopback),
            ("::1", AddressClass::Loopback),
            ("::ffff:127.0.0.1", AddressClass::Loopback),
            ("::127.0.0.1", AddressClass::Loopback),
            ("64:ff9b::7f00:1", AddressClass::Loopback),
            ("2002:7f00:1::", AddressClass::Loopback),
            ("0.0.0.0", AddressClass::Unspecified),
            ("0.1.2.3", AddressClass::Unspecified),
            ("::", AddressClass::Unspecified),
            ("::ffff:0.0.0.0", AddressClass::Unspecified),
            ("169.254.1.1", AddressClass::LinkLocal),
            ("fe80::1", AddressClass::LinkLocal),
            ("febf::1", AddressClass::LinkLocal),
            ("fec0::1", AddressClass::LinkLocal),
            ("169.254.169.254", AddressClass::Metadata),
            ("::ffff:169.254.169.254", AddressClass::Metadata),
            ("fd00:ec2::254", AddressClass::Metadata),
            ("100.100.100.200", AddressClass::Metadata),
            ("224.0.0.1", AddressClass::NoHost),
            ("255.255.255.255", AddressClass::NoHost),
            ("ff02::1", AddressClass::NoHost),
        ] {
            assert_eq!(classify(address.parse().unwrap()), class, "{address}");
        }
    }
}
