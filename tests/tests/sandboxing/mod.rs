// SPDX-License-Identifier: Apache-2.0
//! What stands between a container and its node besides namespaces: the filter of system calls, the room that its pod's files
//! have, and the memory of the daemon.

mod daemon_memory;
mod pod_files;
#[cfg(target_arch = "x86_64")]
mod seccomp;
