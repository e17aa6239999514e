// SPDX-License-Identifier: Apache-2.0
//! The files of a pod that its containers have in common.
//!
//! ```text
//! RUN_ROOT/sandboxes/ID/etc/   a small tmpfs: resolv.conf, hostname, and hosts of a pod on the host's network
//! RUN_ROOT/sandboxes/ID/shm/   a tmpfs: /dev/shm
//! ```
//! All of them follow from the pod's record, so those that another program has taken away are made again from it.

use std::path::{Path, PathBuf};

use hull_cri_api::v1;
use hull_failpoint::failpoint;
use hull_files::PRIVATE_DIR;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::{gate, own_dir};
use crate::model::SandboxMeta;
use crate::records::blocking;
use crate::sandbox::request;
use crate::store::Sandbox;

/// What a pod's files may grow to, all together.
const POD_FILES_SIZE: u64 = 1 << 20;

/// The node's hosts file.
const HOSTS: &str = "/etc/hosts";

/// The largest hosts file of the node that a pod gets a copy of, in bytes.
const HOSTS_MAX: u64 = 512 << 10;

/// Which of a pod's files are to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Files {
    /// The file system of the three that follow, which are all to be made with it.
    mount: bool,
    hostname: bool,
    resolv_conf: bool,
    /// A pod on the host's network alone has one.
    hosts: bool,
    shm: bool,
}

// === impl Files ===

impl Files {
    /// Those that a pod has.
    fn all(meta: &SandboxMeta) -> Self {
        Self {
            mount: true,
            hostname: true,
            resolv_conf: true,
            hosts: meta.host_network(),
            shm: meta.namespace_options().ipc != v1::NamespaceMode::Node as i32,
        }
    }

    /// Those that a pod should have and has not. Blocks.
    fn gone(ctx: &Context, meta: &SandboxMeta) -> Self {
        let (layout, id) = (&ctx.layout, meta.id.as_str());
        let all = Self::all(meta);
        let mounted = ctx.node.is_mount_point(&layout.pod_files(id));
        // A pod that an earlier version made has them elsewhere, without a file system of their own.
        let is_there = |path: PathBuf, name: &str| {
            (mounted && path.is_file()) || layout.former_pod_file(id, name).is_file()
        };
        let hostname = !is_there(layout.hostname(id), "hostname");
        let resolv_conf = !is_there(layout.resolv_conf(id), "resolv.conf");
        // A node without one has none to copy.
        let hosts = mounted && !layout.hosts(id).is_file() && hosts_can_be_copied();
        let mount = !mounted && (hostname || resolv_conf);
        Self {
            mount,
            hostname: mount || hostname,
            resolv_conf: mount || resolv_conf,
            hosts: all.hosts && (mount || hosts),
            shm: all.shm && !ctx.node.is_mount_point(&layout.shm(id)),
        }
    }

    /// The paths that they have in a container.
    fn names(self) -> Vec<&'static str> {
        let named = [
            ("/etc/hostname", self.hostname),
            ("/etc/resolv.conf", self.resolv_conf),
            ("/etc/hosts", self.hosts),
            ("/dev/shm", self.shm),
        ];
        named.into_iter().filter(|(_, named)| *named).map(|(name, _)| name).collect()
    }
}

/// Makes a pod's files.
pub(crate) async fn make(ctx: &Context, meta: &SandboxMeta) -> Result<()> {
    make_some(ctx, meta, Files::all(meta)).await
}

/// Makes those of a pod's files again that are gone; answers which.
pub(crate) async fn remake(ctx: &Context, sandbox: &Sandbox) -> Result<Vec<&'static str>> {
    // Two containers must not get two of them.
    let _alone = sandbox.remaking.lock().await;
    let (ctx_, meta) = (ctx.clone(), sandbox.meta.clone());
    let gone = blocking(move || Ok::<_, Error>(Files::gone(&ctx_, &meta))).await?;
    let remade = gone.names();
    if !remade.is_empty() {
        make_some(ctx, &sandbox.meta, gone).await?;
    }
    Ok(remade)
}

