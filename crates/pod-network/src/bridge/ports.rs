// SPDX-License-Identifier: Apache-2.0
//! Host ports: which addresses of the host they are on, and who has them.

use std::net::IpAddr;

use super::lease::Lease;
use crate::{Error, PortMapping, Protocol, Result};

/// The addresses of the host that a port is mapped on, in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// None of this family.
    None,
    /// Every one.
    All,
    /// This one.
    One(IpAddr),
}

/// Where a mapping is, in one family. The unspecified address stands for all of its family.
pub(super) fn on(mapping: &PortMapping, ipv4: bool) -> On {
    match mapping.host_ip {
        None => On::All,
        Some(ip) if ip.is_ipv4() != ipv4 => On::None,
        Some(ip) if ip.is_unspecified() => On::All,
        Some(ip) => On::One(ip),
    }
}

/// Refuses what cannot work on addresses of these families.
pub(super) fn validate(mappings: &[PortMapping], has_ipv4: bool, has_ipv6: bool) -> Result<()> {
    for (index, mapping) in mappings.iter().enumerate() {
        match mapping.host_ip {
            Some(IpAddr::V6(ip)) if ip.is_loopback() => {
                return Err(Error::Invalid(format!(
                    "host port {}: the kernel leads connections to ::1 nowhere else; map it on 127.0.0.1 or an address of the node",
                    mapping.host_port
                )));
            }
            Some(ip) if (ip.is_ipv4() && !has_ipv4) || (ip.is_ipv6() && !has_ipv6) => {
                return Err(Error::Invalid(format!(
                    "host port {}: host IP {ip} is of a family that the pod has no address of",
                    mapping.host_port
                )));
            }
            _ => {}
        }
        let twin = mappings[..index].iter().find(|other| other != &mapping && overlap(other, mapping));
        if let Some(twin) = twin {
            return Err(Error::Invalid(format!(
                "host port {} ({}) is asked for twice, for ports {} and {} of the pod",
                mapping.host_port, mapping.protocol, twin.container_port, mapping.container_port
            )));
        }
    }
    Ok(())
}

/// Refuses a host port that another pod has.
pub(super) fn refuse_taken<'a>(
    wanted: &[PortMapping],
    sandbox_id: &str,
    leases: impl Iterator<Item = &'a Lease>,
) -> Result<()> {
    for lease in leases.filter(|lease| lease.sandbox_id != sandbox_id) {
        for held in &lease.port_mappings {
            if let Some(clash) = wanted.iter().find(|wanted| overlap(wanted, held)) {
                return Err(Error::PortTaken {
                    port: clash.host_port,
                    protocol: clash.protocol,
                    holder: lease.sandbox_id.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Whether one packet could belong to both.
fn overlap(a: &PortMapping, b: &PortMapping) -> bool {
    let meet = |ipv4| match (on(a, ipv4), on(b, ipv4)) {
        (On::None, _) | (_, On::None) => false,
        (On::One(a), On::One(b)) => a == b,
        _ => true,
    };
    a.protocol == b.protocol && a.host_port == b.host_port && (meet(true) || meet(false))
}

/// The protocol's number (IANA).
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(protocol: Protocol, host_port: u16, host_ip: &str) -> PortMapping {
        PortMapping { protocol, container_port: 80, host_port, host_ip: host_ip.parse().ok() }
    }

    #[test]
    fn ports_clash_where_a_packet_could_be_meant_for_both() {
        use Protocol::{Tcp, Udp};
        let cases = [
            (map(Tcp, 80, ""), map(Tcp, 80, ""), true),
            (map(Tcp, 80, ""), map(Udp, 80, ""), false),
            (map(Tcp, 80, ""), map(Tcp, 81, ""), false),
            (map(Tcp, 80, "127.0.0.1"), map(Tcp, 80, ""), true),
            (map(Tcp, 80, "127.0.0.1"), map(Tcp, 80, "192.0.2.1"), false),
            (map(Tcp, 80, "0.0.0.0"), map(Tcp, 80, "192.0.2.1"), true),
            (map(Tcp, 80, "0.0.0.0"), map(Tcp, 80, "::"), false),
            (map(Tcp, 80, "::"), map(Tcp, 80, "2001:db8::1"), true),
            (map(Tcp, 80, "::"), map(Tcp, 80, ""), true),
        ];
        for (a, b, clash) in cases {
            let lease = Lease { sandbox_id: "a".into(), port_mappings: vec![a.clone()], ..Lease::default() };
            let got = refuse_taken(std::slice::from_ref(&b), "b", std::iter::once(&lease));
            assert_eq!(got.is_err(), clash, "{a:?} {b:?}");
            assert!(refuse_taken(&[b], "a", std::iter::once(&lease)).is_ok(), "its own are no clash");
        }
    }

    #[test]
    fn the_holder_is_named() {
        let lease = Lease {
            sandbox_id: "web".into(),
            port_mappings: vec![map(Protocol::Udp, 53, "")],
            ..Lease::default()
        };
        let error = refuse_taken(&[map(Protocol::Udp, 53, "")], "dns", std::iter::once(&lease)).unwrap_err();
        assert_eq!(error.to_string(), "host port 53 (udp) is taken by pod sandbox web");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let tcp = |ip| map(Protocol::Tcp, 80, ip);
        let other = PortMapping { container_port: 81, ..tcp("") };
        assert!(validate(&[tcp(""), tcp("")], true, false).is_ok(), "the same twice is the same");
        for (mappings, families, part) in [
            (vec![tcp("::1")], (true, true), "::1"),
            (vec![tcp("192.0.2.1")], (false, true), "family"),
            (vec![tcp("2001:db8::1")], (true, false), "family"),
            (vec![tcp(""), other], (true, true), "twice"),
        ] {
            let error = validate(&mappings, families.0, families.1).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
