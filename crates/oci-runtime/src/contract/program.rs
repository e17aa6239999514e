// SPDX-License-Identifier: Apache-2.0
//! The world around a runtime that is a program: busybox bundles, direct create, real processes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hull_process::{Command, ProcessId, Stdio, reaper};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{self, Receiver};

use super::Fixture;
use crate::cli::create_failure;
use crate::{Error, OciRuntime, Result, RuntimeCommand};

/// The static shell whose links make a root file system.
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 14] = [
    "sh", "echo", "true", "false", "sleep", "setsid", "cat", "kill", "head", "yes", "ls", "id", "stty", "tty",
];
/// How long a create, or a process's end after a signal, may take here.
const LIMIT: Duration = Duration::from_secs(30);

/// A fixture for runtimes that are programs, in a private directory and below a private cgroup.
///
/// Needs root and a static `/bin/busybox`. The runtime's state directory must be [`ProgramFixture::root`].
#[derive(Debug)]
pub struct ProgramFixture {
    dir: TempDir,
    runtime: Arc<dyn OciRuntime>,
    cgroup: PathBuf,
    processes: Mutex<HashMap<String, ProcessId>>,
    /// The reading ends of the containers' outputs.
    outputs: Mutex<HashMap<String, Receiver>>,
}

impl ProgramFixture {
    /// Makes the directory and the root file system; `make` gets the directory and builds the runtime,
    /// whose state directory must be `DIR/root`. All cgroups are below `/NAME-PID`.
    ///
    /// # Errors
    /// Those of making files; busybox is missing.
    pub fn new(name: &str, make: impl FnOnce(&Path) -> io::Result<Arc<dyn OciRuntime>>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("hull-{name}-")).tempdir()?;
        for sub in ["root", "work", "logs", "bundles"] {
            fs::create_dir(dir.path().join(sub))?;
        }
        make_rootfs(&dir.path().join("rootfs"))?;
        let runtime = make(dir.path())?;
        let cgroup = PathBuf::from(format!("/hull-{name}-{}", std::process::id()));
        Ok(Self { dir, runtime, cgroup, processes: Mutex::default(), outputs: Mutex::default() })
    }

    /// The runtime's state directory.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Removes the cgroups that runtimes leave (the parent), and tells what should not be there.
    ///
    /// # Errors
    /// What is left, in words.
    pub fn finish(self) -> std::result::Result<(), String> {
        let mut left = Vec::new();
        for path in existing_cgroups(&self.cgroup) {
            // Containers' own cgroups would make this fail.
            if let Err(error) = fs::remove_dir(&path) {
                left.push(format!("{}: {error}", path.display()));
            }
        }
        for sub in ["root", "work"] {
            let entries = fs::read_dir(self.dir.path().join(sub)).map_err(|error| error.to_string())?;
            left.extend(entries.flatten().map(|entry| entry.path().display().to_string()));
        }
        if let Err(error) = self.dir.close() {
            left.push(format!("the directory: {error}"));
        }
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    }

    fn process_of(&self, id: &str) -> Option<ProcessId> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }
}

#[async_trait]
impl Fixture for ProgramFixture {
    fn runtime(&self) -> Arc<dyn OciRuntime> {
        Arc::clone(&self.runtime)
    }

