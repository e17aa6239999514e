// SPDX-License-Identifier: Apache-2.0
//! The system calls that no safe wrapper offers. All unsafe code of the crate is here.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ExitStatus;

/// What `posix_spawn` is told.
#[derive(Debug)]
pub(crate) struct Image {
    /// A path, or a name without a slash to be looked up in the daemon's `PATH`.
    pub(crate) program: CString,
    /// Arguments, the name of the program first.
    pub(crate) argv: Vec<CString>,
    /// `KEY=VALUE`.
    pub(crate) envp: Vec<CString>,
    /// The working directory, if not the daemon's.
    pub(crate) dir: Option<CString>,
    /// Descriptors and the numbers they get; no source has the number of a target.
    pub(crate) fds: Vec<(OwnedFd, RawFd)>,
}

struct FileActions(libc::posix_spawn_file_actions_t);
struct Attributes(libc::posix_spawnattr_t);

/// Starts a program in its own process group, with an empty signal mask and default signal actions.
///
/// # Errors
/// What the child met before its program ran (`ENOENT`, `EACCES`, ...), or what the fork met.
pub(crate) fn posix_spawn(image: &Image) -> io::Result<i32> {
    let mut actions = FileActions::new()?;
    if let Some(dir) = &image.dir {
        actions.chdir(dir)?;
    }
    for (fd, target) in &image.fds {
        actions.dup2(fd.as_fd(), *target)?;
    }
    actions.close_others(image)?;
    let attributes = Attributes::new()?;
    let (argv, envp) = (pointers(&image.argv), pointers(&image.envp));
    let mut pid = 0;
    // SAFETY: actions and attributes are initialised; argv and envp end with a null pointer and point
    // into `image`, which outlives the call; the callee does not write through them.
    let code = unsafe {
        libc::posix_spawnp(
            &mut pid,
            image.program.as_ptr(),
            &actions.0,
            &attributes.0,
            argv.as_ptr(),
            envp.as_ptr(),
        )
    };
    check(code).map(|()| pid)
}

/// Signals the process of a pidfd, or with `group` the process group that has its number.
///
/// The group form (Linux 6.9) cannot hit a recycled number, even after the leader was reaped.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int, group: bool) -> io::Result<()> {
    let flags = if group { libc::PIDFD_SIGNAL_PROCESS_GROUP } else { 0 };
    let info: *const libc::siginfo_t = ptr::null();
    // SAFETY: a null siginfo is allowed; the other arguments are numbers.
    let code = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, flags) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Signals a process group by number; `0` only asks whether it exists.
pub(crate) fn kill_group(pgid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: killpg takes numbers and touches no memory of ours.
    let code = unsafe { libc::killpg(pgid, signal) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks the kernel how the process of a pidfd ended (Linux 6.15); `None` where it does not tell.
pub(crate) fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    // SAFETY: `pidfd_info` is made of integers, for which zero is a value.
    let mut info: libc::pidfd_info = unsafe { MaybeUninit::zeroed().assume_init() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the request carries the size of the structure, and the kernel writes no more than that.
    let code = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &mut info) };
    (code == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0)
        .then(|| ExitStatus::from_wait_status(info.exit_code))
}

/// Has the runtime tell when a descriptor becomes readable.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same descriptor until it is dropped, and it is handed over.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// The functions of `spawn.h` return the error number instead of setting `errno`.
fn check(code: c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

fn pointers(strings: &[CString]) -> Vec<*mut c_char> {
    strings.iter().map(|s| s.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

// === impl FileActions ===

impl FileActions {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: init writes the object that it is given.
        check(unsafe { libc::posix_spawn_file_actions_init(raw.as_mut_ptr()) })?;
        // SAFETY: init succeeded.
        Ok(Self(unsafe { raw.assume_init() }))
    }

    fn chdir(&mut self, dir: &CStr) -> io::Result<()> {
        // SAFETY: initialised object; the path is copied by the callee.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, dir.as_ptr()) })
    }

    /// Closes all but the standard streams and the targets. Ours are close-on-exec, but the daemon may have
    /// been started with others, and a library in it may open some; none must reach a foreign program.
    fn close_others(&mut self, image: &Image) -> io::Result<()> {
        let targets: BTreeSet<RawFd> = image.fds.iter().map(|(_, target)| *target).collect();
        let above = targets.last().map_or(3, |last| last + 1).max(3);
        for number in (3..above).filter(|number| !targets.contains(number)) {
            // SAFETY: initialised object and a number; closing what is not open is no error in the child.
            check(unsafe { libc::posix_spawn_file_actions_addclose(&mut self.0, number) })?;
        }
        // SAFETY: as above.
        check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&mut self.0, above) })
    }

    fn dup2(&mut self, fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
        // SAFETY: initialised object and numbers.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, fd.as_raw_fd(), target) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

// === impl Attributes ===

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: init writes the object that it is given.
        check(unsafe { libc::posix_spawnattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: init succeeded.
        let mut this = Self(unsafe { raw.assume_init() });
        let (mut none, mut all) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: sigemptyset writes the set that it is given. A set is an array of integers, of which all
        // bits may be set. (sigfillset would leave out the two signals that the C library keeps to itself,
        // and posix_spawn would then have the child ignore these.)
        let (none, all) = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            ptr::write_bytes(all.as_mut_ptr(), 0xff, 1);
            (none.assume_init(), all.assume_init())
        };
        let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        // SAFETY: initialised objects; the sets are copied by the callee. The flags are below 256.
        unsafe {
            check(libc::posix_spawnattr_setsigmask(&mut this.0, &none))?;
            check(libc::posix_spawnattr_setsigdefault(&mut this.0, &all))?;
            check(libc::posix_spawnattr_setpgroup(&mut this.0, 0))?;
            check(libc::posix_spawnattr_setflags(&mut this.0, flags as libc::c_short))?;
        }
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}
