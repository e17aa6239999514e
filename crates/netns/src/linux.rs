// SPDX-License-Identifier: Apache-2.0
//! Being written.
use std::path::Path;
/// Pins namespaces of the kernel.
#[derive(Debug)]
pub struct LinuxNetNs {}
/// Runs `work` on a fresh thread inside a network namespace.
pub fn enter<T: Send + 'static>(
    _netns: &Path,
    _work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    todo!()
}
