// SPDX-License-Identifier: Apache-2.0
//! OCI layouts: `index.json` lists descriptors of manifests and of further indexes.

use hull_registry::json;

use super::document::{DescribedPlatform, Descriptor, Document, LayoutFile, parse_config};
use super::{Found, FoundLayer, Platform, Source, invalid};
use crate::Result;
use crate::digest::Digest;
use crate::reference::{Reference, is_component};

/// Indexes within indexes.
pub(crate) const MAX_DEPTH: usize = 8;

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) fn read(source: &Source, platform: &Platform) -> Result<Vec<Found>> {
    check_layout(source)?;
    let origin = || source.shown_file("index.json");
    let index = parse(&source.document("index.json")?).map_err(|problem| invalid(origin(), problem))?;
    let entries = index.manifests.ok_or_else(|| invalid(origin(), "not an index: it has no manifests"))?;
    let entries: Vec<_> = entries.iter().filter(|entry| !entry.is_attestation()).collect();

    let mut found = Vec::new();
    for (names, group) in by_name(source, &entries)? {
        let chosen = match (&names[..], &group[..]) {
            // Alone under its name: whoever wrote it means it.
            (_, [only]) if !names.is_empty() || entries.len() == 1 => vec![*only],
            ([], several) => several.iter().copied().filter(|d| fits(d, platform)).collect(),
            (_, several) => choose(several, platform).into_iter().collect(),
        };
        if chosen.is_empty() && !names.is_empty() {
            return Err(invalid(origin(), none_for(platform, &group)));
        }
        for descriptor in chosen {
            found.push(image(source, platform, descriptor, names.clone())?);
        }
    }
    if found.is_empty() {
        return Err(invalid(origin(), none_for(platform, &entries)));
    }
    Ok(found)
}

fn check_layout(source: &Source) -> Result<()> {
    let origin = || source.shown_file("oci-layout");
    let layout: LayoutFile = json::from_slice(&source.document("oci-layout")?)
        .map_err(|e| invalid(origin(), format!("not an OCI layout: {e}")))?;
    if !layout.image_layout_version.starts_with("1.") {
        let problem = format!("layout version {:?} is not supported, only 1.x", layout.image_layout_version);
        return Err(invalid(origin(), problem));
    }
    Ok(())
}

type Groups<'a> = Vec<(Vec<Reference>, Vec<&'a Descriptor>)>;

/// Descriptors of one name are platforms of one image.
fn by_name<'a>(source: &Source, entries: &[&'a Descriptor]) -> Result<Groups<'a>> {
    let mut groups: Groups<'a> = Vec::new();
    for entry in entries {
        let names: Vec<_> = name_of(source, entry)?.into_iter().collect();
        match groups.iter_mut().find(|(known, _)| *known == names) {
            Some((_, group)) => group.push(entry),
            None => groups.push((names, vec![entry])),
        }
    }
    Ok(groups)
}

/// See the module above for the rule.
fn name_of(source: &Source, entry: &Descriptor) -> Result<Option<Reference>> {
    if let Some(name) = entry.annotations.get(CONTAINERD_NAME).filter(|name| !name.is_empty()) {
        return Reference::parse(name).map(Some);
    }
    let Some(name) = entry.annotations.get(REF_NAME).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    if name.contains(['/', ':', '@']) {
        return Reference::parse(name).map(Some);
    }
    match repository_of(source) {
        Some(repository) => Reference::parse(&format!("localhost/{repository}:{name}")).map(Some),
        None => {
            tracing::warn!(source = %source.shown(), tag = %name, "the image has a tag but no name; it is kept without one");
            Ok(None)
        }
    }
}

/// The file's name as a repository.
fn repository_of(source: &Source) -> Option<String> {
    let path = source.path();
    let name = match path.file_name() {
        Some(name) => name.to_str()?.to_owned(),
        // A path such as `.` has no name of its own.
        None => path.canonicalize().ok()?.file_name()?.to_str()?.to_owned(),
    };
    let mut name = name.to_ascii_lowercase();
    for ending in [".gz", ".zst", ".tgz", ".tar", ".oci"] {
        if let Some(stem) = name.strip_suffix(ending) {
            name = stem.to_owned();
        }
    }
    is_component(&name).then_some(name)
}

fn fits(descriptor: &Descriptor, platform: &Platform) -> bool {
    rank(descriptor, platform).is_some()
}

/// Smaller is better; an entry that names no platform comes last.
fn rank(descriptor: &Descriptor, platform: &Platform) -> Option<usize> {
    match &descriptor.platform {
        Some(p) => rank_of(p, platform),
        None => Some(usize::MAX),
    }
}

fn rank_of(described: &DescribedPlatform, platform: &Platform) -> Option<usize> {
    // Each of them is mandatory (image-spec, image-index.md), and there is none that this store has.
    if !described.os_features.is_empty() {
        return None;
    }
    platform.rank(&described.os, &described.architecture, &described.variant)
}

