// SPDX-License-Identifier: Apache-2.0
//! New limits for a container that exists. Pure.
//!
//! ```text
//!   limits before  +  what is given (zero: as before)  =  limits after  -->  what the runtime is told
//! ```
//! The runtime is always told all of the limits after, not only what changed: runtimes remember what they
//! were told last, and that may be an update which failed later on.

use hull_cri_api::v1;
use oci_spec::runtime::LinuxResources;

use super::{HandlerFacts, NodeFacts, SpecError, resources};

/// What an update comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The limits after it.
    pub after: v1::LinuxContainerResources,
    /// What the runtime is told; huge pages are not in it, because runc would not change them.
    pub document: LinuxResources,
    /// Huge pages: size and bytes.
    pub hugepages: Vec<(String, u64)>,
}

/// Checks and merges. Errors name the field, as for a new container.
pub fn update(
    before: &v1::LinuxContainerResources,
    given: &v1::LinuxContainerResources,
    facts: &NodeFacts,
    handler: &HandlerFacts,
) -> Result<Update, SpecError> {
    // What is given has to be right by itself, too: -5 must not hide behind "as before".
    let after = merge(before, given);
    let mut document = resources::limits(&after, facts, handler)?;
    let hugepages = match document.hugepage_limits() {
        Some(limits) if !given.hugepage_limits.is_empty() => limits
            .iter()
            .map(|it| (it.page_size().clone(), u64::try_from(it.limit()).unwrap_or(u64::MAX)))
            .collect(),
        _ => Vec::new(),
    };
    document.set_hugepage_limits(None);
    endless(&mut document, &after, facts);
    Ok(Update { after, document, hugepages })
}

/// What takes an update back, as far as the runtime remembers it: the limits before, and "none" where there
/// was none.
pub fn undo(
    before: &v1::LinuxContainerResources,
    update: &Update,
    facts: &NodeFacts,
    handler: &HandlerFacts,
) -> Result<LinuxResources, SpecError> {
    let set = |now: i64, was: i64| now != 0 && was == 0;
    let mut want = before.clone();
    let after = &update.after;
    if set(after.cpu_quota, want.cpu_quota) {
        want.cpu_quota = -1;
    }
    if set(after.memory_limit_in_bytes, want.memory_limit_in_bytes) {
        want.memory_limit_in_bytes = -1;
    }
    if set(after.cpu_period, want.cpu_period) {
        want.cpu_period = DEFAULT_PERIOD;
    }
    if set(after.cpu_shares, want.cpu_shares) {
        want.cpu_shares = DEFAULT_SHARES;
    }
    let mut document = resources::limits(&want, facts, handler)?;
    document.set_hugepage_limits(None);
    endless(&mut document, &want, facts);
    Ok(document)
}

/// Puts limits into a written spec, which is as it was when the container was made: for who looks at it.
pub fn show(
    spec: &mut serde_json::Value,
    limits: &v1::LinuxContainerResources,
    facts: &NodeFacts,
    handler: &HandlerFacts,
) {
    let Some(shown) = spec.pointer_mut("/linux/resources").and_then(|it| it.as_object_mut()) else { return };
    let document = resources::limits(limits, facts, handler).and_then(|document| {
        serde_json::to_value(document)
            .map_err(|error| SpecError::invalid("linux.resources", error.to_string()))
    });
    let Ok(serde_json::Value::Object(document)) = document else { return };
    for key in ["cpu", "memory", "hugepageLimits", "unified"] {
        match document.get(key).filter(|value| !value.is_null()) {
            Some(value) => shown.insert(key.to_owned(), value.clone()),
            None => shown.remove(key),
        };
    }
}

/// The kernel's values for a cgroup that nobody has limited.
const DEFAULT_PERIOD: i64 = 100_000;
const DEFAULT_SHARES: i64 = 1024;

