// SPDX-License-Identifier: Apache-2.0
//! Being written.
/// A parsed reference.
#[derive(Debug)]
pub struct Reference {}
