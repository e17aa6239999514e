// SPDX-License-Identifier: Apache-2.0
//! The bridge's table as text for `nft -f -`: a pure function of the leases.
//!
//! ```text
//! raw          a pod may not send to 127.0.0.0/8 of the host, which route_localnet would let in
//! prerouting   packets to an address of the host ─┐
//! output       the same from the host itself ─────┴─> hostports: to the pod
//! postrouting  pods to elsewhere, 127.0.0.1 to pods, pods to each other by a host port: masqueraded
//! ```
//! Everything is in one table, which is replaced in one transaction; rules of others are not touched
//! and not overruled.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::lease::Lease;
use super::names;
use super::ports::{On, on};
use super::subnet::Subnet;
use crate::PortMapping;

/// The transaction that replaces the table of a bridge.
pub(super) fn text<'a>(bridge: &str, subnets: &[Subnet], leases: impl Iterator<Item = &'a Lease>) -> String {
    let (mut to_pods, mut hairpins) = (String::new(), String::new());
    for lease in leases {
        let mut written: Vec<&PortMapping> = Vec::new();
        for mapping in &lease.port_mappings {
            if written.contains(&mapping) {
                continue;
            }
            written.push(mapping);
            for ip in &lease.ips {
                host_port(&mut to_pods, mapping, *ip, &lease.sandbox_id);
                let from = subnets.iter().find(|subnet| subnet.contains(*ip));
                if let Some(from) = from
                    && on(mapping, ip.is_ipv4()) != On::None
                {
                    hairpin(&mut hairpins, bridge, from, mapping, *ip);
                }
            }
        }
    }
    let mut masquerade = String::new();
    for subnet in subnets {
        let (family, multicast) = family(subnet.is_ipv4());
        let _ = writeln!(
            masquerade,
            "\t\t{family} saddr {subnet} oifname != \"{bridge}\" {family} daddr != {multicast} masquerade fully-random"
        );
    }
    let table = names::table(bridge);
    format!(
        "table inet {table}
delete table inet {table}
table inet {table} {{
	chain raw {{
		type filter hook prerouting priority -300; policy accept;
		iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
	}}
	chain hostports {{
		ip6 daddr ::1 return
{to_pods}	}}
	chain prerouting {{
		type nat hook prerouting priority -100; policy accept;
		fib daddr type local jump hostports
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		fib daddr type local jump hostports
	}}
	chain postrouting {{
		type nat hook postrouting priority 100; policy accept;
		oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade
{hairpins}{masquerade}	}}
}}
"
    )
}

/// The transaction that takes the table away, there or not.
pub(super) fn removal(bridge: &str) -> String {
    let table = names::table(bridge);
    format!("table inet {table}\ndelete table inet {table}\n")
}

fn host_port(rules: &mut String, mapping: &PortMapping, pod: IpAddr, sandbox_id: &str) {
    let family = family(pod.is_ipv4()).0;
    let here = match on(mapping, pod.is_ipv4()) {
        On::None => return,
        On::All if pod.is_ipv4() => "meta nfproto ipv4".to_owned(),
        On::All => "meta nfproto ipv6".to_owned(),
        On::One(ip) => format!("{family} daddr {ip}"),
    };
    let to = if pod.is_ipv4() { pod.to_string() } else { format!("[{pod}]") };
    // Enough of the id to find the pod, as clients print it.
    let pod = sandbox_id.get(..13).unwrap_or(sandbox_id);
    let _ = writeln!(
        rules,
        "\t\t{here} {} dport {} dnat {family} to {to}:{} comment \"pod {pod}\"",
        mapping.protocol, mapping.host_port, mapping.container_port
    );
}

/// A pod that comes by a host port must be answered the same way back, not directly over the bridge. Only
/// what came by this host port: a service proxy on the node has its own rules.
fn hairpin(rules: &mut String, bridge: &str, from: &Subnet, mapping: &PortMapping, pod: IpAddr) {
    let family = family(pod.is_ipv4()).0;
    let _ = writeln!(
        rules,
        "\t\toifname \"{bridge}\" {family} saddr {from} {family} daddr {pod} {} dport {} ct status dnat ct original proto-dst {} masquerade",
        mapping.protocol, mapping.container_port, mapping.host_port
    );
}