fn merge(
    before: &v1::LinuxContainerResources,
    given: &v1::LinuxContainerResources,
) -> v1::LinuxContainerResources {
    let number = |was: i64, new: i64| if new == 0 { was } else { new };
    let text = |was: &String, new: &String| if new.is_empty() { was.clone() } else { new.clone() };
    let mut hugepage_limits = before.hugepage_limits.clone();
    for limit in &given.hugepage_limits {
        hugepage_limits.retain(|it| it.page_size != limit.page_size);
        hugepage_limits.push(limit.clone());
    }
    let mut unified = before.unified.clone();
    unified.extend(given.unified.clone());
    v1::LinuxContainerResources {
        cpu_period: number(before.cpu_period, given.cpu_period),
        cpu_quota: number(before.cpu_quota, given.cpu_quota),
        cpu_shares: number(before.cpu_shares, given.cpu_shares),
        memory_limit_in_bytes: number(before.memory_limit_in_bytes, given.memory_limit_in_bytes),
        // It counts memory and swap: it follows the memory unless it is told.
        memory_swap_limit_in_bytes: match given.memory_limit_in_bytes {
            0 => number(before.memory_swap_limit_in_bytes, given.memory_swap_limit_in_bytes),
            _ => given.memory_swap_limit_in_bytes,
        },
        // Belongs to the process, which runs already.
        oom_score_adj: before.oom_score_adj,
        cpuset_cpus: text(&before.cpuset_cpus, &given.cpuset_cpus),
        cpuset_mems: text(&before.cpuset_mems, &given.cpuset_mems),
        hugepage_limits,
        unified,
    }
}

