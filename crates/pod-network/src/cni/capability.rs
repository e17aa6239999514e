// SPDX-License-Identifier: Apache-2.0
//! What a plugin may be told about the pod beyond its configuration (CNI conventions,
//! "Dynamic plugin specific fields").

use serde_json::{Map, Value, json};

use super::quantity;
use crate::{AttachRequest, Error, Protocol, Result};

/// The token bucket's size in bits: a rate without one is refused by the bandwidth plugin, and this
/// is the most that it can hand to the kernel in every version.
const BURST: u64 = u32::MAX as u64;

/// What Kubernetes takes as a rate, in bits per second.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// The arguments of every capability that the request has something for. A plugin gets those that
/// its `capabilities` ask for.
pub(super) fn arguments(request: &AttachRequest) -> Result<Map<String, Value>> {
    let mut arguments = Map::new();
    let ports = port_mappings(request);
    if !ports.is_empty() {
        arguments.insert("portMappings".to_owned(), Value::Array(ports));
    }
    if let Some(bandwidth) = bandwidth(request)? {
        arguments.insert("bandwidth".to_owned(), bandwidth);
    }
    if let Some(dns) = &request.dns {
        let value = json!({ "servers": dns.servers, "searches": dns.searches, "options": dns.options });
        arguments.insert("dns".to_owned(), value);
    }
    if let Some(parent) = request.cgroup_parent.as_deref().filter(|parent| !parent.is_empty()) {
        arguments.insert("cgroupPath".to_owned(), json!(parent));
    }
    if !request.annotations.is_empty() {
        arguments.insert("io.kubernetes.cri.pod-annotations".to_owned(), json!(request.annotations));
    }
    Ok(arguments)
}

/// The part that a plugin asks for; `None` if that is nothing.
pub(super) fn runtime_config(
    wanted: &[String],
    arguments: &Map<String, Value>,
) -> Option<Map<String, Value>> {
    let config: Map<String, Value> = arguments
        .iter()
        .filter(|(name, _)| wanted.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (!config.is_empty()).then_some(config)
}

fn port_mappings(request: &AttachRequest) -> Vec<Value> {
    let mapped = request.port_mappings.iter().filter(|port| port.host_port != 0);
    mapped
        .map(|port| {
            let mut value = json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": protocol(port.protocol),
            });
            if let Some(ip) = port.host_ip {
                value["hostIP"] = json!(ip);
            }
            value
        })
        .collect()
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn bandwidth(request: &AttachRequest) -> Result<Option<Value>> {
    let mut value = Map::new();
    for direction in ["ingress", "egress"] {
        let annotation = format!("kubernetes.io/{direction}-bandwidth");
        let Some(text) = request.annotations.get(&annotation) else { continue };
        let rate = quantity::parse(text).filter(|rate| RATES.contains(rate)).ok_or_else(|| {
            Error::Invalid(format!("annotation {annotation} is {text:?}: expected a rate from 1k to 1P"))
        })?;
        value.insert(format!("{direction}Rate"), json!(rate));
        value.insert(format!("{direction}Burst"), json!(BURST));
    }
    Ok((!value.is_empty()).then_some(Value::Object(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DnsConfig, PortMapping};

    fn annotated(pairs: &[(&str, &str)]) -> AttachRequest {
        let annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        AttachRequest { annotations, ..Default::default() }
    }

    #[test]
    fn a_request_without_anything_has_no_arguments() {
        assert_eq!(arguments(&AttachRequest::default()).unwrap(), Map::new());
    }

    #[test]
    fn every_capability_in_its_form() {
        let port = |host_port, host_ip| PortMapping {
            protocol: Protocol::Udp,
            container_port: 53,
            host_port,
            host_ip,
        };
        let request = AttachRequest {
            cgroup_parent: Some("/kubepods/podx".to_owned()),
            port_mappings: vec![port(5353, None), port(0, None), port(54, Some([127, 0, 0, 1].into()))],
            dns: Some(DnsConfig { servers: vec!["10.0.0.1".to_owned()], ..Default::default() }),
            ..annotated(&[("kubernetes.io/egress-bandwidth", "10M")])
        };
        let expected = json!({
            "portMappings": [
                { "hostPort": 5353, "containerPort": 53, "protocol": "udp" },
                { "hostPort": 54, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1" },
            ],
            "bandwidth": { "egressRate": 10_000_000, "egressBurst": 4_294_967_295u64 },
            "dns": { "servers": ["10.0.0.1"], "searches": [], "options": [] },
            "cgroupPath": "/kubepods/podx",
            "io.kubernetes.cri.pod-annotations": { "kubernetes.io/egress-bandwidth": "10M" },
        });
        assert_eq!(Value::Object(arguments(&request).unwrap()), expected);
    }

    #[test]
    fn a_bad_rate_is_refused_and_named() {
        for rate in ["", "999", "2P", "fast", "-1M"] {
            let error = arguments(&annotated(&[("kubernetes.io/ingress-bandwidth", rate)])).unwrap_err();
            assert!(error.to_string().contains("kubernetes.io/ingress-bandwidth"), "{error}");
        }
    }

    #[test]
    fn a_plugin_gets_only_what_it_asks_for() {
        let arguments = arguments(&AttachRequest {
            cgroup_parent: Some("/p".to_owned()),
            dns: Some(DnsConfig::default()),
            ..Default::default()
        })
        .unwrap();
        let wanted = ["dns".to_owned(), "portMappings".to_owned()];
        let config = runtime_config(&wanted, &arguments).unwrap();
        assert_eq!(config.keys().collect::<Vec<_>>(), ["dns"]);
        assert_eq!(runtime_config(&["mac".to_owned()], &arguments), None);
    }
}