/// nft's word for the family, and its multicast addresses.
fn family(ipv4: bool) -> (&'static str, &'static str) {
    if ipv4 { ("ip", "224.0.0.0/4") } else { ("ip6", "ff00::/8") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn subnets() -> Vec<Subnet> {
        vec!["10.85.0.0/16".parse().unwrap(), "fd85::/64".parse().unwrap()]
    }

    fn lease(id: &str, port_mappings: Vec<PortMapping>) -> Lease {
        let ips = vec!["10.85.0.2".parse().unwrap(), "fd85::2".parse().unwrap()];
        Lease { sandbox_id: id.to_owned(), ips, port_mappings, ..Lease::default() }
    }

    fn mapping(protocol: Protocol, host_ip: &str) -> PortMapping {
        PortMapping { protocol, container_port: 80, host_port: 8080, host_ip: host_ip.parse().ok() }
    }

    #[test]
    fn without_host_ports_a_table_masquerades_and_guards_loopback() {
        let text = text("hull0", &subnets(), [lease("a", vec![])].iter());
        assert!(
            text.starts_with(
                "table inet hull-hull0\ndelete table inet hull-hull0\ntable inet hull-hull0 {\n"
            )
        );
        assert!(text.contains("iifname \"hull0\" ip daddr 127.0.0.0/8 drop\n"));
        assert!(
            text.contains("ip saddr 10.85.0.0/16 oifname != \"hull0\" ip daddr != 224.0.0.0/4 masquerade")
        );
        assert!(text.contains("ip6 saddr fd85::/64 oifname != \"hull0\" ip6 daddr != ff00::/8 masquerade"));
        assert!(!text.contains("dnat"), "{text}");
        let only_v4 = super::text("hull0", &subnets()[..1], [].iter());
        assert!(!only_v4.contains("ip6 saddr"), "{only_v4}");
    }

    #[test]
    fn host_ports_lead_to_the_pod() {
        let both = [
            "meta nfproto ipv4 tcp dport 8080 dnat ip to 10.85.0.2:80",
            "meta nfproto ipv6 tcp dport 8080 dnat ip6 to [fd85::2]:80",
        ];
        let cases = [
            (mapping(Protocol::Tcp, ""), &both[..]),
            (mapping(Protocol::Tcp, "0.0.0.0"), &both[..1]),
            (mapping(Protocol::Tcp, "::"), &both[1..]),
            (
                mapping(Protocol::Udp, "192.0.2.1"),
                &["ip daddr 192.0.2.1 udp dport 8080 dnat ip to 10.85.0.2:80"][..],
            ),
            (
                mapping(Protocol::Sctp, "2001:db8::1"),
                &["ip6 daddr 2001:db8::1 sctp dport 8080 dnat ip6 to [fd85::2]:80"][..],
            ),
        ];
        for (mapping, rules) in cases {
            let text =
                text("hull0", &subnets(), [lease("0123456789abcdef", vec![mapping.clone(), mapping])].iter());
            let found: Vec<&str> =
                text.lines().map(str::trim).filter(|line| line.contains(" dnat ip")).collect();
            let wanted: Vec<String> =
                rules.iter().map(|rule| format!("{rule} comment \"pod 0123456789abc\"")).collect();
            assert_eq!(found, wanted);
            assert_eq!(text.matches("ct status dnat").count(), rules.len(), "one way back for each: {text}");
        }
    }

    #[test]
    fn a_way_back_is_for_what_came_by_the_host_port_alone() {
        let text = text("hull0", &subnets(), [lease("a", vec![mapping(Protocol::Tcp, "0.0.0.0")])].iter());
        let rule = "oifname \"hull0\" ip saddr 10.85.0.0/16 ip daddr 10.85.0.2 tcp dport 80 ct status dnat ct original proto-dst 8080 masquerade";
        assert!(text.contains(rule), "{text}");
    }
}
