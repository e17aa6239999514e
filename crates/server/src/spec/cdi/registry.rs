// SPDX-License-Identifier: Apache-2.0
//! The files of CDI on this node.
//!
//! They are read when a container asks for a device: seldom, and what a driver wrote a moment ago counts. A
//! directory wins over those before it (what a boot found, in `/var/run/cdi`, over what was installed). A device
//! in two files of one directory is nobody's. A file that cannot be used costs its own devices alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::DeviceName;
use super::document::{ContainerEdits, Document};
use crate::regular::{ReadError, read_text};

/// Files of machines with many partitioned devices reach some hundred KiB.
const LARGEST: u64 = 4 << 20;
/// Files in a directory.
const MOST_FILES: usize = 512;

/// Every device found.
#[derive(Debug, Default)]
pub(super) struct Registry {
    documents: Vec<(PathBuf, Document)>,
    /// By name: the directory's rank, and the document, or the two files that both have it.
    devices: BTreeMap<String, (usize, Place)>,
    /// Why files are not used.
    pub(super) problems: Vec<String>,
}

#[derive(Debug)]
enum Place {
    In(usize),
    Twice(usize, usize),
}

impl Registry {
    /// Reads the directories; a missing one is empty. Blocks on files.
    pub(super) fn read(dirs: &[PathBuf]) -> Self {
        let mut registry = Self::default();
        for (rank, dir) in dirs.iter().enumerate() {
            for path in files(dir) {
                match read(&path).and_then(|text| Document::parse(&path, &text)) {
                    Ok(document) => registry.add(rank, path, document),
                    Err(problem) => registry.problems.push(format!("{}: {problem}", path.display())),
                }
            }
        }
        registry
    }

    fn add(&mut self, rank: usize, path: PathBuf, document: Document) {
        let at = self.documents.len();
        for device in &document.devices {
            let name = format!("{}={}", document.kind, device.name);
            let place = match self.devices.get(&name) {
                Some((other, Place::In(first) | Place::Twice(first, _))) if *other == rank => {
                    Place::Twice(*first, at)
                }
                _ => Place::In(at),
            };
            self.devices.insert(name, (rank, place));
        }
        self.documents.push((path, document));
    }

    /// A device's file, by number, and what the device needs.
    pub(super) fn device(&self, name: &DeviceName) -> Result<(usize, &ContainerEdits), String> {
        let at = match self.devices.get(name.as_str()) {
            Some((_, Place::In(at))) => *at,
            Some((_, Place::Twice(first, second))) => {
                let path = |at: &usize| self.documents.get(*at).map(|it| it.0.display().to_string());
                let (first, second) = (path(first).unwrap_or_default(), path(second).unwrap_or_default());
                return Err(format!("{name} is in {first} and in {second}"));
            }
            None => return Err(format!("no CDI file has {name}")),
        };
        let found = self
            .documents
            .get(at)
            .and_then(|(_, document)| document.devices.iter().find(|device| device.name == name.device()));
        found.map(|device| (at, &device.container_edits)).ok_or_else(|| format!("no CDI file has {name}"))
    }

    /// What every container with a device of this file needs.
    pub(super) fn common(&self, file: usize) -> Option<&ContainerEdits> {
        self.documents.get(file).map(|(_, document)| &document.container_edits)
    }
}

/// The files of a directory, in order of name; not those below it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let known = |path: &PathBuf| path.extension().is_some_and(|it| it == "json" || it == "yaml");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = entries.filter(known).take(MOST_FILES).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<String, String> {
    read_text(path, LARGEST).map_err(|error| match error {
        ReadError::Unfit(problem) => format!("it {problem}"),
        ReadError::Io(error) => error.to_string(),
    })
}
