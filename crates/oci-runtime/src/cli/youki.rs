// SPDX-License-Identifier: Apache-2.0
//! What is particular to youki: nothing that a new program is not taken to do.

use super::{CliRuntime, Flavor};

/// youki: <https://github.com/youki-dev/youki>.
pub type YoukiRuntime = CliRuntime<Youki>;

/// youki's ways (0.7). It joins the cgroup of an exec in every hierarchy, updates what has ended, and has had
/// `features` since 0.4.
#[derive(Debug, Clone, Copy, Default)]
pub struct Youki;

impl Flavor for Youki {}
