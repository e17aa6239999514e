// SPDX-License-Identifier: Apache-2.0
//! What a process in a simulated container does: a handful of words.

use std::time::Duration;

/// One step of a simulated process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Writes to stdout.
    Print(String),
    /// Writes to stderr.
    Complain(String),
    /// Writes to stdout for ever.
    Repeat(String),
    /// Copies its input to stdout.
    Copy,
    /// Tells the size of its terminal; without one, ends with 1.
    Size,
    /// Does what the lines of its input say.
    Shell,
    /// Is ended by SIGKILL alone from here on.
    Deaf,
    /// Lets time pass.
    Sleep(Duration),
    /// Ends here with this code.
    Exit(i32),
}

/// What the arguments do; `None` for a path, which a simulated root file system does not have.
///
/// Known are `echo WORDS`, also with `>&2`, `true`, `false`, `sleep SECONDS`, `cat`, `yes`, `stty size`; `sh`, which
/// reads lines; and in `sh -c "A; B"` also `exit CODE`, `trap '' SIGNALS` (of all but SIGKILL), and `A &` (nothing:
/// it goes on by itself). Other words end with 127, as in a shell.
pub(super) fn plan(args: &[String]) -> Option<Vec<Step>> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut steps = match words.as_slice() {
        ["sh" | "/bin/sh", "-c", script] => script_steps(script),
        ["sh" | "/bin/sh"] => vec![Step::Shell],
        [program, ..] if program.contains('/') => return None,
        words => vec![step(words)],
    };
    // A process without an end of its own ends well.
    steps.push(Step::Exit(0));
    Some(steps)
}

/// What a line does that a shell reads.
pub(super) fn plan_line(line: &str) -> Vec<Step> {
    script_steps(line)
}

fn script_steps(script: &str) -> Vec<Step> {
    // The only `&` that does not end a command.
    const TO_STDERR: &str = ">\u{1}2";
    let script = script.replace(">&2", TO_STDERR);
    let mut steps = Vec::new();
    let mut parts = script.split_inclusive([';', '&', '\n']).peekable();
    while let Some(part) = parts.next() {
        let background = part.ends_with('&');
        let part = part.trim_end_matches([';', '&', '\n']).replace(TO_STDERR, ">&2");
        let words: Vec<&str> = part.split_whitespace().collect();
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
        ["echo", words @ .., ">&2"] => Step::Complain(format!("{}\n", words.join(" "))),
        ["echo", words @ ..] => Step::Print(format!("{}\n", words.join(" "))),
        ["cat"] => Step::Copy,
        ["yes"] => Step::Repeat("y\n".to_owned()),
        ["stty", "size"] => Step::Size,
        ["trap", ..] => Step::Deaf,
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
            (&["sh", "-c", "echo a >&2; echo b"], vec![Step::Complain("a\n".to_owned()), print("b\n")]),
            (&["sh", "-c", "trap '' TERM; cat"], vec![Step::Deaf, Step::Copy]),
            (&["sh"], vec![Step::Shell]),
            (&["stty", "size"], vec![Step::Size]),
            (&["frobnicate"], vec![Step::Exit(127)]),
        ] {
            let mut expected = steps;
            expected.push(Step::Exit(0));
            assert_eq!(plan_of(words), Some(expected), "{words:?}");
        }
        assert_eq!(plan_of(&["/no/such"]), None);
    }
}
