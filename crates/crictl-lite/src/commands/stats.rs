// SPDX-License-Identifier: Apache-2.0
//! `stats`.

use std::collections::HashMap;
use std::time::Duration;

use hull_cri_api::v1::{
    ContainerStats, ContainerStatsFilter, CpuUsage, ListContainerStatsRequest, ListContainerStatsResponse,
    UInt64Value,
};
use tonic::Code;

use crate::cli::{Format, Stats};
use crate::client::{Client, Runtime, call, rpc_error};
use crate::error::Error;
use crate::output::text::{short_id, size};
use crate::output::{self, json, table::Table};

/// Shows what containers use.
pub(crate) async fn show(client: &Client, args: Stats) -> Result<(), Error> {
    let mut runtime = client.runtime().await?;
    let id = args.container.as_ref().or(args.id.as_ref()).cloned().unwrap_or_default();
    let filter = ContainerStatsFilter {
        id: id.clone(),
        pod_sandbox_id: args.pod.clone().unwrap_or_default(),
        label_selector: args.label.iter().cloned().collect(),
    };
    let mut stats = sample(client, &mut runtime, &filter).await?;
    if stats.is_empty() && !id.is_empty() {
        let problem = "no such running container".to_owned();
        return Err(Error::Refused { operation: "stats", id, problem, code: Code::NotFound });
    }
    let format = args.output.output;
    let mut before = HashMap::new();
    if format == Format::Table && args.seconds > 0 && !stats.is_empty() {
        before = stats.into_iter().filter_map(|stats| Some((id_of(&stats).to_owned(), stats.cpu?))).collect();
        tokio::time::sleep(Duration::from_secs(args.seconds)).await;
        stats = sample(client, &mut runtime, &filter).await?;
    }
    stats.sort_by(|a, b| id_of(a).cmp(id_of(b)));
    let response = ListContainerStatsResponse { stats };
    output::show(
        format,
        || json::value("ListContainerStatsResponse", &response),
        || table(&response.stats, &before, args.no_trunc),
    )
}

async fn sample(
    client: &Client,
    runtime: &mut Runtime,
    filter: &ContainerStatsFilter,
) -> Result<Vec<ContainerStats>, Error> {
    let request = ListContainerStatsRequest { filter: Some(filter.clone()) };
    call(client.limit(), request, |request| runtime.list_container_stats(request))
        .await
        .map(|response| response.stats)
        .map_err(rpc_error("stats", &filter.id))
}

fn id_of(stats: &ContainerStats) -> &str {
    stats.attributes.as_ref().map_or("", |attributes| &attributes.id)
}

fn table(stats: &[ContainerStats], before: &HashMap<String, CpuUsage>, no_trunc: bool) -> String {
    let mut table = Table::new(["CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES"]);
    let number = |value: Option<&UInt64Value>| value.map_or(0, |value| value.value);
    for stats in stats {
        let id = id_of(stats);
        let name = stats.attributes.as_ref().and_then(|attributes| attributes.metadata.as_ref());
        let memory = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref());
        let layer = stats.writable_layer.as_ref();
        table.row([
            if no_trunc { id.to_owned() } else { short_id(id).to_owned() },
            name.map(|metadata| metadata.name.clone()).unwrap_or_default(),
            format!("{:.2}", cpu_percent(before.get(id), stats.cpu.as_ref())),
            size(number(memory)),
            size(number(layer.and_then(|layer| layer.used_bytes.as_ref()))),
            number(layer.and_then(|layer| layer.inodes_used.as_ref())).to_string(),
        ]);
    }
    table.render()
}

/// Use of one CPU, in percent: between the two samples, or else the runtime's own rate, or else 0.
fn cpu_percent(before: Option<&CpuUsage>, after: Option<&CpuUsage>) -> f64 {
    let Some(after) = after else { return 0.0 };
    let between = || {
        let before = before?;
        let time = after.timestamp.checked_sub(before.timestamp).filter(|time| *time > 0)?;
        let used = after.usage_core_nano_seconds?.value.checked_sub(before.usage_core_nano_seconds?.value)?;
        Some(used as f64 / time as f64 * 100.0)
    };
    let own = || after.usage_nano_cores.map(|rate| rate.value as f64 / 1e7);
    between().or_else(own).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(timestamp: i64, used: u64, rate: Option<u64>) -> CpuUsage {
        CpuUsage {
            timestamp,
            usage_core_nano_seconds: Some(UInt64Value { value: used }),
            usage_nano_cores: rate.map(|value| UInt64Value { value }),
            psi: None,
        }
    }

    #[test]
    fn cpu_use() {
        let second = 1_000_000_000;
        let (before, after) = (usage(second, 5, None), usage(3 * second, second as u64 + 5, Some(1)));
        assert_eq!(cpu_percent(Some(&before), Some(&after)), 50.0);
        assert_eq!(cpu_percent(None, Some(&usage(1, 1, Some(250_000_000)))), 25.0);
        assert_eq!(cpu_percent(None, Some(&usage(1, 1, None))), 0.0);
        assert_eq!(cpu_percent(None, None), 0.0);
        // Restarted between the samples, or the clock was set back.
        assert_eq!(cpu_percent(Some(&usage(1, 9, None)), Some(&usage(2, 3, None))), 0.0);
        assert_eq!(cpu_percent(Some(&usage(5, 1, None)), Some(&usage(2, 3, None))), 0.0);
    }
}
