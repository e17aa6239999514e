// SPDX-License-Identifier: Apache-2.0
//! Results of every version: examples, and what is written is read again.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(value: &Value) -> Result<CniResult, String> {
    CniResult::parse(value.to_string().as_bytes(), Version::V1_0_0)
}

fn ips(value: &Value) -> Vec<String> {
    parse(value).unwrap().pod_ips().iter().map(ToString::to_string).collect()
}

/// Writes a result as a plugin of its version does.
fn encode(result: &CniResult) -> Value {
    let routes = |all: &[&Route]| -> Vec<Value> {
        all.iter()
            .map(|r| match r.gw {
                Some(gw) => json!({ "dst": r.dst.to_string(), "gw": gw }),
                None => json!({ "dst": r.dst.to_string() }),
            })
            .collect()
    };
    let dns = json!({
        "nameservers": result.dns.nameservers, "domain": result.dns.domain,
        "search": result.dns.search, "options": result.dns.options,
    });
    let mut value = json!({ "cniVersion": result.version.as_str(), "dns": dns });
    if result.version < Version::V0_3_0 {
        for ip in &result.ips {
            let v4 = ip.address.address.is_ipv4();
            let of_family: Vec<&Route> =
                result.routes.iter().filter(|r| r.dst.address.is_ipv4() == v4).collect();
            value[if v4 { "ip4" } else { "ip6" }] = json!({
                "ip": ip.address.to_string(), "gateway": ip.gateway, "routes": routes(&of_family),
            });
        }
        return value;
    }
    value["interfaces"] = result
        .interfaces
        .iter()
        .map(|i| json!({ "name": i.name, "mac": i.mac, "sandbox": i.sandbox }))
        .collect();
    value["ips"] = result
        .ips
        .iter()
        .map(|ip| {
            let mut one = json!({ "address": ip.address.to_string(), "gateway": ip.gateway });
            if result.version < Version::V1_0_0 {
                one["version"] = json!(if ip.address.address.is_ipv4() { "4" } else { "6" });
            }
            if let Some(index) = ip.interface {
                one["interface"] = json!(index);
            }
            one
        })
        .collect();
    value["routes"] = routes(&result.routes.iter().collect::<Vec<_>>()).into();
    value
}

fn cidr() -> impl Strategy<Value = Cidr> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, prefix)| Cidr { address: a.into(), prefix }),
        (any::<[u8; 16]>(), 0u8..=128).prop_map(|(a, prefix)| Cidr { address: a.into(), prefix }),
    ]
}

fn result() -> impl Strategy<Value = CniResult> {
    let interface = ("[a-z0-9]{1,15}", "[0-9a-f:]{0,17}", "(/run/netns/[a-z]{1,5})?")
        .prop_map(|(name, mac, sandbox)| Interface { name, mac, sandbox });
    let ip = (cidr(), proptest::option::of(any::<[u8; 4]>()), proptest::option::of(0usize..4));
    let route = (cidr(), proptest::option::of(any::<[u8; 16]>()))
        .prop_map(|(dst, gw)| Route { dst, gw: gw.map(Into::into) });
    let dns = proptest::collection::vec("[a-z.]{1,10}", 0..3).prop_map(|search| Dns {
        nameservers: vec!["10.0.0.1".to_owned()],
        search,
        ..Dns::default()
    });
    (
        proptest::sample::select(Version::ALL.to_vec()),
        proptest::collection::vec(interface, 0..4),
        proptest::collection::vec(ip, 0..4),
        proptest::collection::vec(route, 0..4),
        dns,
    )
        .prop_map(|(version, interfaces, ips, routes, dns)| {
            let ips = ips
                .into_iter()
                .map(|(address, gateway, interface)| Ip {
                    address,
                    gateway: gateway.map(Into::into),
                    interface: interface.filter(|n| *n < interfaces.len()),
                })
                .collect();
            CniResult { version, interfaces, ips, routes, dns }
        })
}

