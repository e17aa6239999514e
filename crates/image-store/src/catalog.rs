// SPDX-License-Identifier: Apache-2.0
//! What images there are: an immutable value that is replaced whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::reference::{Query, Reference};
use crate::{Error, Image, Result, Usage};

/// An image record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// What the trait shows.
    pub(crate) image: Arc<Image>,
    /// Grows with every import: of two records with one name, the higher has it.
    pub(crate) sequence: u64,
    /// Digests of the manifests it came with.
    pub(crate) manifests: Vec<String>,
    /// Bytes of its manifests and config.
    pub(crate) blob_bytes: u64,
}

/// Every image by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    images: BTreeMap<String, Stored>,
}

/// Patterns of pinned names.
#[derive(Debug, Clone)]
pub(crate) struct Pins(Vec<String>);

// === impl Catalog ===

impl Catalog {
    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        self.images.values().map(|stored| stored.image.clone()).collect()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Stored> {
        self.images.get(id)
    }

    pub(crate) fn insert(&mut self, stored: Stored) {
        self.images.insert(stored.image.id.clone(), stored);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Stored> {
        self.images.remove(id)
    }

    pub(crate) fn find(&self, query: &Query) -> Result<Option<Arc<Image>>> {
        let (reference, prefix) = match query {
            Query::Id(id) => return Ok(self.images.get(id).map(|stored| stored.image.clone())),
            Query::Name(reference, prefix) => (reference.to_string(), prefix),
        };
        let named =
            |image: &Image| image.repo_tags.contains(&reference) || image.repo_digests.contains(&reference);
        if let Some(stored) = self.images.values().find(|stored| named(&stored.image)) {
            return Ok(Some(stored.image.clone()));
        }
        let Some(prefix) = prefix else {
            return Ok(None);
        };
        let mut matches = self.images.range(prefix.clone()..).take_while(|(id, _)| id.starts_with(prefix));
        match (matches.next(), matches.count()) {
            (None, _) => Ok(None),
            (Some((_, stored)), 0) => Ok(Some(stored.image.clone())),
            (Some(_), more) => Err(Error::Ambiguous { prefix: prefix.clone(), matches: more + 1 }),
        }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.images.values().map(|stored| stored.sequence).max().unwrap_or(0) + 1
    }

    /// Other records that have a name of this one, without it.
    pub(crate) fn losers(&self, winner: &Stored) -> Vec<Stored> {
        let others = self
            .images
            .values()
            .filter(|other| other.image.id != winner.image.id && other.sequence <= winner.sequence);
        let mut losers = Vec::new();
        for other in others {
            let keeps = |tag: &&String| !winner.image.repo_tags.contains(*tag);
            let left: Vec<String> = other.image.repo_tags.iter().filter(keeps).cloned().collect();
            if left.len() < other.image.repo_tags.len() {
                let image = Arc::new(Image { repo_tags: left, ..(*other.image).clone() });
                losers.push(Stored { image, ..other.clone() });
            }
        }
        losers
    }

    /// Whether a manifest or config is one of an image.
    pub(crate) fn has_blob(&self, digest: &str) -> bool {
        self.images.values().any(|stored| stored.blobs().any(|blob| blob == digest))
    }

    pub(crate) fn has_layer(&self, diff_id: &str) -> bool {
        self.images.values().any(|stored| stored.image.layers.iter().any(|layer| layer == diff_id))
    }

    pub(crate) fn blob_usage(&self) -> Usage {
        Usage {
            bytes: self.images.values().map(|stored| stored.blob_bytes).sum(),
            inodes: self.images.values().map(|stored| stored.manifests.len() as u64 + 1).sum(),
        }
    }
}

// === impl Stored ===

impl Stored {
    /// Whether the two differ in their age alone.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        Self { sequence: self.sequence, ..other.clone() } == *self
    }

    /// Digests of its manifests and config.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = String> {
        let config = format!("sha256:{}", self.image.id);
        self.manifests.clone().into_iter().chain([config])
    }
}

// === impl Pins ===

impl Pins {
    /// References are normalised, so that `busybox` pins `docker.io/library/busybox:latest`.
    pub(crate) fn new(patterns: &[String]) -> Self {
        let full = |pattern: &String| match Reference::parse(pattern) {
            Ok(reference) => reference.to_string(),
            Err(_) => pattern.clone(),
        };
        Self(patterns.iter().map(full).collect())
    }

    /// Whether a name of the image matches.
    pub(crate) fn pin(&self, image: &Image) -> bool {
        let mut names = image.repo_tags.iter().chain(&image.repo_digests);
        names.any(|name| self.0.iter().any(|pattern| matches(pattern, name)))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: char, sequence: u64, tags: &[&str]) -> Stored {
        let image = Image {
            id: id.to_string().repeat(64),
            repo_tags: tags.iter().map(|&t| t.to_owned()).collect(),
            repo_digests: vec![format!("x.io/a@sha256:{}", id.to_string().repeat(64))],
            size: 1,
            layers: vec![],
            config: crate::ImageConfig::default(),
            annotations: BTreeMap::new(),
            pinned: false,
        };
        Stored { image: Arc::new(image), sequence, manifests: vec![], blob_bytes: 0 }
    }

    #[test]
    fn images_are_found_by_every_form() {
        let mut catalog = Catalog::default();
        catalog.insert(stored('a', 1, &["x.io/a:latest", "docker.io/library/beef:latest"]));
        catalog.insert(stored('b', 2, &["x.io/b:1"]));
        let mut near = stored('b', 3, &[]);
        let image = Arc::make_mut(&mut near.image);
        image.id.replace_range(63.., "0");
        catalog.insert(near);
        let find = |text: &str| {
            catalog.find(&Query::parse(text).unwrap()).map(|found| found.map(|image| image.id.clone()))
        };
        let a = "a".repeat(64);
        for text in [
            "x.io/a",
            "x.io/a:latest",
            "aaaa",
            "sha256:aaaaa",
            &a,
            &format!("sha256:{a}"),
            "beef",
            &format!("x.io/a@sha256:{a}"),
            &format!("x.io/a:other@sha256:{a}"),
        ] {
            assert_eq!(find(text).unwrap(), Some(a.clone()), "{text}");
        }
        for text in ["x.io/b", "x.io/a:2", "aaa", "cccc", &"c".repeat(64)] {
            assert_eq!(find(text).unwrap(), None, "{text}");
        }
        assert!(matches!(find("bbbb"), Err(Error::Ambiguous { matches: 2, .. })));
    }

    #[test]
    fn pins_match_names_and_patterns() {
        let pins = |pattern: &str| Pins::new(&[pattern.to_owned()]);
        let image = stored('a', 1, &["docker.io/library/pause:3.9"]).image;
        for pattern in ["pause:3.9", "docker.io/library/pause:*", "*pause*", "*:3.9", "x.io/a@*"] {
            assert!(pins(pattern).pin(&image), "{pattern}");
        }
        for pattern in ["pause", "library*", "x.io/pause:3.9"] {
            assert!(!pins(pattern).pin(&image), "{pattern}");
        }
    }
}
