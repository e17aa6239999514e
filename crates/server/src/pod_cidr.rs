// SPDX-License-Identifier: Apache-2.0
//! UpdateRuntimeConfig: the kubelet tells which addresses the node's pods have. With `network.cni_conf_template`
//! that becomes a CNI configuration, for clusters whose network is no more than that; without, network agents
//! write their own, and there is nothing to do.
//!
//! ```text
//! in the template        becomes
//! ${POD_CIDR}            the first range
//! ${POD_CIDR_RANGES}     [[{"subnet": "10.1.0.0/24"}], ...]    host-local's `ranges`
//! ${ROUTES}              [{"dst": "0.0.0.0/0"}, ...]           a default route for each family
//! ```
//! The file is `10-hull.conflist` in `network.cni_conf_dir`; it is replaced whole, and only when it changes.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use hull_failpoint::failpoint;
use serde_json::json;

use crate::config::NetworkBackend;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::records::blocking;
use crate::sandbox::request::invalid;

const RPC: &str = "UpdateRuntimeConfig";
const FIELD: &str = "runtime_config.network_config.pod_cidr";
const FILE: &str = "10-hull.conflist";
/// Larger templates are a mistake.
const LARGEST: u64 = 1 << 20;

/// Takes note of the addresses; an empty text changes nothing.
pub(crate) async fn update(ctx: &Context, config: Option<v1::RuntimeConfig>) -> Result<()> {
    let text = config.and_then(|config| config.network_config).unwrap_or_default().pod_cidr;
    if text.is_empty() {
        return Ok(());
    }
    let ranges = ranges(&text)?;
    let network = &ctx.config.network;
    let Some(template) = network.cni_conf_template.clone().filter(|_| network.backend == NetworkBackend::Cni)
    else {
        tracing::info!(pod_cidr = text, "noted: no network.cni_conf_template, so nothing is written");
        return Ok(());
    };
    let dir = network.cni_conf_dir.clone();
    blocking(move || {
        if write(&template, &dir, &ranges)? {
            tracing::info!(path = %dir.join(FILE).display(), pod_cidr = text, "network configuration written");
        }
        Ok::<_, Error>(())
    })
    .await
}

/// `10.1.0.0/24,fd00::/64`.
fn ranges(text: &str) -> Result<Vec<(IpAddr, u8)>> {
    let range = |part: &str| {
        let (address, length) = part.trim().split_once('/')?;
        let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (length <= longest).then_some((address, length))
    };
    text.split(',')
        .map(|part| {
            range(part)
                .ok_or_else(|| invalid(RPC, FIELD, format!("{part:?} is not a range such as 10.1.0.0/24")))
        })
        .collect()
}

/// Tells whether the file was not so before.
fn write(template: &Path, dir: &Path, ranges: &[(IpAddr, u8)]) -> Result<bool> {
    let io = |step: &str, path: &Path| {
        let context = format!("{step} {}", path.display());
        move |error| Error::io(context, error)
    };
    let length = std::fs::metadata(template).map_err(io("read", template))?.len();
    if length > LARGEST {
        let error = std::io::Error::other("it is larger than 1 MiB");
        return Err(io("read", template)(error));
    }
    let text = std::fs::read_to_string(template).map_err(io("read", template))?;
    let filled = fill(&text, ranges);
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&filled) {
        let error = std::io::Error::other(format!("with the node's addresses it is not JSON: {error}"));
        return Err(io("use", template)(error));
    }
    let path = dir.join(FILE);
    if std::fs::read(&path).is_ok_and(|before| before == filled.as_bytes()) {
        return Ok(false);
    }
    failpoint!("pod-cidr.write").map_err(io("write", &path))?;
    crate::layout::make_dir(dir, 0o755).map_err(io("make directory", dir))?;
    // Not a name that CNI reads: it must not see a part of it.
    let temporary: PathBuf = dir.join(format!(".{FILE}.tmp"));
    let written = hull_files::create(&temporary, 0o644).and_then(|mut file| {
        file.write_all(filled.as_bytes())?;
        file.sync_all()
    });
    written.map_err(io("write", &temporary))?;
    std::fs::rename(&temporary, &path).map_err(io("write", &path))?;
    Ok(true)
}

fn fill(template: &str, ranges: &[(IpAddr, u8)]) -> String {
    let shown: Vec<String> = ranges.iter().map(|(address, length)| format!("{address}/{length}")).collect();
    let subnets: Vec<_> = shown.iter().map(|range| json!([{ "subnet": range }])).collect();
    let has = |v4: bool| ranges.iter().any(|(address, _)| address.is_ipv4() == v4);
    let defaults = [("0.0.0.0/0", true), ("::/0", false)].into_iter().filter(|(_, v4)| has(*v4));
    let routes = defaults.map(|(dst, _)| json!({ "dst": dst })).collect();
    template
        .replace("${POD_CIDR}", shown.first().map_or("", String::as_str))
        .replace("${POD_CIDR_RANGES}", &serde_json::Value::Array(subnets).to_string())
        .replace("${ROUTES}", &serde_json::Value::Array(routes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "note": "${POD_CIDR}",
        "ipam": {"type": "host-local", "ranges": ${POD_CIDR_RANGES}, "routes": ${ROUTES}}}]}"#;

    #[test]
    fn a_template_is_filled_and_written_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("template");
        std::fs::write(&template, TEMPLATE).unwrap();
        let conf = dir.path().join("net.d");
        let both = ranges("10.1.0.0/24,fd00:1::/64").unwrap();
        assert!(write(&template, &conf, &both).unwrap());
        let text = std::fs::read_to_string(conf.join(FILE)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["plugins"][0]["note"], "10.1.0.0/24");
        let ipam = &value["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]));
        assert_eq!(ipam["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        assert!(!write(&template, &conf, &both).unwrap(), "the same again writes nothing");
        assert!(write(&template, &conf, &ranges("10.2.0.0/24").unwrap()).unwrap());
        assert_eq!(std::fs::read_dir(&conf).unwrap().count(), 1, "nothing half written stays");

        std::fs::write(&template, "{${POD_CIDR}").unwrap();
        let error = crate::error::chain(&write(&template, &conf, &both).unwrap_err());
        assert!(error.contains("it is not JSON"), "{error}");
        assert!(conf.join(FILE).exists(), "what was there stays");
    }

    #[test]
    fn what_is_no_range_is_named() {
        for bad in ["10.1.0.0", "10.1.0.0/33", "x/8", "10.0.0.0/8,", "fd00::/129"] {
            let error = ranges(bad).unwrap_err().to_string();
            assert!(error.contains(FIELD) && error.contains("is not a range"), "{error}");
        }
    }
}
