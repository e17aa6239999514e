// SPDX-License-Identifier: Apache-2.0
//! Work inside a namespace, on a thread that ends afterwards.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;

use hull_failpoint::failpoint;
use nix::sched::{CloneFlags, setns};

/// Runs `work` on a fresh thread inside a network namespace and returns what it returned.
///
/// Blocks until the thread has ended: call it from `spawn_blocking`. The thread never returns to a
/// pool, so nothing else ever runs in the pod's namespace by accident.
///
/// # Errors
/// Of the kind of open(2) or setns(2), naming `netns`; `Other` when `work` panicked.
pub fn enter<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let explain = |step: &str, e: io::Error| {
        io::Error::new(e.kind(), format!("{step} network namespace {}: {e}", netns.display()))
    };
    let file = File::open(netns).map_err(|e| explain("open", e))?;
    on_fresh_thread("netns-enter", move || {
        failpoint!("netns.enter.setns")?;
        #[expect(clippy::disallowed_methods, reason = "this thread ends after the work")]
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
    .and_then(|result| result.map_err(|e| explain("enter", e)))
}

/// Runs `work` on a thread of its own and joins it; a panic becomes an error.
pub(super) fn on_fresh_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
    thread.join().map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        io::Error::other(format!("thread {name} panicked: {text}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        let error = on_fresh_thread("test", || panic!("no {}", "luck")).unwrap_err();
        assert!(error.to_string().contains("no luck"), "{error}");
    }

    #[test]
    fn a_missing_namespace_is_named_and_keeps_its_kind() {
        let error = enter(Path::new("/nonexistent/ns"), || ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nonexistent/ns"), "{error}");
    }
}
