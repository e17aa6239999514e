// SPDX-License-Identifier: Apache-2.0
//! Pod sandboxes, one file per verb.

pub(crate) mod files;
pub(crate) mod ground;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod release;
pub(crate) mod remove;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod teardown;
pub(crate) mod update;
