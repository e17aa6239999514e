// SPDX-License-Identifier: Apache-2.0
//! ListContainers: from snapshots, never waiting.

use hull_cri_api::v1;

use crate::container::status;
use crate::context::Context;
use crate::error::Result;
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
    let mut items: Vec<v1::Container> = ctx
        .store
        .containers()
        .iter()
        .filter(|container| container.status().is_visible())
        .map(|container| item(container))
        .filter(|item| filter.is_none_or(|filter| matches(item, filter)))
        .collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
    Ok(items)
}

fn item(container: &Container) -> v1::Container {
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
        state: status::state(&container.status()) as i32,
        created_at: nanoseconds(meta.created_at),
        labels: meta.config.labels.clone(),
        annotations: meta.config.annotations.clone(),
        image_id: meta.image_id.clone(),
    }
}

fn matches(item: &v1::Container, filter: &v1::ContainerFilter) -> bool {
    item.id.starts_with(&filter.id)
        && filter.state.as_ref().is_none_or(|wanted| wanted.state == item.state)
        && item.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
        && selects(&filter.label_selector, &item.labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_all_needed() {
        let item = v1::Container {
            id: "abcd".into(),
            pod_sandbox_id: "pod1".into(),
            state: 1,
            ..Default::default()
        };
        let filter = |id: &str, pod: &str, state: Option<i32>| v1::ContainerFilter {
            id: id.into(),
            pod_sandbox_id: pod.into(),
            state: state.map(|state| v1::ContainerStateValue { state }),
            ..Default::default()
        };
        assert!(matches(&item, &filter("", "", None)));
        assert!(matches(&item, &filter("ab", "pod", Some(1))));
        assert!(!matches(&item, &filter("ab", "pod", Some(0))));
        assert!(!matches(&item, &filter("ab", "other", Some(1))));
        assert!(!matches(&item, &filter("b", "pod", Some(1))));
    }
}