async fn make_some(ctx: &Context, meta: &SandboxMeta, wanted: Files) -> Result<()> {
    let dir = ctx.layout.sandbox_dir(&meta.id);
    let shm = ctx.layout.shm(&meta.id);
    let files = ctx.layout.pod_files(&meta.id);
    let (shm_, files_, owner) = (shm.clone(), files.clone(), ctx.owner(meta));
    // A directory that the request names is its owner's affair.
    let logs = meta.config.log_directory.is_empty().then(|| ctx.layout.default_log_dir(&meta.id));
    blocking(move || {
        let io = |path: &Path| {
            let context = format!("write {}", path.display());
            move |e| Error::io(context, e)
        };
        failpoint!("sandbox.files.write").map_err(io(&dir))?;
        gate(&dir, owner.1).map_err(io(&dir))?;
        if wanted.mount {
            own_dir(&files_, PRIVATE_DIR).map_err(io(&files_))?;
        }
        if wanted.shm {
            own_dir(&shm_, PRIVATE_DIR).map_err(io(&shm_))?;
        }
        if let Some(logs) = logs {
            own_dir(&logs, PRIVATE_DIR).map_err(io(&logs))?;
        }
        Ok::<_, Error>(())
    })
    .await?;
    if wanted.mount {
        ctx.node.mount_files(&files, POD_FILES_SIZE).await?;
    }
    write(ctx, meta, wanted, owner).await?;
    if wanted.shm {
        ctx.node.mount_shm(&shm, ctx.config.containers.shm_size, owner).await?;
    }
    Ok(())
}

/// Whether the node has a hosts file that a pod's file system takes. Blocks.
fn hosts_can_be_copied() -> bool {
    std::fs::metadata(HOSTS).is_ok_and(|found| found.is_file() && found.len() <= HOSTS_MAX)
}

/// Writes the files that every container of the pod gets. A pod on the host's network has a copy of the node's hosts file,
/// unless that is too large.
async fn write(ctx: &Context, meta: &SandboxMeta, wanted: Files, owner: (u32, u32)) -> Result<()> {
    let hostname = (ctx.layout.hostname(&meta.id), format!("{}\n", meta.hostname));
    let resolv = (ctx.layout.resolv_conf(&meta.id), request::resolv_conf(meta.config.dns_config.as_ref()));
    let hosts = ctx.layout.hosts(&meta.id);
    blocking(move || {
        let write = |path: &Path, text: &[u8]| {
            write_readable(path, text, owner).map_err(|e| Error::io(format!("write {}", path.display()), e))
        };
        if wanted.hostname {
            write(&hostname.0, hostname.1.as_bytes())?;
        }
        if wanted.resolv_conf {
            // A node without one has no resolver to offer.
            let resolv_conf =
                resolv.1.unwrap_or_else(|| std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
            write(&resolv.0, resolv_conf.as_bytes())?;
        }
        if !wanted.hosts {
            return Ok(());
        }
        match std::fs::read(HOSTS) {
            Ok(text) if hosts_can_be_copied() => write(&hosts, &text),
            Ok(text) => {
                let bytes = text.len();
                tracing::warn!(
                    bytes,
                    "/etc/hosts of the node is too large to be copied into a pod: left out"
                );
                Ok(())
            }
            Err(_) => Ok(()),
        }
    })
    .await
}

/// A file that every user of the pod may read, whatever the daemon's umask, and that its root may write.
fn write_readable(path: &Path, bytes: &[u8], owner: (u32, u32)) -> std::io::Result<()> {
    failpoint!("sandbox.file.write")?;
    hull_files::write(path, bytes, 0o644)?;
    match owner {
        (0, 0) => Ok(()),
        (uid, gid) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
    }
}
