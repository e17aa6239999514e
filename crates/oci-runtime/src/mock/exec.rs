// SPDX-License-Identifier: Apache-2.0
//! What a process in a simulated container does: a handful of words.

use std::time::Duration;

/// One step of a simulated process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes to stdout.
    Print(String),
    /// Lets time pass.
    Sleep(Duration),
    /// Ends here with this code.
    Exit(i32),
}

/// What the arguments do; `None` for a path, which a simulated root file system does not have.
///
/// Known are `echo WORDS`, `true`, `false`, `sleep SECONDS`, `exit CODE` inside `sh -c "A; B"`, and `A &`
/// inside it (nothing: it goes on by itself). Other words end with 127, as in a shell.
pub(super) fn plan(args: &[String]) -> Option<Vec<Step>> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut steps = match words.as_slice() {
        ["sh" | "/bin/sh", "-c", script] => script_steps(script),
        [program, ..] if program.contains('/') => return None,
        words => vec![step(words)],
    };
    // A process without an end of its own ends well.
    steps.push(Step::Exit(0));
    Some(steps)
}

fn script_steps(script: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut parts = script.split_inclusive([';', '&', '\n']).peekable();
    while let Some(part) = parts.next() {
        let background = part.ends_with('&');
        let words: Vec<&str> = part.trim_end_matches([';', '&', '\n']).split_whitespace().collect();
        if words.is_empty() || background {
            continue;
        }
        match step(&words) {
            // The shell goes on after a command that fails, unless it is the last.
            Step::Exit(_) if words[0] != "exit" && parts.peek().is_some() => {}
            step => steps.push(step),
        }
    }
    steps
}

fn step(words: &[&str]) -> Step {
    match words {
        ["echo", words @ ..] => Step::Print(format!("{}\n", words.join(" "))),
        ["true"] => Step::Exit(0),
        ["false"] => Step::Exit(1),
        ["sleep", time] => match time.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
            Some(time) => Step::Sleep(time),
            None => Step::Exit(1),
        },
        ["exit", code] => Step::Exit(code.parse().unwrap_or(2) & 0xff),
        _ => Step::Exit(127),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(words: &[&str]) -> Option<Vec<Step>> {
        plan(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn knows_its_words() {
        let print = |text: &str| Step::Print(text.to_owned());
        for (words, steps) in [
            (&["echo", "a", "b"][..], vec![print("a b\n")]),
            (&["true"], vec![Step::Exit(0)]),
            (&["false"], vec![Step::Exit(1)]),
            (&["sleep", "0.5"], vec![Step::Sleep(Duration::from_millis(500))]),
            (&["sleep", "-1"], vec![Step::Exit(1)]),
            (&["sh", "-c", "exit 7"], vec![Step::Exit(7)]),
            (&["sh", "-c", "setsid sleep 9 & echo x; false; exit 2"], vec![print("x\n"), Step::Exit(2)]),
            (&["frobnicate"], vec![Step::Exit(127)]),
        ] {
            let mut expected = steps;
            expected.push(Step::Exit(0));
            assert_eq!(plan_of(words), Some(expected), "{words:?}");
        }
        assert_eq!(plan_of(&["/no/such"]), None);
    }
}
