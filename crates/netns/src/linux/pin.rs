// SPDX-License-Identifier: Apache-2.0
//! Making namespaces and pinning them.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hull_failpoint::failpoint;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
use rustix::thread::{Uid, set_thread_res_uid};

use super::enter::on_fresh_thread;
use super::share::{make_dir, make_private, make_shared};
use super::userns::{self, Made};
use super::verify::{Found, find};
use super::{LinuxConfig, io_error, unpin};
use crate::request::{Kind, Sysctl};
use crate::{CreateRequest, Error, NetNsPath, PodNamespaces, Result};

/// The mode of the files that are mounted on: nothing is ever written to them.
const PIN_MODE: u32 = 0o444;

/// Pinned namespaces that are unpinned again unless [`Pinned::keep`] is called: a create that
/// nobody waits for any more leaves nothing.
#[derive(Debug)]
pub(super) struct Pinned {
    layout: LinuxConfig,
    id: String,
    namespaces: Option<PodNamespaces>,
}

/// Makes and pins what is asked for, or leaves nothing. Blocks.
pub(super) fn create(layout: &LinuxConfig, request: CreateRequest, sysctls: Vec<Sysctl>) -> Result<Pinned> {
    let id = request.id.clone();
    clean_leftovers(layout, &id)?;
    let pins: Vec<(Kind, PathBuf)> = Kind::ALL
        .into_iter()
        .filter(|kind| kind.asked(&request))
        .map(|kind| (kind, layout.path(kind, &id)))
        .collect();
    let namespaces = PodNamespaces {
        user: path_of(&pins, Kind::User),
        network: path_of(&pins, Kind::Net).map(NetNsPath::unverified),
        ipc: path_of(&pins, Kind::Ipc),
        uts: path_of(&pins, Kind::Uts),
    };
    if !pins.is_empty()
        && let Err(error) =
            make_dirs(layout, &request).and_then(|()| on_thread(layout, request, sysctls, pins))
    {
        // Only if empty: what another daemon pinned there meanwhile is not ours.
        let _ = std::fs::remove_dir(layout.folder(&id));
        return Err(error);
    }
    Ok(Pinned { layout: layout.clone(), id, namespaces: Some(namespaces) })
}

fn on_thread(
    layout: &LinuxConfig,
    request: CreateRequest,
    sysctls: Vec<Sysctl>,
    pins: Vec<(Kind, PathBuf)>,
) -> Result<()> {
    let path = layout.path(Kind::Net, &request.id);
    let kinds: Vec<Kind> = pins.iter().map(|(kind, _)| *kind).collect();
    let made = request.user.as_ref().map(|ids| userns::make(&layout.helper, ids, &kinds)).transpose()?;
    on_fresh_thread("netns-create", move || make_and_pin(&request, &sysctls, &pins, made.as_ref()))
        .map_err(io_error("start a thread that makes", &path))?
}

/// Living namespaces are an error, the remains of dead ones are removed.
fn clean_leftovers(layout: &LinuxConfig, id: &str) -> Result<()> {
    let found: Vec<Found> =
        Kind::ALL.into_iter().map(|kind| find(&layout.pinned(kind, id), kind)).collect::<Result<_>>()?;
    if found.contains(&Found::Namespace) {
        return Err(Error::AlreadyExists { id: id.to_owned() });
    }
    for (kind, _) in Kind::ALL.into_iter().zip(&found).filter(|(_, found)| **found == Found::Leftover) {
        let path = layout.pinned(kind, id);
        tracing::warn!(path = %path.display(), "removing a leftover that is no namespace");
        unpin::unpin(&path)?;
    }
    Ok(())
}

fn make_dirs(layout: &LinuxConfig, request: &CreateRequest) -> Result<()> {
    if request.network {
        make_dir(&layout.netns_dir, 0o755)?;
        make_shared(&layout.netns_dir)?;
    }
    if request.user.is_some() || request.ipc || request.uts {
        make_private(&layout.ns_dir)?;
        make_private(&layout.folder(&request.id))?;
    }
    Ok(())
}

fn path_of(pins: &[(Kind, PathBuf)], wanted: Kind) -> Option<PathBuf> {
    pins.iter().find(|(kind, _)| *kind == wanted).map(|(_, path)| path.clone())
}

