// SPDX-License-Identifier: Apache-2.0
//! placeholder
use anyhow::Result;
use std::path::Path;
pub(crate) struct Options;
impl Options {
    pub(crate) fn parse(_: &[String]) -> Result<Self> {
        Ok(Self)
    }
}
pub(crate) fn run(_: &Path, _: &Options) -> Result<()> {
    Ok(())
}