/// The first versions say less: one address per family, IPv4 first, no interfaces.
fn as_said(mut result: CniResult) -> CniResult {
    if result.version >= Version::V0_3_0 {
        return result;
    }
    result.interfaces.clear();
    let last = |v4: bool| {
        let found = result.ips.iter().rev().find(|ip| ip.address.address.is_ipv4() == v4);
        found.cloned().map(|ip| Ip { interface: None, ..ip })
    };
    let ips: Vec<Ip> = [last(true), last(false)].into_iter().flatten().collect();
    let of = |v4: bool| result.routes.iter().filter(move |r| r.dst.address.is_ipv4() == v4).cloned();
    let has = |v4: bool| ips.iter().any(|ip| ip.address.address.is_ipv4() == v4);
    let routes: Vec<Route> = [true, false].into_iter().filter(|v4| has(*v4)).flat_map(of).collect();
    CniResult { ips, routes, ..result }
}

#[test]
fn the_bridge_plugins_result() {
    let value = json!({
        "cniVersion": "0.3.1",
        "interfaces": [
            { "name": "cni0", "mac": "0e:00:00:00:00:01" },
            { "name": "veth1", "mac": "0e:00:00:00:00:02" },
            { "name": "eth0", "mac": "0e:00:00:00:00:03", "sandbox": "/run/netns/x" },
        ],
        "ips": [{ "version": "4", "interface": 2, "address": "10.1.0.2/24", "gateway": "10.1.0.1" }],
        "routes": [{ "dst": "0.0.0.0/0" }],
        "dns": {},
    });
    let result = parse(&value).unwrap();
    assert_eq!(ips(&value), ["10.1.0.2"]);
    assert_eq!(result.interfaces[2].sandbox, "/run/netns/x");
    assert_eq!(result.routes[0].dst.to_string(), "0.0.0.0/0");
}

#[test]
fn addresses_of_the_host_are_not_the_pods() {
    let value = json!({
        "interfaces": [{ "name": "br" }, { "name": "eth0", "sandbox": "/x" }],
        "ips": [
            { "interface": 0, "address": "10.0.0.1/24" },
            { "interface": 1, "address": "10.0.0.2/24" },
            { "interface": 1, "address": "fd00::2/64" },
            { "interface": 1, "address": "10.0.0.2/24" },
            { "address": "10.0.0.3/24" },
            { "interface": 9, "address": "10.0.0.4/24" },
            { "interface": -1, "address": "10.0.0.5/24" },
        ],
    });
    assert_eq!(ips(&value), ["10.0.0.2", "fd00::2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
    let only_host =
        json!({ "interfaces": [{ "name": "br" }], "ips": [{ "interface": 0, "address": "10.0.0.1/24" }] });
    assert_eq!(ips(&only_host), ["10.0.0.1"]);
}

#[test]
fn nulls_are_absent() {
    let value = json!({
        "cniVersion": "1.0.0", "interfaces": null, "ips": [{ "address": "10.0.0.1/8", "interface": null, "gateway": null }],
        "routes": null, "dns": { "nameservers": null },
    });
    assert_eq!(ips(&value), ["10.0.0.1"]);
}

#[test]
fn garbage_is_refused_and_says_what() {
    for (value, part) in [
        (json!({ "cniVersion": "8.0.0" }), "8.0.0"),
        (json!({ "ips": [{ "address": "10.0.0.1" }] }), "prefix length"),
        (json!({ "ips": [{ "address": "10.0.0.1/33" }] }), "prefix length"),
        (json!({ "ips": [{ "address": "10.0.0.1/8", "gateway": "x" }] }), "not an address"),
        (json!({ "ips": {} }), "ips"),
        (json!({ "cniVersion": "0.2.0", "ip4": { "ip": "nothing" } }), "nothing"),
        (json!([]), "not a JSON object"),
    ] {
        let problem = parse(&value).unwrap_err();
        assert!(problem.contains(part), "{value}: {problem}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(result in result()) {
        let bytes = encode(&result).to_string();
        prop_assert_eq!(CniResult::parse(bytes.as_bytes(), Version::V0_1_0), Ok(as_said(result)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = CniResult::parse(&bytes, Version::V1_0_0);
    }

    #[test]
    fn any_cut_is_refused(result in result(), cut in any::<proptest::sample::Index>()) {
        let text = encode(&result).to_string();
        prop_assert!(CniResult::parse(&text.as_bytes()[..cut.index(text.len())], Version::V1_0_0).is_err());
    }
}
