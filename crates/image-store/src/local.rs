// SPDX-License-Identifier: Apache-2.0
//! Being written.
/// The store on disk.
#[derive(Debug)]
pub struct LocalImageStore {}
