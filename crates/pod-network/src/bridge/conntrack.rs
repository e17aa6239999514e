// SPDX-License-Identifier: Apache-2.0
//! Forgetting connections: a datagram's way is remembered, and goes on to be used after the rule that
//! chose it is gone.
//!
//! ```text
//! IPCTNL_MSG_CT_DELETE with a filter: the kernel (5.8 and later) deletes what matches
//! nfgenmsg      family, version 0, resource 0
//! CTA_TUPLE_*   { CTA_TUPLE_IP { source }, CTA_TUPLE_PROTO { number, source or destination port } }
//! CTA_FILTER    { flags for the original tuple, flags for the reply: which of these to compare }
//! ```
//! An older kernel refuses the request; then connections end by their timeouts (30 s without a packet for UDP).

use std::io;
use std::net::IpAddr;

use super::netlink::{Netlink, errno, push_attribute};
use super::ports::number;
use crate::PortMapping;

/// NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE.
const DELETE: u16 = 1 << 8 | 2;
const NESTED: u16 = 1 << 15;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

const F_IP_SRC: u32 = 1;
const F_PROTO_NUM: u32 = 1 << 3;
const F_PROTO_SRC_PORT: u32 = 1 << 4;
const F_PROTO_DST_PORT: u32 = 1 << 5;

/// Which connections to forget.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    /// Those that were led to a pod: the answers come from its address and port.
    LedTo(IpAddr),
    /// Those that began with the host port, of this family, wherever they were led.
    Begun { ipv4: bool },
}

/// Forgets the connections of a mapping.
pub(super) fn forget(mapping: &PortMapping, which: Which) -> io::Result<()> {
    let mut netlink = Netlink::netfilter()?;
    match netlink.raw(DELETE, 0, &body(mapping, which)) {
        // No connection matched.
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn body(mapping: &PortMapping, which: Which) -> Vec<u8> {
    let (ipv4, tuple_kind, port_kind, port, flags) = match which {
        Which::LedTo(ip) => {
            let flags = (0, F_IP_SRC | F_PROTO_NUM | F_PROTO_SRC_PORT);
            (ip.is_ipv4(), CTA_TUPLE_REPLY, CTA_PROTO_SRC_PORT, mapping.container_port, flags)
        }
        Which::Begun { ipv4 } => {
            let flags = (F_PROTO_NUM | F_PROTO_DST_PORT, 0);
            (ipv4, CTA_TUPLE_ORIG, CTA_PROTO_DST_PORT, mapping.host_port, flags)
        }
    };
    let family = if ipv4 { libc::AF_INET } else { libc::AF_INET6 };
    let mut tuple = Vec::new();
    if let Which::LedTo(ip) = which {
        let mut address = Vec::new();
        match ip {
            IpAddr::V4(ip) => push_attribute(&mut address, CTA_IP_V4_SRC, &ip.octets()),
            IpAddr::V6(ip) => push_attribute(&mut address, CTA_IP_V6_SRC, &ip.octets()),
        }
        push_attribute(&mut tuple, CTA_TUPLE_IP | NESTED, &address);
    }
    let mut protocol = Vec::new();
    push_attribute(&mut protocol, CTA_PROTO_NUM, &[number(mapping.protocol)]);
    push_attribute(&mut protocol, port_kind, &port.to_be_bytes());
    push_attribute(&mut tuple, CTA_TUPLE_PROTO | NESTED, &protocol);
    let mut filter = Vec::new();
    push_attribute(&mut filter, CTA_FILTER_ORIG_FLAGS, &flags.0.to_ne_bytes());
    push_attribute(&mut filter, CTA_FILTER_REPLY_FLAGS, &flags.1.to_ne_bytes());
    // nfgenmsg: family, version, resource id.
    let mut body = vec![u8::try_from(family).unwrap_or_default(), 0, 0, 0];
    push_attribute(&mut body, tuple_kind | NESTED, &tuple);
    push_attribute(&mut body, CTA_FILTER | NESTED, &filter);
    body
}

#[cfg(test)]
mod tests {
    use super::super::netlink::attribute;
    use super::*;
    use crate::Protocol;

    #[test]
    fn a_filter_names_what_it_compares() {
        let mapping =
            PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 5353, host_ip: None };
        let led = body(&mapping, Which::LedTo("10.85.0.2".parse().unwrap()));
        assert_eq!(led[0], 2, "AF_INET");
        let tuple = attribute(&led[4..], CTA_TUPLE_REPLY).unwrap();
        let ip = attribute(attribute(tuple, CTA_TUPLE_IP).unwrap(), CTA_IP_V4_SRC);
        assert_eq!(ip, Some(&[10, 85, 0, 2][..]));
        let proto = attribute(tuple, CTA_TUPLE_PROTO).unwrap();
        assert_eq!(attribute(proto, CTA_PROTO_NUM), Some(&[17][..]));
        assert_eq!(attribute(proto, CTA_PROTO_SRC_PORT), Some(&53u16.to_be_bytes()[..]));
        let begun = body(&mapping, Which::Begun { ipv4: false });
        assert_eq!(begun[0], 10, "AF_INET6");
        let proto = attribute(attribute(&begun[4..], CTA_TUPLE_ORIG).unwrap(), CTA_TUPLE_PROTO).unwrap();
        assert_eq!(attribute(proto, CTA_PROTO_DST_PORT), Some(&5353u16.to_be_bytes()[..]));
        let flags = attribute(attribute(&begun[4..], CTA_FILTER).unwrap(), CTA_FILTER_REPLY_FLAGS);
        assert_eq!(flags, Some(&0u32.to_ne_bytes()[..]));
    }
}
