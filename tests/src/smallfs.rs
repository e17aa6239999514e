// SPDX-License-Identifier: Apache-2.0
//! A small file system of its own for a part of the daemon's files, to be filled to the last byte or inode.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs, unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallFs {
    path: PathBuf,
    options: String,
}

/// Of what it has no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Bytes.
    Space,
    /// Inodes.
    Inodes,
}

impl SmallFs {
    /// Mounts one with so many MiB and inodes at a directory, which is made. Needs root.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(path: &Path, megabytes: u32, inodes: u32) -> Self {
        fs::create_dir_all(path).expect("make the mount point");
        let options = format!("size={megabytes}m,nr_inodes={inodes},mode=711");
        mount(Some("hull-tests"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("mount a tmpfs");
        Self { path: path.to_owned(), options }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes what is left.
    ///
    /// # Panics
    /// When it is not taken for another reason than that nothing is left.
    pub fn fill(&self, lack: Lack) {
        match lack {
            Lack::Space => {
                let mut file = File::create(self.filling()).expect("make the file that fills");
                // In large pieces first, then what is left.
                for piece in [1 << 20, 4096, 1] {
                    let bytes = vec![b'x'; piece];
                    while let Some(written) = taken(file.write(&bytes)) {
                        assert!(written > 0, "nothing was written");
                    }
                }
            }
            Lack::Inodes => {
                fs::create_dir(self.filling()).expect("make the directory that fills");
                let mut number = 0;
                while taken(File::create_new(self.filling().join(number.to_string()))).is_some() {
                    number += 1;
                }
            }
        }
    }

    /// Gives back what [`Self::fill`] took.
    ///
    /// # Panics
    /// When it cannot.
    pub fn free(&self) {
        let path = self.filling();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.expect("remove what fills");
    }

    /// Makes it read-only, or writable again.
    ///
    /// # Panics
    /// When somebody has a file of it open for writing.
    pub fn set_read_only(&self, read_only: bool) {
        let flags = if read_only { MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY } else { MsFlags::MS_REMOUNT };
        mount(None::<&str>, &self.path, None::<&str>, flags, Some(self.options.as_str())).expect("remount");
    }

    fn filling(&self) -> PathBuf {
        self.path.join("filling")
    }
}

fn taken<T>(result: std::io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::StorageFull => None,
        Err(error) => panic!("fill: {error}"),
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}
