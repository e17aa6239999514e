// SPDX-License-Identifier: Apache-2.0
//! ContainerStats and ListContainerStats: what the kubelet's eviction needs, read from cgroup files.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hull_cgroups::Stats;
use hull_cri_api::v1;
use hull_image_store::Usage;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::ContainerPhase;
use crate::records::blocking;
use crate::sandbox::list::selects;
use crate::sandbox::status::nanoseconds;
use crate::store::Container;

/// One container's.
pub(crate) async fn stats(ctx: &Context, id: &str) -> Result<v1::ContainerStats> {
    let container = ctx
        .store
        .container(id)?
        .filter(|container| container.status().is_visible())
        .ok_or_else(|| Error::NotFound { kind: "container", id: id.to_owned() })?;
    Ok(of(ctx, &container).await)
}

/// Those of the running containers that match.
pub(crate) async fn list(
    ctx: &Context,
    filter: Option<&v1::ContainerStatsFilter>,
) -> Vec<v1::ContainerStats> {
    let mut all = Vec::new();
    for container in ctx.store.containers() {
        let status = container.status();
        if status.is_visible()
            && status.phase == ContainerPhase::Running
            && filter.is_none_or(|f| matches(&container, f))
        {
            all.push(of(ctx, &container).await);
        }
    }
    all
}

fn matches(container: &Container, filter: &v1::ContainerStatsFilter) -> bool {
    container.id().starts_with(&filter.id)
        && container.meta.sandbox_id.starts_with(&filter.pod_sandbox_id)
        && selects(&filter.label_selector, &container.meta.config.labels)
}

/// What cannot be read is left out; it never fails the whole.
async fn of(ctx: &Context, container: &Arc<Container>) -> v1::ContainerStats {
    let (ctx_, cgroup) = (ctx.clone(), container.meta.cgroup.clone());
    let read = blocking(move || {
        Ok::<_, Error>((ctx_.node.cgroup_stats(&cgroup), Instant::now(), SystemTime::now()))
    });
    let (stats, taken, now) = read.await.unwrap_or((None, Instant::now(), SystemTime::now()));
    let timestamp = nanoseconds(now);
    let layer = layer(ctx, container).await;
    let config = &container.meta.config;
    v1::ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: container.id().to_owned(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        cpu: stats.map(|stats| v1::CpuUsage {
            timestamp,
            usage_core_nano_seconds: value(stats.cpu_usage_ns),
            usage_nano_cores: rate(container, taken, stats.cpu_usage_ns).and_then(value),
            ..Default::default()
        }),
        memory: stats.map(|stats| memory(&stats, timestamp)),
        swap: stats.and_then(|stats| stats.swap_usage).map(|used| v1::SwapUsage {
            timestamp,
            swap_usage_bytes: value(used),
            ..Default::default()
        }),
        writable_layer: layer.map(|usage| v1::FilesystemUsage {
            timestamp,
            fs_id: Some(v1::FilesystemIdentifier {
                mountpoint: ctx.layout.root.to_string_lossy().into_owned(),
            }),
            used_bytes: value(usage.bytes),
            inodes_used: value(usage.inodes),
        }),
        ..Default::default()
    }
}

/// The count of now if it comes quickly, else the last one: a container with a million files does not
/// hold up the kubelet's statistics, and is counted once at a time.
async fn layer(ctx: &Context, container: &Arc<Container>) -> Option<Usage> {
    let start = {
        let mut count = container.layer.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut count.running, true)
    };
    if start {
        let (ctx_, container_) = (ctx.clone(), container.clone());
        let counting = ctx.tasks.spawn(async move {
            let used = ctx_.images.root_usage(&ctx_.layout.container_dir(container_.id())).await.ok();
            let mut count = container_.layer.lock().unwrap_or_else(PoisonError::into_inner);
            count.running = false;
            count.last = used.or(count.last);
        });
        let _ = tokio::time::timeout(QUICKLY, counting).await;
    }
    container.layer.lock().unwrap_or_else(PoisonError::into_inner).last
}

const QUICKLY: Duration = Duration::from_millis(100);

fn memory(stats: &Stats, timestamp: i64) -> v1::MemoryUsage {
    v1::MemoryUsage {
        timestamp,
        working_set_bytes: value(stats.memory_working_set),
        available_bytes: stats
            .memory_limit
            .and_then(|limit| value(limit.saturating_sub(stats.memory_working_set))),
        usage_bytes: value(stats.memory_usage),
        rss_bytes: value(stats.memory_rss),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        ..Default::default()
    }
}

/// Processor time per second since the sample before, in nanoseconds; none for the first.
fn rate(container: &Container, taken: Instant, used: u64) -> Option<u64> {
    let mut sample = container.cpu_sample.lock().unwrap_or_else(PoisonError::into_inner);
    let before = sample.replace((taken, used));
    let (then, had) = before?;
    let elapsed = taken.checked_duration_since(then)?.as_nanos();
    let more = u128::from(used.checked_sub(had)?);
    (elapsed > 0).then(|| u64::try_from(more * 1_000_000_000 / elapsed).unwrap_or(u64::MAX))
}

#[expect(clippy::unnecessary_wraps, reason = "the message's fields are optional")]
fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}
