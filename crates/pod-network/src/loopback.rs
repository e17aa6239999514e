// SPDX-License-Identifier: Apache-2.0
//! Brings up `lo` inside a pod. No plugin is needed for that: it is one flag of one interface.

use std::io;
use std::path::Path;

use hull_failpoint::failpoint;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings up the loopback interface of a network namespace; the kernel then gives it 127.0.0.1 and
/// ::1. Idempotent. Blocks: call it from `spawn_blocking`.
///
/// # Errors
/// Those of open(2), setns(2), socket(2) and ioctl(2), naming the namespace.
pub fn up(netns: &Path) -> io::Result<()> {
    hull_netns::enter(netns, || {
        failpoint!("loopback.up.ioctl")?;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        flags::set_up(&socket, b"lo")
    })?
    .map_err(|e| io::Error::new(e.kind(), format!("bring up lo in {}: {e}", netns.display())))
}

#[expect(unsafe_code, reason = "the ioctls on interface flags have no safe wrapper")]
mod flags {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};

    /// Sets `IFF_UP` on an interface (netdevice(7)).
    pub(super) fn set_up(socket: &OwnedFd, name: &[u8]) -> io::Result<()> {
        // SAFETY: all bytes zero is a value of this C struct: arrays and a union of plain numbers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // One byte less: the name ends with NUL.
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name[..room].iter_mut().zip(name) {
            *to = from.cast_signed() as libc::c_char;
        }
        // SAFETY: the socket is open and the request is a valid ifreq that outlives the call.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: SIOCGIFFLAGS has filled this member of the union.
        unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
        // SAFETY: as for the call above.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
