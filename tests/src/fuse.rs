// SPDX-License-Identifier: Apache-2.0
//! A file system that stops answering: FUSE, served by a thread of the test, without any package.
//!
//! ```text
//! /      the root; it has one directory, `vol`, which is empty
//! ```
//! Whose request is read and not answered sleeps uninterruptibly: not even SIGKILL ends it before the file system is gone.
//! Dropping it unmounts it and closes the connection, which ends every such sleep.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// Whom it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Answers {
    /// Everybody.
    All,
    /// The daemon's volume helper alone.
    Helper,
    /// Nobody.
    Nobody,
    /// It is to end.
    End,
}

/// A file system whose answers a test chooses.
#[derive(Debug)]
pub struct FuseFs {
    dir: TempDir,
    mode: Arc<AtomicU8>,
    ignored: Arc<Mutex<Vec<u32>>>,
    server: Option<JoinHandle<()>>,
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

impl FuseFs {
    /// Mounts it. Needs root and /dev/fuse.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(answers: Answers) -> Self {
        let dir = tempfile::Builder::new().prefix("hull-fuse-").tempdir().expect("a private directory");
        let point = dir.path().join("mnt");
        std::fs::create_dir(&point).expect("make the mount point");
        let device = File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
            .open("/dev/fuse")
            .expect("open /dev/fuse (the kernel needs FUSE, and the node `mknod /dev/fuse c 10 229`)");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("hull-tests"), &point, Some("fuse"), flags, Some(options.as_str())).expect("mount FUSE");
        let mode = Arc::new(AtomicU8::new(answers as u8));
        let ignored = Arc::new(Mutex::new(Vec::new()));
        let (mode_, ignored_) = (mode.clone(), ignored.clone());
        let server = std::thread::spawn(move || serve(device, &mode_, &ignored_));
        Self { dir, mode, ignored, server: Some(server) }
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// A directory beside the mount point, on an ordinary file system.
    pub fn beside(&self) -> &Path {
        self.dir.path()
    }

    /// Whom it answers from now on.
    pub fn set(&self, answers: Answers) {
        self.mode.store(answers as u8, Ordering::SeqCst);
    }

    /// The processes that it has not answered.
    ///
    /// # Panics
    /// When its thread panicked.
    pub fn ignored(&self) -> Vec<u32> {
        self.ignored.lock().expect("no panic in the server").clone()
    }

    /// Unmounts it and ends the connection; who waits for it gets an error.
    pub fn end(&mut self) {
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        self.set(Answers::End);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Drop for FuseFs {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(mut device: File, mode: &AtomicU8, ignored: &Mutex<Vec<u32>>) {
    let mut request = vec![0_u8; 1 << 20];
    while mode.load(Ordering::SeqCst) != Answers::End as u8 {
        let size = match device.read(&mut request) {
            Ok(size) => size,
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => return,
            Err(_) => {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
        };
        let number = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let (opcode, pid) = (number(4), number(32));
        let unique: [u8; 8] = request[8..16].try_into().expect("eight bytes");
        let node = u64::from_le_bytes(request[16..24].try_into().expect("eight bytes"));
        if [FORGET, BATCH_FORGET, INTERRUPT].contains(&opcode) {
            continue;
        }
        let answered = opcode == INIT
            || match mode.load(Ordering::SeqCst) {
                it if it == Answers::All as u8 => true,
                it if it == Answers::Helper as u8 => is_helper(pid),
                _ => false,
            };
        if !answered {
            ignored.lock().expect("no panic in a test").push(pid);
            continue;
        }
        let (error, body) = answer(opcode, node, &request[40..size]);
        let length = u32::try_from(16 + body.len()).expect("a short answer");
        let mut reply = length.to_le_bytes().to_vec();
        reply.extend((-error).to_le_bytes());
        reply.extend(unique);
        reply.extend(body);
        let _ = device.write_all(&reply);
    }
}

fn is_helper(pid: u32) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|word| word == b"volume-helper")
}

fn answer(opcode: u32, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
    match opcode {
        INIT => (0, init()),
        // Valid for no time: every look asks again.
        GETATTR => (0, [vec![0; 16], attributes(node)].concat()),
        LOOKUP if body.starts_with(b"vol\0") && node == 1 => {
            let mut entry = 2_u64.to_le_bytes().to_vec();
            entry.extend([0; 32]);
            entry.extend(attributes(2));
            (0, entry)
        }
        LOOKUP => (ENOENT, Vec::new()),
        _ => (ENOSYS, Vec::new()),
    }
}

/// `struct fuse_init_out`: version 7.31, nothing optional.
fn init() -> Vec<u8> {
    let mut out =
        [7_u32.to_le_bytes(), 31_u32.to_le_bytes(), 0_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat();
    out.extend(12_u16.to_le_bytes());
    out.extend(9_u16.to_le_bytes());
    out.extend(4096_u32.to_le_bytes());
    out.resize(64, 0);
    out
}

/// `struct fuse_attr` of an empty directory.
fn attributes(node: u64) -> Vec<u8> {
    let mut out = node.to_le_bytes().to_vec();
    out.resize(60, 0);
    out.extend(0o40_755_u32.to_le_bytes());
    out.extend(2_u32.to_le_bytes());
    out.resize(80, 0);
    out.extend(4096_u32.to_le_bytes());
    out.resize(88, 0);
    out
}
