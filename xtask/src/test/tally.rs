// SPDX-License-Identifier: Apache-2.0
//! Counting what test binaries print.
//!
//! ```text
//! test NAME ... ok                                       one test
//! test result: ok. 12 passed; 0 failed; 1 ignored; ...   one binary
//! real-runtime: runc ok NAME                             one check on a real runtime, from hull-tests
//! ```

/// Counts over all binaries.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
    pub(crate) real_runtime: RealRuntime,
    problems: Vec<String>,
    leaks: Vec<String>,
    current: Current,
}

/// Checks that ran on a real runtime.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RealRuntime {
    pub(crate) runc: usize,
    pub(crate) crun: usize,
    /// A runc of today, beside the installed one.
    pub(crate) runc_current: usize,
}

/// The binary that runs now.
#[derive(Debug, Default)]
struct Current {
    results: usize,
    failed: usize,
    /// Whether it prints `real-runtime:` lines: then the names of its tests are not counted as well.
    prints_real: bool,
    /// Its passed tests that have a runtime's name in theirs.
    named: RealRuntime,
    /// Contract suites of the crates that drive a runtime, on the real programs.
    on_real_runtime: bool,
}

impl RealRuntime {
    pub(crate) fn ran_on_both(self) -> bool {
        self.runc > 0 && self.crun > 0
    }

    fn add(&mut self, other: Self) {
        self.runc += other.runc;
        self.crun += other.crun;
        self.runc_current += other.runc_current;
    }
}

impl Tally {
    /// A binary is about to run.
    pub(crate) fn begin(&mut self, label: &str) {
        self.settle();
        let (package, name) = label.split_once('/').unwrap_or((label, ""));
        let on_real_runtime =
            ["oci-runtime", "conmon-client"].contains(&package) && name.starts_with("root_");
        self.current = Current { on_real_runtime, ..Current::default() };
    }

    /// Takes one line that the binary printed.
    pub(crate) fn line(&mut self, line: &str) {
        // Tests write these lines past libtest's capture, maybe in the middle of one of its own.
        if let Some((_, rest)) = line.split_once("real-runtime: ") {
            self.real_runtime.add(one(|runtime| rest.starts_with(&format!("{runtime} ok "))));
            self.current.prints_real = true;
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.current.results += 1;
            self.passed += number_before(rest, " passed");
            self.ignored += number_before(rest, " ignored");
            let failed = number_before(rest, " failed");
            self.failed += failed;
            self.current.failed += failed;
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... ok")) {
            let words = name.split(|c: char| !c.is_ascii_alphanumeric());
            self.current.named.add(one(|runtime| words.clone().any(|word| word == runtime)));
        }
    }

    /// The binary that runs ended with this status.
    pub(crate) fn ended_badly(&mut self, label: &str, status: &str) {
        // A failed test is counted by its own line; a crash has none.
        if self.current.failed == 0 {
            self.problems.push(format!("{label}: {status}"));
        }
    }

    /// Something other than a test failed.
    pub(crate) fn broken(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// A suite left something behind.
    pub(crate) fn leak(&mut self, label: &str, difference: Vec<String>) {
        self.problems.push(format!("{label} left {} thing(s) behind or took them away", difference.len()));
        self.leaks = difference;
    }

    /// Whether all of this was told already, of an earlier suite.
    pub(crate) fn is_known_leak(&self, difference: &[String]) -> bool {
        difference.iter().all(|line| self.leaks.contains(line))
    }

    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The last binary has ended: what is known of it is added up.
    pub(crate) fn settle(&mut self) {
        let current = std::mem::take(&mut self.current);
        if current.on_real_runtime && !current.prints_real {
            self.real_runtime.add(current.named);
        }
    }
}

fn one(is: impl Fn(&str) -> bool) -> RealRuntime {
    let count = |runtime| usize::from(is(runtime));
    RealRuntime { runc: count("runc"), crun: count("crun"), runc_current: count("runc-current") }
}

/// The number that stands right before `word`; 0 if there is none.
fn number_before(text: &str, word: &str) -> usize {
    text.find(word)
        .and_then(|at| text[..at].rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(label: &str, lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        tally.begin(label);
        for line in lines {
            tally.line(line);
        }
        tally.settle();
        tally
    }

    #[test]
    fn results_are_added_up() {
        let tally = tally(
            "record/hull_record",
            &[
                "running 3 tests",
                "test a ... ok",
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
            ],
        );
        assert_eq!((tally.passed, tally.failed, tally.ignored), (14, 3, 1));
        assert_eq!(tally.real_runtime, RealRuntime::default());
    }

    #[test]
    fn checks_on_real_runtimes_are_counted_by_what_the_suites_say() {
        let tally = tally(
            "tests/root_pods",
            &[
                "test pod_life_runc ... real-runtime: runc ok pod life",
                "real-runtime: crun ok pod life",
                "real-runtime: runc failed something",
                "real-runtime: runc-current ok pod life",
                "test exec_runc ... ok",
            ],
        );
        assert_eq!(tally.real_runtime, RealRuntime { runc: 1, crun: 1, runc_current: 1 });
    }

    #[test]
    fn contract_suites_on_real_programs_are_counted_by_their_names() {
        let lines = ["test contract::lifecycle_on_runc ... ok", "test crun_kill ... ok", "test parse ... ok"];
        let expected = RealRuntime { runc: 1, crun: 1, runc_current: 0 };
        assert_eq!(tally("oci-runtime/root_cli", &lines).real_runtime, expected);
        assert_eq!(tally("oci-runtime/hull_oci_runtime", &lines).real_runtime, RealRuntime::default());
    }

    #[test]
    fn a_crash_is_a_problem_and_a_failed_test_is_not_counted_twice() {
        let mut crashed = tally("a/b", &[]);
        crashed.ended_badly("a/b", "signal: 11");
        assert_eq!(crashed.problems(), ["a/b: signal: 11"]);
        let mut failed = Tally::default();
        failed.begin("a/b");
        failed.line("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        failed.ended_badly("a/b", "exit status: 101");
        assert!(failed.problems().is_empty());
    }

    #[test]
    fn the_same_leak_is_told_once() {
        let mut tally = Tally::default();
        tally.leak("a/b", vec!["+ link: x".to_owned()]);
        assert!(tally.is_known_leak(&["+ link: x".to_owned()]));
        assert!(!tally.is_known_leak(&["+ link: x".to_owned(), "+ mount: y".to_owned()]));
    }
}
