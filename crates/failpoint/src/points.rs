// SPDX-License-Identifier: Apache-2.0
//! The registry of a process in which the points are compiled in.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::rule::{Action, ParseError, Rule, parse_rules};

#[derive(Debug, Default)]
struct Registry {
    rules: HashMap<String, Rule>,
    trace: Option<File>,
}

/// Sets the rules of this process; earlier rules for the same names are replaced.
///
/// # Errors
/// [`ParseError`] when `text` is not in the mini-language.
pub fn configure(text: &str) -> Result<(), ParseError> {
    let rules = parse_rules(text)?;
    let mut registry = registry();
    registry.rules.extend(rules.into_iter().map(|rule| (rule.name.clone(), rule)));
    Ok(())
}

/// Forgets every rule.
pub fn clear() {
    registry().rules.clear();
}

/// A point in blocking code.
pub fn hit(name: &str) -> io::Result<()> {
    match take(name) {
        Action::Delay(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        action => act(name, action),
    }
}

/// A point in async code.
pub async fn hit_async(name: &str) -> io::Result<()> {
    match take(name) {
        Action::Delay(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        action => act(name, action),
    }
}

fn act(name: &str, action: Action) -> io::Result<()> {
    match action {
        Action::Off | Action::Delay(_) => Ok(()),
        Action::Error(text) => Err(io::Error::other(format!("failpoint {name}: {text}"))),
        Action::Errno(number) => Err(io::Error::from_raw_os_error(number)),
        Action::Kill => kill_self(),
    }
}

/// Nothing of this process runs after it: no destructor, no undo.
fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

fn take(name: &str) -> Action {
    let mut registry = registry();
    if let Some(trace) = &mut registry.trace {
        let _ = trace.write_all(format!("{name}\n").as_bytes());
    }
    registry.rules.get_mut(name).map_or(Action::Off, Rule::take)
}

fn registry() -> MutexGuard<'static, Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(|| Mutex::new(from_env())).lock().unwrap_or_else(PoisonError::into_inner)
}

fn from_env() -> Registry {
    let mut registry = Registry::default();
    if let Ok(text) = std::env::var("HULL_FAILPOINTS") {
        match parse_rules(&text) {
            Ok(rules) => registry.rules.extend(rules.into_iter().map(|rule| (rule.name.clone(), rule))),
            // A test that asks for a fault and gets none would pass for the wrong reason.
            Err(error) => panic!("HULL_FAILPOINTS: {error}"),
        }
    }
    if let Some(path) = std::env::var_os("HULL_FAILPOINTS_TRACE") {
        registry.trace = File::options().create(true).append(true).open(path).ok();
    }
    registry
}
