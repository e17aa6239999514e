// SPDX-License-Identifier: Apache-2.0
//! The specs of critest that do not pass, each with its reason. Nothing else may fail or be skipped; what is
//! listed and passes is an error too, so that the list only shrinks.
//!
//! Not listed, because critest does not even name them here: SELinux (it looks whether the kernel has it before
//! it makes those specs), and its benchmarks.

/// What becomes of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// We do not let it run (`--all` does).
    LeftOut,
    /// It skips itself: by what the runtime says of itself.
    Skips,
    /// It skips itself, or passes: by what the machine is.
    MaySkip,
    /// It runs and fails.
    #[cfg_attr(not(test), expect(dead_code, reason = "nothing fails; how to say so stays"))]
    Fails,
}

/// Some specs, and why they do not pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// A part of the specs' full names.
    pub(crate) spec: &'static str,
    pub(crate) outcome: Outcome,
    /// Only on these runtimes: name, and how the version begins. Empty: on all.
    pub(crate) only: &'static [(&'static str, &'static str)],
    pub(crate) reason: &'static str,
}

// === impl Expected ===

impl Expected {
    /// Whether it is about a spec, with this runtime of this version.
    pub(crate) fn is_about(&self, name: &str, handler: &str, version: &str) -> bool {
        name.contains(self.spec) && self.holds_for(handler, version)
    }

    pub(crate) fn holds_for(&self, handler: &str, version: &str) -> bool {
        self.only.is_empty()
            || self.only.iter().any(|(name, start)| *name == handler && begins(version, start))
    }
}

/// `1.1.5` is the beginning of `1.1.5+ds1`, not of `1.1.50`.
fn begins(version: &str, start: &str) -> bool {
    version.strip_prefix(start).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

const ANY: &[(&str, &str)] = &[];

/// The list.
pub(crate) const EXPECTED: [Expected; 5] = [
    Expected {
        spec: "public image with digest should be pulled and removed",
        outcome: Outcome::LeftOut,
        only: ANY,
        reason: "the image is named by a digest, which no stand-in can have",
    },
    Expected {
        spec: "[k8s.io] AppArmor ",
        outcome: Outcome::MaySkip,
        only: ANY,
        reason: "the kernel of this machine has no AppArmor",
    },
    Expected { spec: "[k8s.io] NRI ", outcome: Outcome::Skips, only: ANY, reason: "NRI is not served yet" },
    Expected {
        spec: "runtime should support metrics operations",
        outcome: Outcome::Skips,
        only: ANY,
        reason: "ListMetricDescriptors and ListPodSandboxMetrics are not served yet",
    },
    Expected {
        spec: "[k8s.io] Security Context UserNamespaces ",
        outcome: Outcome::Skips,
        only: &[("runc", "1.1.5"), ("crun", "1.8.1")],
        reason: "this old runtime cannot map the ids of mounts",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_by_whole_numbers() {
        assert!(begins("1.1.5", "1.1.5") && begins("1.1.5+ds1", "1.1.5"));
        assert!(!begins("1.1.50", "1.1.5") && !begins("1.2.1", "1.1.5"));
    }

    #[test]
    fn no_two_entries_are_about_one_spec_and_each_has_a_reason() {
        for (index, entry) in EXPECTED.iter().enumerate() {
            assert!(!entry.reason.is_empty() && !entry.spec.is_empty());
            for other in &EXPECTED[index + 1..] {
                assert!(
                    !entry.spec.contains(other.spec) && !other.spec.contains(entry.spec),
                    "{}",
                    entry.spec
                );
            }
        }
    }
}
