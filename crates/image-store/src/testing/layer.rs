// SPDX-License-Identifier: Apache-2.0
//! One layer as a list of entries, and its tar.

use std::io::Write;

use flate2::write::GzEncoder;

/// What a tar entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with this content.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to this text.
    Symlink(String),
    /// A hard link to this path of the layer.
    HardLink(String),
    /// A fifo.
    Fifo,
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
}

/// One tar entry. The path is written as it is: `..`, a leading `/` and NUL bytes are for the reader to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path of any length.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes, written as PAX `SCHILY.xattr.` records.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// How a layer's blob is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// A bare tar.
    #[default]
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A layer being put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// Entries in the order of the tar.
    pub entries: Vec<Entry>,
    /// How the blob is packed.
    pub compression: Compression,
    /// Bytes after the tar's end marker; they count for the diff id.
    pub trailing: Vec<u8>,
}

// === impl Entry ===

impl Entry {
    /// An entry of root's, from the start of 2024.
    pub fn new(path: impl AsRef<[u8]>, kind: Kind, mode: u32) -> Self {
        let path = path.as_ref().to_vec();
        Self { path, kind, mode, uid: 0, gid: 0, mtime: 1_704_067_200, xattrs: Vec::new() }
    }
}

// === impl Layer ===

impl Layer {
    /// An empty, uncompressed layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any entry.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Adds a directory.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(Entry::new(path, Kind::Directory, mode))
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        self.entry(Entry::new(path, Kind::File(content.as_ref().to_vec()), mode))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(Entry::new(path, Kind::Symlink(target.to_owned()), 0o777))
    }

    /// Adds a hard link to an earlier path of this layer, with the header of that file, as programs write them.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        let plain = |path: &[u8]| String::from_utf8_lossy(path).trim_start_matches(['.', '/']).to_owned();
        let file = self.entries.iter().rfind(|entry| plain(&entry.path) == plain(target.as_bytes()));
        let header = file.cloned().unwrap_or_else(|| Entry::new(target, Kind::Fifo, 0o644));
        self.entry(Entry { path: path.into(), kind: Kind::HardLink(target.to_owned()), ..header })
    }

    /// Adds the marker that deletes `path` of lower layers.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((parent, name)) => format!("{parent}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(&marker, b"", 0o600)
    }

    /// Adds the marker that hides what lower layers have in directory `path`.
    #[must_use]
    pub fn opaque(self, path: &str) -> Self {
        self.file(&format!("{path}/.wh..wh..opq"), b"", 0o600)
    }

    /// Gives the last entry another owner.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        let last = self.entries.last_mut().expect("an entry first");
        (last.uid, last.gid) = (uid, gid);
        self
    }

    /// Gives the last entry an extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        let last = self.entries.last_mut().expect("an entry first");
        last.xattrs.push((name.to_owned(), value.to_vec()));
        self
    }

    /// Gives the last entry a time.
    #[must_use]
    pub fn mtime(mut self, seconds: u64) -> Self {
        self.entries.last_mut().expect("an entry first").mtime = seconds;
        self
    }

    /// Packs the blob with gzip.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        self.compression = Compression::Gzip;
        self
    }

    /// Packs the blob with zstd.
    #[must_use]
    pub fn zstd(mut self) -> Self {
        self.compression = Compression::Zstd;
        self
    }

    /// The uncompressed tar.
    pub fn tar(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in &self.entries {
            append(&mut out, entry);
        }
        out.resize(out.len() + 1024, 0);
        out.extend_from_slice(&self.trailing);
        out
    }

    /// The blob: the tar, packed.
    pub fn blob(&self) -> Vec<u8> {
        let tar = self.tar();
        match self.compression {
            Compression::Plain => tar,
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&tar).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::bulk::compress(&tar, 1).unwrap(),
        }
    }

    /// The OCI media type of the blob.
    pub fn media_type(&self) -> &'static str {
        match self.compression {
            Compression::Plain => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

fn append(out: &mut Vec<u8>, entry: &Entry) {
    let mut records = Vec::new();
    for (name, value) in &entry.xattrs {
        records.extend(pax_record(&format!("SCHILY.xattr.{name}"), value));
    }
    if entry.path.len() > 99 || entry.path.contains(&0) {
        records.extend(pax_record("path", &entry.path));
    }
    let link = match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => target.as_bytes(),
        _ => b"",
    };
    if link.len() > 99 {
        records.extend(pax_record("linkpath", link));
    }
    if !records.is_empty() {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(records.len() as u64);
        finish(out, header, b"pax", b"", &records);
    }
    let mut header = tar::Header::new_ustar();
    let mut data: &[u8] = b"";
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(entry.mtime);
    let kind = match &entry.kind {
        Kind::File(content) => {
            data = content;
            tar::EntryType::Regular
        }
        Kind::Directory => tar::EntryType::Directory,
        Kind::Symlink(_) => tar::EntryType::Symlink,
        Kind::HardLink(_) => tar::EntryType::Link,
        Kind::Fifo => tar::EntryType::Fifo,
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            header.set_device_major(*major).unwrap();
            header.set_device_minor(*minor).unwrap();
            match entry.kind {
                Kind::CharDevice(..) => tar::EntryType::Char,
                _ => tar::EntryType::Block,
            }
        }
    };
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    finish(out, header, &entry.path, link, data);
}

/// Writes the names straight into the header: the tar crate would refuse the hostile ones that tests need.
fn finish(out: &mut Vec<u8>, mut header: tar::Header, path: &[u8], link: &[u8], data: &[u8]) {
    let bytes = header.as_mut_bytes();
    for (field, text) in [(0, path), (157, link)] {
        let text = &text[..text.len().min(99)];
        bytes[field..field + text.len()].copy_from_slice(text);
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}