/// The best of an index for this machine.
pub(crate) fn choose<'a>(entries: &[&'a Descriptor], platform: &Platform) -> Option<&'a Descriptor> {
    let usable = entries.iter().filter(|entry| !entry.is_attestation());
    let ranked = usable.filter_map(|entry| rank(entry, platform).map(|rank| (rank, *entry)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
}

/// That none fits, and what there is.
pub(crate) fn none_for(platform: &Platform, entries: &[&Descriptor]) -> String {
    let has: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .map(|p| {
            let variant = if p.variant.is_empty() { String::new() } else { format!("/{}", p.variant) };
            let features = if p.os_features.is_empty() {
                String::new()
            } else {
                format!(" with {}", p.os_features.join("+"))
            };
            format!("{}/{}{variant}{features}", p.os, p.architecture)
        })
        .take(20)
        .collect();
    let has = if has.is_empty() { "no image at all".to_owned() } else { has.join(", ") };
    format!("no image for linux/{}; it has {has}", platform.architecture)
}

fn image(
    source: &Source,
    platform: &Platform,
    descriptor: &Descriptor,
    names: Vec<Reference>,
) -> Result<Found> {
    let mut descriptor = descriptor.clone();
    let mut indexes = Vec::new();
    for _ in 0..MAX_DEPTH {
        let (bytes, digest, member) = blob(source, &descriptor)?;
        let origin = || source.shown_file(&member);
        let mut document = parse(&bytes).map_err(|problem| invalid(origin(), problem))?;
        match document.manifests.take() {
            Some(entries) => {
                let entries: Vec<_> = entries.iter().collect();
                let chosen = choose(&entries, platform);
                descriptor = chosen.ok_or_else(|| invalid(origin(), none_for(platform, &entries)))?.clone();
                indexes.push(digest);
            }
            None => {
                let described = descriptor.platform.as_ref();
                if let Some(p) = described.filter(|p| rank_of(p, platform).is_none()) {
                    tracing::warn!(
                        image = %origin(), os = %p.os, architecture = %p.architecture,
                        "the image is for another platform than this machine's"
                    );
                }
                return finish(source, document, (bytes, digest), indexes, names, &member);
            }
        }
    }
    Err(invalid(source.shown(), format!("indexes more than {MAX_DEPTH} deep")))
}

fn finish(
    source: &Source,
    document: Document,
    manifest: (Vec<u8>, Digest),
    indexes: Vec<Digest>,
    names: Vec<Reference>,
    member: &str,
) -> Result<Found> {
    let bad = |problem: String| invalid(source.shown_file(member), problem);
    let Some(config) = document.config else {
        return Err(bad("not a manifest: it has no config".to_owned()));
    };
    let layers = document.layers.unwrap_or_default();
    if !config.is_image_config() {
        return Err(bad(format!(
            "an artifact, not an image: its config is of type {:?}; containers cannot run it",
            config.media_type
        )));
    }
    let (config_bytes, id, config_member) = blob(source, &config)?;
    let (image_config, diff_ids) =
        parse_config(&config_bytes).map_err(|problem| invalid(source.shown_file(&config_member), problem))?;
    if layers.len() != diff_ids.len() {
        return Err(bad(format!("{} layers, but its config has {} diff ids", layers.len(), diff_ids.len())));
    }
    let layers: Result<Vec<_>> = layers
        .iter()
        .zip(diff_ids)
        .map(|(layer, diff_id)| {
            if layer.media_type.ends_with("+encrypted") {
                return Err(bad("its layers are encrypted, which is not supported".to_owned()));
            }
            let digest = Digest::parse(&layer.digest).map_err(bad)?;
            let member = format!("blobs/sha256/{}", digest.hex());
            Ok(FoundLayer { member, blob: Some((digest, layer.size().map_err(bad)?)), diff_id })
        })
        .collect();
    Ok(Found {
        names,
        config_bytes,
        id,
        config: image_config,
        manifest: Some(manifest),
        indexes,
        annotations: document.annotations,
        layers: layers?,
    })
}

/// A document with its digest and size checked.
fn blob(source: &Source, descriptor: &Descriptor) -> Result<(Vec<u8>, Digest, String)> {
    let digest = Digest::parse(&descriptor.digest).map_err(|problem| invalid(source.shown(), problem))?;
    let member = format!("blobs/sha256/{}", digest.hex());
    let bytes = source.document(&member)?;
    let size = descriptor.size().map_err(|problem| invalid(source.shown(), problem))?;
    if bytes.len() as u64 != size {
        let problem = format!("it has {} bytes, its descriptor says {size}", bytes.len());
        return Err(invalid(source.shown_file(&member), problem));
    }
    let actual = Digest::of(&bytes);
    if actual != digest {
        return Err(invalid(source.shown_file(&member), format!("its content has the digest {actual}")));
    }
    Ok((bytes, digest, member))
}

/// An index or a manifest.
pub(crate) fn parse(bytes: &[u8]) -> std::result::Result<Document, String> {
    let document: Document = json::from_slice(bytes).map_err(|e| format!("not a manifest or index: {e}"))?;
    if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
        return Err("both an index and a manifest: refused".to_owned());
    }
    Ok(document)
}
