// SPDX-License-Identifier: Apache-2.0
//! What the guest begins with: an archive of busybox, the modules of its file systems, one script and two units.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::kernel::Kernel;

/// What must be loaded before there is a root: the bus, this machine's files, memory above them, the swap disk.
const MODULES: [&str; 5] = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_blk"];

/// Units that would only cost time in a machine that lives for minutes, or that look for devices which are not there.
const MASKED: [&str; 22] = [
    "apt-daily.timer",
    "console-getty.service",
    "e2scrub_reap.service",
    "getty.target",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
];

/// The first file system of the guest.
pub(crate) fn initramfs(root: &Path, kernel: &Kernel, program: &Path, plan: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["bin", "m", "units", "proc", "sys", "dev", "share", "above", "root"] {
        archive.directory(dir);
    }
    let busybox = fs::read("/bin/busybox").context("read /bin/busybox")?;
    archive.program("bin/busybox", &busybox);
    let mut names = Vec::new();
    for file in kernel.with_needed(&MODULES)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        archive.file(&format!("m/{name}"), &bytes);
        names.push(name);
    }
    archive.file("units/hull-suites.target", TARGET.as_bytes());
    archive.file("units/hull-suites.service", service(program, plan).as_bytes());
    archive.program("init", init(root, &kernel.modules, &names).as_bytes());
    Ok(archive.finish())
}

/// Everything of a tree that systemd could want to write to is in memory; /usr and /etc show this machine's below.
/// The workspace is where it is here, so that what the tests were compiled with is right there too.
fn init(root: &Path, modules: &Path, names: &[String]) -> String {
    let masks: String =
        MASKED.iter().map(|unit| format!("$b ln -sf /dev/null $r/etc/systemd/system/{unit}\n")).collect();
    format!(
        "#!/bin/busybox sh\n\
         b=/bin/busybox\n\
         r=/root\n\
         stop() {{ echo \"initramfs: $1\"; $b poweroff -f; }}\n\
         $b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev\n\
         for m in {names}; do $b insmod /m/$m || stop \"cannot load $m\"; done\n\
         $b mount -t tmpfs -o mode=755 tmpfs $r\n\
         $b mount -t tmpfs -o mode=755 tmpfs /above\n\
         $b mkdir -p $r/usr $r/etc $r/var/lib/hull $r/tmp $r/run $r/proc $r/sys $r/dev $r/root $r/mnt $r/srv\n\
         for d in bin sbin lib lib64; do $b ln -s usr/$d $r/$d; done\n\
         for d in usr etc workspace; do\n\
         $b mkdir -p /share/$d /above/$d /above/work-$d\n\
         $b mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro $d /share/$d || stop \"cannot mount $d\"\n\
         done\n\
         over() {{\n\
         $b mkdir -p $2\n\
         $b mount -t overlay -o lowerdir=/share/$1,upperdir=/above/$1,workdir=/above/work-$1 overlay $2 || stop \"cannot lay over $1\"\n\
         }}\n\
         $b mount -t tmpfs -o mode=1777 tmpfs $r/tmp\n\
         over usr $r/usr; over etc $r/etc; over workspace $r{root}\n\
         $b mkdir -p $r/usr/lib/modules\n\
         $b mount --bind $r{modules} $r/usr/lib/modules\n\
         $b rm -rf $r/etc/systemd/system/*.wants $r/etc/fstab\n\
         echo 0123456789abcdef0123456789abcdef > $r/etc/machine-id\n\
         echo hull-cgroup2 > $r/etc/hostname\n\
         {masks}\
         $b cp /units/* $r/etc/systemd/system/\n\
         $b umount /proc /sys\n\
         exec $b switch_root $r /usr/lib/systemd/systemd\n",
        names = names.join(" "),
        root = root.display(),
        modules = modules.display(),
    )
}

const TARGET: &str = "\
[Unit]
Description=The suites of Hull
Requires=basic.target dbus.service hull-suites.service
After=basic.target dbus.service
";

fn service(program: &Path, plan: &Path) -> String {
    format!(
        "[Unit]\n\
         Description=The suites of Hull\n\
         After=basic.target dbus.service\n\
         [Service]\n\
         Type=oneshot\n\
         Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         ExecStartPre=-/sbin/swapon /dev/vda\n\
         ExecStart={} run-plan {}\n\
         ExecStopPost=/bin/systemctl poweroff --force --force\n\
         StandardOutput=file:/dev/ttyS1\n\
         StandardError=inherit\n\
         TimeoutStartSec=infinity\n\
         TasksMax=infinity\n",
        program.display(),
        plan.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_where_it_is_here() {
        let text = init(Path::new("/src/hull"), Path::new("/src/hull/target/m"), &["a.ko".to_owned()]);
        assert!(text.contains("over workspace $r/src/hull\n"), "{text}");
        assert!(text.contains("for m in a.ko;"));
        assert!(text.contains("ln -sf /dev/null $r/etc/systemd/system/ldconfig.service\n"));
        assert!(service(Path::new("/x"), Path::new("/p")).contains("ExecStart=/x run-plan /p\n"));
    }
}
