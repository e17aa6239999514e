// SPDX-License-Identifier: Apache-2.0
//! ListContainers: from snapshots, never waiting.

use hull_cri_api::v1;

use crate::container::status;
use crate::context::Context;
use crate::error::Result;
use crate::model::{ContainerMeta, ContainerStatus};
use crate::sandbox::list::selects;
use crate::sandbox::request::invalid;
use crate::sandbox::status::nanoseconds;
use crate::store::Container;

const RPC: &str = "ListContainers";

/// The containers that match, newest first.
pub(crate) fn list(ctx: &Context, filter: Option<&v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
    let state = filter.and_then(|filter| filter.state.as_ref()).map(|state| state.state);
    if let Some(state) = state.filter(|state| v1::ContainerState::try_from(*state).is_err()) {
        return Err(invalid(RPC, "filter.state", format!("unknown state {state}")));
    }
    let mut found: Vec<_> = ctx.store.containers().into_iter().map(|it| (it.status(), it)).collect();
    // Chosen first: what is made of a container for the answer costs more than all else.
    found.retain(|(status, container)| {
        let state = status::state(status) as i32;
        status.is_visible() && filter.is_none_or(|filter| matches(&container.meta, state, filter))
    });
    found.sort_by_key(|(_, container)| std::cmp::Reverse(container.meta.created_at));
    Ok(found.iter().map(|(status, container)| item(container, status)).collect())
}

fn item(container: &Container, status: &ContainerStatus) -> v1::Container {
    let meta = &container.meta;
    v1::Container {
        id: meta.id.clone(),
        pod_sandbox_id: meta.sandbox_id.clone(),
        metadata: meta.config.metadata.clone(),
        image: Some(v1::ImageSpec {
            image: meta.image_name.clone(),
            ..meta.config.image.clone().unwrap_or_default()
        }),
        image_ref: meta.image_ref.clone(),
        state: status::state(status) as i32,
        created_at: nanoseconds(meta.created_at),
        labels: meta.config.labels.clone(),
        annotations: meta.config.annotations.clone(),
        image_id: meta.image_id.clone(),
    }
}

fn matches(meta: &ContainerMeta, state: i32, filter: &v1::ContainerFilter) -> bool {
    meta.id.starts_with(&filter.id)
        && filter.state.as_ref().is_none_or(|wanted| wanted.state == state)
        && meta.sandbox_id.starts_with(&filter.pod_sandbox_id)
        && selects(&filter.label_selector, &meta.config.labels)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn conditions_are_all_needed() {
        let meta = ContainerMeta {
            id: "abcd".into(),
            sandbox_id: "pod1".into(),
            handler: String::new(),
            config: v1::ContainerConfig {
                labels: std::collections::HashMap::from([("app".into(), "web".into())]),
                ..Default::default()
            },
            created_at: SystemTime::UNIX_EPOCH,
            image_id: String::new(),
            image_name: String::new(),
            image_ref: String::new(),
            log_path: PathBuf::new(),
            cgroup: PathBuf::new(),
            monitor_cgroup: PathBuf::new(),
            stop_signal: 15,
            image_mounts: Vec::new(),
            unknown: crate::model::Unknown::new(),
        };
        let filter =
            |id: &str, pod: &str, state: Option<i32>, label: Option<(&str, &str)>| v1::ContainerFilter {
                id: id.into(),
                pod_sandbox_id: pod.into(),
                state: state.map(|state| v1::ContainerStateValue { state }),
                label_selector: label.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            };
        assert!(matches(&meta, 1, &filter("", "", None, None)));
        assert!(matches(&meta, 1, &filter("ab", "pod", Some(1), Some(("app", "web")))));
        assert!(!matches(&meta, 1, &filter("ab", "pod", Some(0), None)));
        assert!(!matches(&meta, 1, &filter("ab", "other", Some(1), None)));
        assert!(!matches(&meta, 1, &filter("b", "pod", Some(1), None)));
        assert!(!matches(&meta, 1, &filter("ab", "pod", Some(1), Some(("app", "db")))));
    }
}