/// -1 is nothing to say for a new container, but takes a limit from one that has it.
fn endless(document: &mut LinuxResources, after: &v1::LinuxContainerResources, facts: &NodeFacts) {
    if after.cpu_quota == -1 {
        let mut cpu = document.cpu().clone().unwrap_or_default();
        cpu.set_quota(Some(-1));
        document.set_cpu(Some(cpu));
    }
    if after.memory_limit_in_bytes == -1 {
        let mut memory = document.memory().unwrap_or_default();
        memory.set_limit(Some(-1));
        if facts.swap_accounting {
            memory.set_swap(Some(-1));
        }
        document.set_memory(Some(memory));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::spec::tests::facts;

    fn shown(document: &LinuxResources) -> serde_json::Value {
        let mut value = serde_json::to_value(document).unwrap();
        // The library writes what is absent as null.
        fn prune(value: &mut serde_json::Value) {
            if let serde_json::Value::Object(map) = value {
                map.values_mut().for_each(prune);
                map.retain(|_, value| !value.is_null());
            }
        }
        prune(&mut value);
        value
    }

    fn some(cpu_quota: i64, memory: i64, swap: i64) -> v1::LinuxContainerResources {
        v1::LinuxContainerResources {
            cpu_quota,
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            ..Default::default()
        }
    }

    #[test]
    fn what_the_runtime_is_told() {
        const M: i64 = 1 << 20;
        let with_swap = NodeFacts { swap_accounting: true, ..facts() };
        let rows = [
            // Nothing given changes nothing, but is told again.
            (
                some(5000, 64 * M, 0),
                some(0, 0, 0),
                json!({"cpu": {"quota": 5000}, "memory": {"limit": 64 * M, "swap": 64 * M}}),
            ),
            // Swap follows the memory unless it is told.
            (
                some(0, 64 * M, 80 * M),
                some(0, 128 * M, 0),
                json!({"memory": {"limit": 128 * M, "swap": 128 * M}}),
            ),
            (
                some(0, 64 * M, 80 * M),
                some(0, 72 * M, 96 * M),
                json!({"memory": {"limit": 72 * M, "swap": 96 * M}}),
            ),
            (some(0, 64 * M, 0), some(0, 0, 96 * M), json!({"memory": {"limit": 64 * M, "swap": 96 * M}})),
            // -1 takes away.
            (
                some(5000, 64 * M, 0),
                some(-1, -1, 0),
                json!({"cpu": {"quota": -1}, "memory": {"limit": -1, "swap": -1}}),
            ),
            (some(-1, 0, 0), some(700, 0, 0), json!({"cpu": {"quota": 700}})),
        ];
        for (before, given, expected) in rows {
            let update = update(&before, &given, &with_swap, &HandlerFacts::default()).unwrap();
            assert_eq!(shown(&update.document), expected, "{before:?} {given:?}");
        }
        let without_swap = NodeFacts { swap_accounting: false, ..facts() };
        let update =
            update(&some(0, 0, 0), &some(0, -1, 0), &without_swap, &HandlerFacts::default()).unwrap();
        assert_eq!(shown(&update.document), json!({"memory": {"limit": -1}}));
    }

    #[test]
    fn lists_and_maps_are_merged_by_key() {
        let node = NodeFacts { hugetlb: true, cgroup: hull_cgroups::Mode::V2, ..facts() };
        let page = |size: &str, limit| v1::HugepageLimit { page_size: size.into(), limit };
        let before = v1::LinuxContainerResources {
            hugepage_limits: vec![page("2MB", 0), page("1GB", 5)],
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            cpuset_cpus: "0-1".into(),
            oom_score_adj: 7,
            ..Default::default()
        };
        let given = v1::LinuxContainerResources {
            hugepage_limits: vec![page("2MB", 4096)],
            unified: [("memory.low".to_owned(), "2".to_owned())].into(),
            cpuset_mems: "0".into(),
            oom_score_adj: 500,
            ..Default::default()
        };
        let update = update(&before, &given, &node, &HandlerFacts::default()).unwrap();
        assert_eq!(update.hugepages, [("1GB".to_owned(), 5), ("2MB".to_owned(), 4096)]);
        assert_eq!(update.after.oom_score_adj, 7, "it belongs to the process");
        let expected = json!({
            "cpu": {"cpus": "0-1", "mems": "0"}, "unified": {"memory.high": "1", "memory.low": "2"},
        });
        assert_eq!(shown(&update.document), expected);
    }

    #[test]
    fn a_spec_is_shown_with_the_limits_of_now() {
        let mut spec =
            json!({"linux": {"resources": {"devices": [1], "cpu": {"quota": 1}, "memory": {"limit": 1}}}});
        show(&mut spec, &some(-1, 64 << 20, 0), &facts(), &HandlerFacts::default());
        let limit = 64 << 20;
        let expected = json!({"devices": [1], "memory": {"limit": limit, "swap": limit}});
        assert_eq!(spec["linux"]["resources"], expected);
        show(&mut json!({}), &some(1, 0, 0), &facts(), &HandlerFacts::default());
    }

    #[test]
    fn what_is_refused_is_named() {
        let rows = [
            (some(-2, 0, 0), "linux.resources.cpu_quota: -2 is negative"),
            (
                some(0, 5, 0),
                "linux.resources.memory_limit_in_bytes: set memory limit 5 too low; should be at least 12582912 bytes",
            ),
        ];
        for (given, message) in rows {
            let error = update(&some(0, 0, 0), &given, &facts(), &HandlerFacts::default()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    proptest! {
        /// Taking an update back tells the runtime something about each number that the update told it.
        #[test]
        fn an_undo_speaks_of_all_that_was_set(
            quota in prop_oneof![Just(0_i64), Just(-1), 1000..9000_i64], was_quota in prop_oneof![Just(0_i64), 1000..9000_i64],
            memory in prop_oneof![Just(0_i64), (16 << 20)..(64_i64 << 20)], was in prop_oneof![Just(0_i64), (16 << 20)..(64_i64 << 20)],
            shares in 0..5_i64,
        ) {
            let before = some(was_quota, was, 0);
            let given = v1::LinuxContainerResources { cpu_shares: shares, ..some(quota, memory, 0) };
            let node = facts();
            let update = update(&before, &given, &node, &HandlerFacts::default()).unwrap();
            let back = shown(&undo(&before, &update, &node, &HandlerFacts::default()).unwrap());
            for path in ["/cpu/quota", "/cpu/shares", "/memory/limit"] {
                if shown(&update.document).pointer(path).is_some() {
                    prop_assert!(back.pointer(path).is_some(), "{} in {}", path, back);
                }
            }
            if was != 0 {
                prop_assert_eq!(back.pointer("/memory/limit"), Some(&json!(was)));
            }
        }
    }
}
