// SPDX-License-Identifier: Apache-2.0
//! Which image of an index fits this machine.

/// What images are chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// GOARCH: `amd64`, `arm64`, ...
    pub architecture: String,
    /// Variants from best to worst; an empty one stands for entries that name none.
    pub variants: Vec<String>,
}

// === impl Platform ===

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        let (architecture, variants): (&str, &[&str]) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", &["", "v1"]),
            "aarch64" => ("arm64", &["", "v8"]),
            "arm" => ("arm", &["v7", "v6", "v5", ""]),
            "x86" => ("386", &[""]),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", &[""]),
            "loongarch64" => ("loong64", &[""]),
            other => (other, &[""]),
        };
        Self {
            architecture: architecture.to_owned(),
            variants: variants.iter().map(|&v| v.to_owned()).collect(),
        }
    }

    /// How well a platform fits: smaller is better, `None`: not at all.
    pub(crate) fn rank(&self, os: &str, architecture: &str, variant: &str) -> Option<usize> {
        if os != "linux" || architecture != self.architecture {
            return None;
        }
        self.variants.iter().position(|v| v == variant)
    }
}