    fn bundle(&self, id: &str) -> io::Result<PathBuf> {
        let bundle = self.dir.path().join("bundles").join(id);
        fs::create_dir_all(&bundle)?;
        let namespaces = ["pid", "mount", "uts", "ipc", "network"];
        // Written as JSON and not through types: what a runtime reads is the file.
        let config = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": ["sh", "-c", "trap 'exit 143' TERM; sleep 100000 & echo ready; wait"],
                "env": ["PATH=/bin"],
                "cwd": "/",
            },
            "root": { "path": self.dir.path().join("rootfs"), "readonly": true },
            "hostname": "contract",
            // A /dev of its own: the runtimes make devices and links in it, and the root is shared.
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=1m"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
            ],
            "linux": {
                "cgroupsPath": self.cgroup.join(id),
                "namespaces": namespaces.map(|kind| serde_json::json!({ "type": kind })),
            },
        });
        fs::write(bundle.join("config.json"), config.to_string())?;
        Ok(bundle)
    }

    async fn create(&self, command: &RuntimeCommand) -> Result<i32> {
        let id = command.id.as_str();
        let fail = |context: &str| {
            let context = context.to_owned();
            move |source| Error::Io { operation: "create", context, source }
        };
        let log = self.dir.path().join("logs").join(id);
        let pid_file = command.bundle.join("pid");
        let errors = File::create(&log).map_err(fail("making the log"))?;
        let (stdout, output) = pipe::pipe().map_err(fail("making a pipe"))?;
        let stdout = stdout.into_blocking_fd().map_err(fail("making a pipe"))?;
        let mut child = Command::new(&command.program)
            .args(command.global_args.iter().cloned())
            .arg(command.subcommand)
            .arg("--bundle")
            .arg(&command.bundle)
            .arg("--pid-file")
            .arg(&pid_file)
            .args(command.options.iter().cloned())
            .arg(id)
            .stdout(Stdio::Fd(stdout))
            .stderr(Stdio::Fd(errors.into()))
            .spawn()
            .map_err(|error| fail("starting create")(io::Error::other(error)))?;
        let status = tokio::time::timeout(LIMIT, child.wait())
            .await
            .map_err(|_| Error::TimedOut { operation: "create", after: LIMIT })?
            .map_err(|error| fail("waiting for create")(io::Error::other(error)))?;
        if !status.success() {
            let words = fs::read(&log).map_err(fail("reading the log"))?;
            return Err(create_failure(self.runtime.name(), id, &command.bundle, status, &words));
        }
        let text = fs::read_to_string(&pid_file).map_err(fail("reading the pid file"))?;
        let pid =
            text.trim().parse().map_err(|error| fail("reading the pid file")(io::Error::other(error)))?;
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), output);
        if let Some(process) = ProcessId::of(pid) {
            self.processes.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), process);
        }
        Ok(pid)
    }

    async fn ready(&self, id: &str) -> io::Result<()> {
        let output = self.outputs.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let mut output = output.ok_or_else(|| io::Error::other("it was never created"))?;
        let mut word = [0; 6];
        tokio::time::timeout(LIMIT, output.read_exact(&mut word)).await??;
        Ok(())
    }

    async fn ended(&self, _id: &str, pid: i32) -> Option<i32> {
        reaper::adopted(pid, Some(LIMIT)).await.map(hull_process::ExitStatus::code)
    }

    fn work_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn cgroup(&self, id: &str) -> Option<PathBuf> {
        Some(self.cgroup.join(id))
    }

    async fn leftovers(&self, id: &str) -> Vec<String> {
        let mut left: Vec<String> = existing_cgroups(&self.cgroup.join(id))
            .into_iter()
            .map(|path| format!("the cgroup {}", path.display()))
            .collect();
        if self.root().join(id).exists() {
            left.push("its state".to_owned());
        }
        if self.process_of(id).is_some_and(ProcessId::is_alive) {
            left.push("its process".to_owned());
        }
        let files = fs::read_dir(self.work_dir()).into_iter().flatten().flatten();
        left.extend(files.map(|file| format!("the file {}", file.path().display())));
        let _ = fs::remove_dir_all(self.dir.path().join("bundles").join(id));
        left
    }
}

/// Writes a script that runs crun where the machine has hybrid cgroups, which crun refuses: it hides
/// the version 2 tree in a private mount namespace. Answers the script's path, to be used as the program.
///
/// The propagation of all other mounts stays as it is, so that volumes still receive mounts.
///
/// # Errors
/// Those of writing the file.
pub fn crun_wrapper(dir: &Path) -> io::Result<PathBuf> {
    const SCRIPT: &str = r#"#!/bin/sh
exec unshare --mount --propagation unchanged /bin/sh -c '
    mount --make-rprivate /sys/fs/cgroup &&
    mount -t tmpfs cover /sys/fs/cgroup/unified &&
    exec crun "$@"' crun "$@"
"#;
    // Nothing to be hidden: each program more would be felt on an emulated machine.
    const PLAIN: &str = "#!/bin/sh\nexec crun \"$@\"\n";
    let script = if Path::new("/sys/fs/cgroup/unified").is_dir() { SCRIPT } else { PLAIN };
    let path = dir.join("crun");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn make_rootfs(root: &Path) -> io::Result<()> {
    for sub in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(sub))?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).map_err(|error| {
        io::Error::new(error.kind(), format!("copying {BUSYBOX} (install busybox-static): {error}"))
    })?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}

/// The directories of a cgroup in every hierarchy, looked for without any library's help.
fn existing_cgroups(cgroup: &Path) -> Vec<PathBuf> {
    let below = cgroup.strip_prefix("/").unwrap_or(cgroup);
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    // A link (cpu -> cpu,cpuacct) would be seen twice.
    let mut found: Vec<_> = hierarchies
        .filter(|path| !path.is_symlink())
        .chain([top.to_owned()])
        .map(|hierarchy| hierarchy.join(below))
        .filter(|path| path.is_dir())
        .collect();
    found.dedup();
    found
}
