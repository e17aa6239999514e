// SPDX-License-Identifier: Apache-2.0
//! Reading images from OCI layouts and docker archives.

mod platform;

pub use platform::Platform;