/// Runs on the thread that ends afterwards; what it unshares ends with it unless pinned. `made`: there are namespaces
/// of the helper's already.
fn make_and_pin(
    request: &CreateRequest,
    sysctls: &[Sysctl],
    pins: &[(Kind, PathBuf)],
    made: Option<&Made>,
) -> Result<()> {
    let here = Path::new("/proc/thread-self/ns");
    failpoint!("netns.create.unshare").map_err(io_error("unshare", here))?;
    match made {
        Some(made) => made.enter().map_err(io_error("enter namespaces of a user namespace,", here))?,
        None => unshare_all(pins).map_err(io_error("unshare", here))?,
    }
    if request.uts && !request.hostname.is_empty() {
        failpoint!("netns.create.hostname").map_err(io_error("set host name", here))?;
        sethostname(&request.hostname).map_err(io_error("set host name", here))?;
    }
    let root = request.user.as_ref().and_then(|ids| ids.host_uid(0));
    sysctls.iter().try_for_each(|sysctl| write_sysctl(sysctl, root))?;
    let mut pinned = Vec::new();
    let result = pins.iter().try_for_each(|(kind, path)| {
        let own = || here.join(kind.name());
        let source = made.and_then(|made| made.path(*kind)).unwrap_or_else(own);
        pin(&request.id, &source, path, &mut pinned)
    });
    if result.is_err() {
        pinned.iter().for_each(|path| undo(path));
    }
    result
}

fn unshare_all(pins: &[(Kind, PathBuf)]) -> nix::Result<()> {
    let flags = pins.iter().fold(0, |flags, (kind, _)| flags | kind.clone_flag());
    #[expect(clippy::disallowed_methods, reason = "this thread ends after the work")]
    unshare(CloneFlags::from_bits_truncate(flags))
}

/// `pod_root`: the host's id of the root of the pod's user namespace. Of that namespace's sysctls some are the
/// host's root's to set and some, on newer kernels, the pod's root's alone (`ipc_permissions`).
fn write_sysctl(sysctl: &Sysctl, pod_root: Option<u32>) -> Result<()> {
    let written = match (set(sysctl), pod_root) {
        (Err(error), Some(root)) if error.kind() == io::ErrorKind::PermissionDenied => {
            as_user(root, || set(sysctl)).and_then(|result| result)
        }
        (written, _) => written,
    };
    written.map_err(|source| Error::Sysctl { name: sysctl.name.clone(), value: sysctl.value.clone(), source })
}

fn set(sysctl: &Sysctl) -> io::Result<()> {
    failpoint!("netns.create.sysctl")?;
    let path = Path::new("/proc/sys").join(&sysctl.path);
    let mut file = OpenOptions::new().write(true).open(path)?;
    // One write: the kernel takes each as the whole value.
    let length = file.write(sysctl.value.as_bytes())?;
    if length == sysctl.value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Lets this thread, and no other, be somebody else for a moment.
fn as_user<T>(user: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    let (root, user) = (Uid::ROOT, Uid::from_raw(user));
    let _dumpable = Undumped::keep();
    set_thread_res_uid(root, user, root)?;
    let result = work();
    set_thread_res_uid(root, root, root)?;
    Ok(result)
}

/// Keeps a process that forbade its core dumps so: with each change of a thread's user the kernel sets the flag of the whole
/// process to what `fs.suid_dumpable` says (prctl(2), `PR_SET_DUMPABLE`).
struct Undumped(bool);

impl Undumped {
    fn keep() -> Self {
        /// As it was before the first change: threads that do this at once would see each other's.
        static FORBIDDEN: OnceLock<bool> = OnceLock::new();
        let forbidden = || matches!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        Self(*FORBIDDEN.get_or_init(forbidden))
    }
}

impl Drop for Undumped {
    fn drop(&mut self) {
        if self.0
            && let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        {
            tracing::warn!(%error, "core dumps of this process are no longer forbidden");
        }
    }
}

fn pin(id: &str, source: &Path, path: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    failpoint!("netns.create.file").map_err(io_error("make file", path))?;
    // Exclusive: two daemons on one folder must not pin two namespaces on one name.
    match OpenOptions::new().write(true).create_new(true).mode(PIN_MODE).open(path) {
        Ok(_) => made.push(path.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::AlreadyExists { id: id.to_owned() });
        }
        Err(error) => return Err(io_error("make file", path)(error)),
    }
    failpoint!("netns.create.mount").map_err(io_error("mount a namespace on", path))?;
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(io_error("mount a namespace on", path))
}

fn undo(path: &Path) {
    if let Err(error) = unpin::unpin(path) {
        tracing::error!(
            path = %path.display(),
            error = &error as &dyn std::error::Error,
            "a namespace of a failed create stays behind; removing the pod tries again"
        );
    }
}

// === impl Pinned ===

impl Pinned {
    /// Hands the namespaces over to the caller.
    pub(super) fn keep(mut self) -> PodNamespaces {
        self.namespaces.take().unwrap_or_default()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.namespaces.is_none() {
            return;
        }
        if let Err(error) = unpin::remove(&self.layout, &self.id) {
            tracing::error!(
                id = self.id,
                error = &error as &dyn std::error::Error,
                "namespaces of an abandoned create stay behind; removing the pod tries again"
            );
        }
    }
}
