// SPDX-License-Identifier: Apache-2.0
//! A terminal that the runtime makes, inside the container's own devpts: `tty` names a device that is there, and
//! the process leads a session that it belongs to.
//!
//! ```text
//! runtime --connect--> our socket: one message, the name of the device, with the master as SCM_RIGHTS
//! ```

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::{SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::net::{UnixListener, UnixStream};

use crate::TerminalSize;

/// `sun_path` of `unix(7)`, without its closing zero.
const LONGEST_PATH: usize = 107;
/// How long after the runtime's end its message may take to be read: it was sent before.
const MESSAGE_GRACE: Duration = Duration::from_secs(5);
/// Control-D, where a terminal does not tell.
const USUAL_END: u8 = 4;

/// The socket that the runtime sends the terminal to.
#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
    /// Held because `path` may lead through it.
    _dir: OwnedFd,
}

impl Console {
    /// Listens in the directory, however long its path is.
    pub(super) fn listen(dir: &Path) -> io::Result<Self> {
        const NAME: &str = "console";
        let held = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let direct = dir.join(NAME);
        let path = if direct.as_os_str().len() <= LONGEST_PATH {
            direct
        } else {
            // Another process reads it: by our number, not as `self`.
            PathBuf::from(format!("/proc/{}/fd/{}/{NAME}", std::process::id(), held.as_raw_fd()))
        };
        let listener = UnixListener::bind(&path)?;
        Ok(Self { listener, path, _dir: held })
    }

    /// What the runtime is told.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal; the runtime has ended.
    pub(super) async fn terminal(self) -> io::Result<Terminal> {
        let receive = async {
            let (stream, _) = self.listener.accept().await?;
            loop {
                stream.readable().await?;
                match stream.try_io(tokio::io::Interest::READABLE, || receive(&stream)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return outcome,
                }
            }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the runtime has sent no terminal");
        Terminal::new(tokio::time::timeout(MESSAGE_GRACE, receive).await.map_err(late)??)
    }
}

fn receive(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut ancillary, flags)?;
    let mut descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "the runtime's message holds no terminal");
    // Further ones, if there are any, are closed by the iterator.
    descriptors.by_ref().flatten().next().ok_or_else(missing)
}

/// Our side of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    master: OwnedFd,
}

impl Terminal {
    fn new(master: OwnedFd) -> io::Result<Self> {
        if !rustix::termios::isatty(&master) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the runtime sent something that is no terminal",
            ));
        }
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self { master })
    }

    pub(super) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.master, size)?)
    }

    pub(super) fn reader(&self) -> io::Result<Receiver> {
        // Not a pipe, but read by the same calls and told ready by the same means.
        Receiver::from_owned_fd_unchecked(self.master.as_fd().try_clone_to_owned()?)
    }

    pub(super) fn writer(&self) -> io::Result<Sender> {
        Sender::from_owned_fd_unchecked(self.master.as_fd().try_clone_to_owned()?)
    }

    /// The character that ends input.
    pub(super) fn end_of_file(&self) -> u8 {
        match tcgetattr(&self.master) {
            // Zero: switched off.
            Ok(settings) => Some(settings.special_codes[SpecialCodeIndex::VEOF]).filter(|code| *code != 0),
            Err(_) => None,
        }
        .unwrap_or(USUAL_END)
    }
}
