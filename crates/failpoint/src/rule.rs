// SPDX-License-Identifier: Apache-2.0
//! The mini-language of rules; pure.

use std::fmt;
use std::time::Duration;

/// What a point does when it is hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Off,
    /// Returns an `io::Error` of kind `Other` with this text.
    Error(String),
    /// Returns the system's error of this number.
    Errno(i32),
    /// Waits.
    Delay(Duration),
    /// Ends the process with SIGKILL.
    Kill,
}

/// One rule: what the point `name` does, hit by hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The point.
    pub name: String,
    /// Actions with the number of hits each is used for; `None` is for ever.
    pub terms: Vec<(Option<u32>, Action)>,
}

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    text: String,
    wrong: &'static str,
}

/// Reads `name=term->term;name=term`.
///
/// # Errors
/// [`ParseError`] names the part that cannot be read.
pub fn parse_rules(text: &str) -> Result<Vec<Rule>, ParseError> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(parse_rule).collect()
}

// === impl Rule ===

impl Rule {
    /// Uses up one hit and returns what to do.
    pub fn take(&mut self) -> Action {
        while let Some((count, action)) = self.terms.first_mut() {
            match count {
                None => return action.clone(),
                Some(0) => {
                    self.terms.remove(0);
                }
                Some(left) => {
                    *left -= 1;
                    return action.clone();
                }
            }
        }
        Action::Off
    }
}

// === impl ParseError ===

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failpoint rule `{}`: {}", self.text, self.wrong)
    }
}

impl std::error::Error for ParseError {}

fn parse_rule(text: &str) -> Result<Rule, ParseError> {
    let fail = |wrong| ParseError { text: text.to_owned(), wrong };
    let (name, terms) = text.split_once('=').ok_or_else(|| fail("expected NAME=ACTION"))?;
    if name.is_empty() {
        return Err(fail("the name is empty"));
    }
    let terms =
        terms.split("->").map(|term| parse_term(term.trim()).map_err(fail)).collect::<Result<_, _>>()?;
    Ok(Rule { name: name.trim().to_owned(), terms })
}

fn parse_term(text: &str) -> Result<(Option<u32>, Action), &'static str> {
    let (count, action) = match text.split_once('*') {
        Some((count, action)) if !count.contains('(') => {
            (Some(count.parse().map_err(|_| "the count is not a number")?), action)
        }
        _ => (None, text),
    };
    let argument = |name: &str| action.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    let action = match action {
        "off" => Action::Off,
        "enospc" => Action::Errno(28),
        "kill" => Action::Kill,
        _ => {
            if let Some(text) = argument("error") {
                Action::Error(text.to_owned())
            } else if let Some(time) = argument("delay") {
                Action::Delay(parse_time(time.trim())?)
            } else if let Some(name) = argument("errno") {
                Action::Errno(errno(name.trim())?)
            } else {
                return Err(
                    "unknown action; known: off, error(TEXT), errno(NAME), enospc, delay(NUMBERms), delay(NUMBERs), kill",
                );
            }
        }
    };
    Ok((count, action))
}

fn parse_time(text: &str) -> Result<Duration, &'static str> {
    let wrong = "expected delay(NUMBERms) or delay(NUMBERs)";
    let number = |digits: &str| digits.trim_end().parse::<u64>().map_err(|_| wrong);
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => Ok(Duration::from_millis(number(digits)?)),
        (None, Some(digits)) => Ok(Duration::from_secs(number(digits)?)),
        (None, None) => Err(wrong),
    }
}

/// What a machine that runs out of something says.
fn errno(name: &str) -> Result<i32, &'static str> {
    match name.to_ascii_lowercase().as_str() {
        "enospc" => Ok(28),
        "erofs" => Ok(30),
        "eio" => Ok(5),
        "eagain" => Ok(11),
        "enomem" => Ok(12),
        "emfile" => Ok(24),
        "enfile" => Ok(23),
        "edquot" => Ok(122),
        _ => Err("unknown errno; known: enospc, erofs, eio, eagain, enomem, emfile, enfile, edquot"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_action() {
        let rules =
            parse_rules("a=1*error(x y)->2*delay(50ms)->delay(2s)->off; b=kill;c=enospc;d=errno(EMFILE)")
                .unwrap();
        assert_eq!(
            rules[0].terms,
            [
                (Some(1), Action::Error("x y".into())),
                (Some(2), Action::Delay(Duration::from_millis(50))),
                (None, Action::Delay(Duration::from_secs(2))),
                (None, Action::Off)
            ]
        );
        assert_eq!(rules[1].terms, [(None, Action::Kill)]);
        assert_eq!(rules[2].terms, [(None, Action::Errno(28))]);
        assert_eq!(rules[3].terms, [(None, Action::Errno(24))]);
    }

    #[test]
    fn terms_are_used_up_in_order() {
        let mut rule = parse_rules("a=2*off->1*kill").unwrap().remove(0);
        let taken: Vec<_> = (0..4).map(|_| rule.take()).collect();
        assert_eq!(taken, [Action::Off, Action::Off, Action::Kill, Action::Off]);
    }

    #[test]
    fn refuses_nonsense_and_says_what() {
        for (text, part) in [
            ("a", "NAME=ACTION"),
            ("=kill", "name is empty"),
            ("a=x*kill", "not a number"),
            ("a=boom", "unknown action"),
            ("a=delay(1)", "delay(NUMBERms)"),
            ("a=delay(1h)", "delay(NUMBERs)"),
            ("a=errno(EPARTY)", "unknown errno"),
            ("a=kill->", "unknown action"),
        ] {
            assert!(parse_rules(text).unwrap_err().to_string().contains(part), "{text}");
        }
    }
}
