// SPDX-License-Identifier: Apache-2.0
//! Compares what critest did with what is expected of it.
//!
//! ```text
//! spec        expected: nothing   LeftOut       Skips     MaySkip   Fails
//! passed      fine                error         error     fine      error    (the entry has had its day)
//! skipped     error               error         fine      fine      error
//! left out    error               fine          error     error     error    (with --focus: not counted)
//! failed      error               fine          error     error     fine
//! ```

use super::expected::{Expected, Outcome};
use super::report::{Report, State};
use crate::go::CRI_TOOLS;

/// Who was tested.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) handler: &'a str,
    /// Of the runtime.
    pub(crate) version: &'a str,
    /// Whether only some of the specs were to run.
    pub(crate) in_part: bool,
}

/// What is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// Names of specs by the reason why they did not pass, in the order of the list.
    pub(crate) reasons: Vec<(String, Vec<String>)>,
    /// What must not be.
    pub(crate) problems: Vec<String>,
}

// === impl Verdict ===

impl Verdict {
    /// Judges a report.
    pub(crate) fn of(report: &Report, expected: &[Expected], subject: Subject<'_>) -> Self {
        let mut verdict = Self { problems: report.problems.clone(), ..Self::default() };
        let mut used = vec![false; expected.len()];
        // critest lists its benchmarks and leaves them out by itself.
        for spec in report.specs.iter().filter(|spec| !spec.name.contains(" benchmark ")) {
            let entry = expected
                .iter()
                .position(|entry| entry.is_about(&spec.name, subject.handler, subject.version));
            if let Some(index) = entry {
                used[index] = true;
            }
            verdict.spec(&spec.name, &spec.state, entry.map(|index| &expected[index]), subject.in_part);
        }
        for (entry, used) in expected.iter().zip(used) {
            if !used && !subject.in_part && entry.holds_for(subject.handler, subject.version) {
                let spec = entry.spec;
                verdict.problems.push(format!("expected.rs: critest {CRI_TOOLS} has no spec {spec:?}"));
            }
        }
        verdict
    }

    fn spec(&mut self, name: &str, state: &State, entry: Option<&Expected>, in_part: bool) {
        let outcome = entry.map(|entry| entry.outcome);
        let fine = match state {
            State::LeftOut if in_part => return,
            State::Passed => {
                self.passed += 1;
                if matches!(outcome, None | Some(Outcome::MaySkip)) {
                    return;
                }
                let problem = format!("passes: take it off the list in expected.rs: {name}");
                return self.problems.push(problem);
            }
            State::Skipped(_) => matches!(outcome, Some(Outcome::Skips | Outcome::MaySkip)),
            State::LeftOut => outcome == Some(Outcome::LeftOut),
            State::Failed(_) => matches!(outcome, Some(Outcome::LeftOut | Outcome::Fails)),
        };
        let (word, said) = match state {
            State::Failed(message) => {
                self.failed += 1;
                ("FAILED", message.as_str())
            }
            State::Skipped(message) => {
                self.skipped += 1;
                ("skipped", message.as_str())
            }
            _ => {
                self.skipped += 1;
                ("left out", "")
            }
        };
        match entry {
            Some(entry) if fine => self.because(&format!("{word}: {}", entry.reason), name),
            _ => self.problems.push(format!("{word}: {name}\n{said}")),
        }
    }

    fn because(&mut self, reason: &str, name: &str) {
        match self.reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, names)) => names.push(name.to_owned()),
            None => self.reasons.push((reason.to_owned(), vec![name.to_owned()])),
        }
    }

    /// Prints all of it but the last line.
    pub(crate) fn print(&self) {
        for (reason, names) in &self.reasons {
            println!("\n{reason}");
            names.iter().for_each(|name| println!("    {name}"));
        }
        for problem in &self.problems {
            println!("\n{}", problem.trim_end().replace('\n', "\n    "));
        }
    }

    /// The last line.
    pub(crate) fn line(&self, handler: &str) -> String {
        let Self { passed, failed, skipped, .. } = self;
        format!("conformance {handler}: {passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Spec;
    use super::*;

    const ALL: Subject<'static> = Subject { handler: "runc", version: "1.1.5", in_part: false };

    fn judge(state: State, outcome: Option<Outcome>, subject: Subject<'_>) -> Verdict {
        let report = Report { specs: vec![Spec { name: "a b c".to_owned(), state }], ..Report::default() };
        let entry = |outcome| Expected { spec: "b c", outcome, only: &[("runc", "1.1.5")], reason: "why" };
        Verdict::of(&report, &outcome.map(entry).into_iter().collect::<Vec<_>>(), subject)
    }

    #[test]
    fn the_table_holds() {
        use Outcome::{Fails, LeftOut, MaySkip, Skips};
        let columns = [None, Some(LeftOut), Some(Skips), Some(MaySkip), Some(Fails)];
        let rows = [
            (State::Passed, [true, false, false, true, false]),
            (State::Skipped("it says".to_owned()), [false, false, true, true, false]),
            (State::LeftOut, [false, true, false, false, false]),
            (State::Failed("boom".to_owned()), [false, true, false, false, true]),
        ];
        for (state, fine) in rows {
            for (outcome, fine) in columns.into_iter().zip(fine) {
                let verdict = judge(state.clone(), outcome, ALL);
                assert_eq!(verdict.problems.is_empty(), fine, "{state:?} {outcome:?}: {verdict:?}");
                assert_eq!(verdict.passed + verdict.failed + verdict.skipped, 1);
            }
        }
    }

    #[test]
    fn a_newer_runtime_has_no_excuse() {
        let newer = Subject { version: "1.2.0", ..ALL };
        let verdict = judge(State::Skipped("no user namespaces".to_owned()), Some(Outcome::Skips), newer);
        assert_eq!(verdict.problems, ["skipped: a b c\nno user namespaces"]);
        assert!(judge(State::Passed, Some(Outcome::Skips), newer).problems.is_empty());
    }

    #[test]
    fn an_entry_without_a_spec_is_told_unless_only_some_ran() {
        let entry = [Expected { spec: "x", outcome: Outcome::Skips, only: &[], reason: "why" }];
        let verdict = Verdict::of(&Report::default(), &entry, ALL);
        assert!(verdict.problems[0].contains("no spec \"x\""), "{verdict:?}");
        let verdict = Verdict::of(&Report::default(), &entry, Subject { in_part: true, ..ALL });
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn reasons_are_told_once_with_all_their_specs() {
        let verdict = judge(State::LeftOut, Some(Outcome::LeftOut), ALL);
        assert_eq!(verdict.reasons, [("left out: why".to_owned(), vec!["a b c".to_owned()])]);
        assert_eq!(verdict.line("runc"), "conformance runc: 0 passed, 0 failed, 1 skipped");
    }
}
