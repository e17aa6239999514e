// SPDX-License-Identifier: Apache-2.0
//! Which image of an index fits this machine.

/// What images are chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// GOARCH: `amd64`, `arm64`, ...
    pub architecture: String,
    /// Variants from best to worst; an empty one stands for the usual one, which entries need not name.
    pub variants: Vec<String>,
}

// === impl Platform ===

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        let (architecture, variants): (&str, &[&str]) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", &[""]),
            "aarch64" => ("arm64", &[""]),
            "arm" => ("arm", &["v7", "v6", "v5"]),
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
        if !os.is_empty() && !os.eq_ignore_ascii_case("linux") {
            return None;
        }
        let (architecture, variant) = normalized(architecture, variant);
        if architecture == self.architecture {
            let of = |own: &String| normalized(&self.architecture, own).1;
            return self.variants.iter().position(|own| of(own) == variant);
        }
        let others = fallbacks(&self.architecture);
        let place = others.iter().position(|other| *other == (architecture.as_str(), variant.as_str()))?;
        Some(self.variants.len() + place)
    }
}

/// The names of an architecture and its variant as containerd has them: writers use those of uname, Debian and Go.
fn normalized(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

/// Other architectures whose programs this one runs, from best to worst; for images that have nothing better.
fn fallbacks(architecture: &str) -> &'static [(&'static str, &'static str)] {
    match architecture {
        "amd64" => &[("386", "")],
        "arm64" => &[("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_variants_are_those_of_containerd() {
        let on = |architecture: &str, variants: &[&str]| Platform {
            architecture: architecture.to_owned(),
            variants: variants.iter().map(|&variant| variant.to_owned()).collect(),
        };
        let (amd64, arm64) = (on("amd64", &[""]), on("arm64", &[""]));
        let arm = on("arm", &["v7", "v6", "v5"]);
        for (platform, os, architecture, variant, rank) in [
            (&amd64, "linux", "amd64", "", Some(0)),
            (&amd64, "Linux", "AMD64", "v1", Some(0)),
            (&amd64, "", "x86_64", "", Some(0)),
            (&amd64, "linux", "x86-64", "", Some(0)),
            (&amd64, "linux", "amd64", "v3", None),
            (&amd64, "linux", "i386", "x", Some(1)),
            (&amd64, "linux", "386", "", Some(1)),
            (&amd64, "windows", "amd64", "", None),
            (&amd64, "linux", "arm64", "", None),
            (&amd64, "linux", "", "", None),
            (&arm64, "linux", "aarch64", "", Some(0)),
            (&arm64, "linux", "arm64", "V8", Some(0)),
            (&arm64, "linux", "arm64", "8", Some(0)),
            (&arm64, "linux", "armhf", "", Some(2)),
            (&arm64, "linux", "amd64", "", None),
            (&arm, "linux", "arm", "", Some(0)),
            (&arm, "linux", "arm", "7", Some(0)),
            (&arm, "linux", "armhf", "", Some(0)),
            (&arm, "linux", "armel", "", Some(1)),
            (&arm, "linux", "arm", "6", Some(1)),
            (&arm, "linux", "arm", "v8", None),
        ] {
            let got = platform.rank(os, architecture, variant);
            assert_eq!(got, rank, "{os}/{architecture}/{variant} on {}", platform.architecture);
        }
    }
}
