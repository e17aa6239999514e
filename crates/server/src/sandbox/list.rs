// SPDX-License-Identifier: Apache-2.0
//! ListPodSandbox: from snapshots, never waiting.

use std::collections::HashMap;

use hull_cri_api::v1;

use crate::context::Context;
use crate::error::Result;
use crate::sandbox::request::invalid;
use crate::sandbox::status;
use crate::store::Sandbox;

const RPC: &str = "ListPodSandbox";

/// The sandboxes that match, newest first.
pub(crate) fn list(ctx: &Context, filter: Option<&v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
    let state = filter.and_then(|filter| filter.state.as_ref()).map(|state| state.state);
    if let Some(state) = state.filter(|state| v1::PodSandboxState::try_from(*state).is_err()) {
        return Err(invalid(RPC, "filter.state", format!("unknown state {state}")));
    }
    let mut items: Vec<v1::PodSandbox> = ctx
        .store
        .sandboxes()
        .iter()
        .filter(|sandbox| sandbox.status().is_visible())
        .map(|sandbox| item(sandbox))
        .filter(|item| filter.is_none_or(|filter| matches(item, filter)))
        .collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
    Ok(items)
}

fn item(sandbox: &Sandbox) -> v1::PodSandbox {
    let config = &sandbox.meta.config;
    v1::PodSandbox {
        id: sandbox.id().to_owned(),
        metadata: config.metadata.clone(),
        state: status::state(&sandbox.status()) as i32,
        created_at: status::nanoseconds(sandbox.meta.created_at),
        labels: sandbox.meta.labels().clone(),
        annotations: config.annotations.clone(),
        runtime_handler: sandbox.meta.requested_handler.clone(),
    }
}

fn matches(item: &v1::PodSandbox, filter: &v1::PodSandboxFilter) -> bool {
    item.id.starts_with(&filter.id)
        && filter.state.as_ref().is_none_or(|wanted| wanted.state == item.state)
        && selects(&filter.label_selector, &item.labels)
}

/// Whether the labels hold every pair of the selector.
pub(crate) fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As long as every pair of the selector is there, whatever else there is; and no longer.
        #[test]
        fn a_selector_is_a_part_of_the_labels(
            labels in prop::collection::hash_map("[ab]{0,2}", "[01]?", 0..5),
            selector in prop::collection::hash_map("[ab]{0,2}", "[01]?", 0..4),
        ) {
            let together = labels.clone().into_iter().chain(selector.clone()).collect::<HashMap<_, _>>();
            prop_assert_eq!(selects(&selector, &labels), together == labels);
            prop_assert!(selects(&labels, &labels) && selects(&HashMap::new(), &labels));
        }

        #[test]
        fn an_id_fits_its_own_beginnings_alone(id in "[0-9a-f]{1,8}", asked in "[0-9a-f]{0,8}", cut in 0..9usize) {
            let item = v1::PodSandbox { id: id.clone(), ..Default::default() };
            let filter = |id: &str| v1::PodSandboxFilter { id: id.to_owned(), ..Default::default() };
            prop_assert!(matches(&item, &filter(&id[..cut.min(id.len())])));
            let fits = (0..=id.len()).any(|length| id[..length] == asked);
            prop_assert_eq!(matches(&item, &filter(&asked)), fits);
        }
    }

    #[test]
    fn conditions_are_all_needed() {
        let item = v1::PodSandbox {
            id: "abcd".into(),
            state: v1::PodSandboxState::SandboxReady as i32,
            labels: HashMap::from([("app".into(), "web".into())]),
            ..Default::default()
        };
        let filter = |id: &str, state: Option<v1::PodSandboxState>, label: Option<(&str, &str)>| {
            v1::PodSandboxFilter {
                id: id.into(),
                state: state.map(|state| v1::PodSandboxStateValue { state: state as i32 }),
                label_selector: label.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            }
        };
        use v1::PodSandboxState::{SandboxNotready, SandboxReady};
        assert!(matches(&item, &filter("", None, None)));
        assert!(matches(&item, &filter("ab", Some(SandboxReady), Some(("app", "web")))));
        assert!(!matches(&item, &filter("b", Some(SandboxReady), Some(("app", "web")))));
        assert!(!matches(&item, &filter("ab", Some(SandboxNotready), Some(("app", "web")))));
        assert!(!matches(&item, &filter("ab", Some(SandboxReady), Some(("app", "db")))));
    }
}
