// SPDX-License-Identifier: Apache-2.0
//! Private folders for the kernel's namespaces, checked for remains.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hull_netns::contract::Subject;
use hull_netns::{
    CreateRequest, Helper, IdMapping, LinuxConfig, LinuxNetNs, NetNsManager, NetNsPath, UserMappings, enter,
    helper,
};
use nix::mount::{MntFlags, umount2};
use tokio::net::TcpSocket;

/// Private folders, checked for remains and unmounted at the end.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) dir: tempfile::TempDir,
    silent: Mutex<Vec<TcpSocket>>,
}

impl Kernel {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), silent: Mutex::default() }
    }

    pub(crate) fn config(&self) -> LinuxConfig {
        LinuxConfig {
            netns_dir: self.dir.path().join("netns"),
            prefix: hull_netns::PREFIX.to_owned(),
            former_prefix: Some(hull_netns::FORMER_PREFIX.to_owned()),
            ns_dir: self.dir.path().join("ns"),
            helper: Helper {
                program: env!("CARGO_BIN_EXE_hull-netns-helper").into(),
                args: vec![helper::ARGUMENT.into()],
            },
        }
    }

    pub(crate) fn manager(&self) -> LinuxNetNs {
        LinuxNetNs::new(self.config())
    }

    pub(crate) fn pin(&self, id: &str) -> PathBuf {
        self.dir.path().join("netns").join(format!("hull.{id}"))
    }

    pub(crate) fn mounts(&self) -> Vec<String> {
        mounts_below(self.dir.path())
    }

    /// Nothing is left but the one mount of the folder on itself, which is then taken away.
    fn finish(self) {
        let netns_dir = self.dir.path().join("netns");
        assert!(fs::read_dir(&netns_dir).map_or(true, |mut entries| entries.next().is_none()));
        let ns_dir = self.dir.path().join("ns");
        assert!(fs::read_dir(&ns_dir).map_or(true, |mut entries| entries.next().is_none()));
        let left = self.mounts();
        assert!(left.len() <= 1, "stacked or left mounts: {left:#?}");
        if !left.is_empty() {
            umount2(&netns_dir, MntFlags::MNT_DETACH).unwrap();
        }
        assert!(self.mounts().is_empty());
        self.dir.close().unwrap();
    }
}

impl Subject for Kernel {
    fn open(&self) -> Arc<dyn NetNsManager> {
        Arc::new(self.manager())
    }

    fn leave_file(&self, _: &Arc<dyn NetNsManager>, id: &str) {
        fs::create_dir_all(self.dir.path().join("netns")).unwrap();
        File::create(self.pin(id)).unwrap();
    }

    fn echo(&self, network: Option<&NetNsPath>, connections: usize) -> u16 {
        serve(network, "127.0.0.1:0", connections, |mut stream| {
            let mut copy = stream.try_clone()?;
            io::copy(&mut stream, &mut copy)?;
            copy.shutdown(std::net::Shutdown::Write)
        })
    }

    /// That of a socket that does not listen, and keeps others from the port.
    fn silent_port(&self, _: &Arc<dyn NetNsManager>) -> u16 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        self.silent.lock().unwrap().push(socket);
        port
    }
}

/// Listens in a namespace whose loopback is brought up, for this many connections; the port.
pub(crate) fn serve(
    network: Option<&NetNsPath>,
    address: &str,
    connections: usize,
    serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + Copy + 'static,
) -> u16 {
    let address: SocketAddr = address.parse().unwrap();
    let listener = match network {
        None => TcpListener::bind(address),
        Some(network) => enter(network.as_path(), move || {
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
            assert!(up.success(), "{up}");
            TcpListener::bind(address)
        })
        .unwrap(),
    };
    let listener = listener.unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

pub(crate) fn root_tests_enabled() -> bool {
    if std::env::var_os("HULL_ROOT_TESTS").is_none_or(|value| value != "1") {
        return false;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(uid.split_whitespace().nth(2) == Some("0"), "HULL_ROOT_TESTS=1 needs root");
    true
}

fn mounts_below(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    info.lines().filter(|l| l.split(' ').nth(4).unwrap().starts_with(dir)).map(str::to_owned).collect()
}

pub(crate) fn run(test: impl AsyncFnOnce(&Kernel)) {
    let kernel = Kernel::new();
    runtime().block_on(test(&kernel));
    kernel.finish();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn everything(id: &str) -> CreateRequest {
    CreateRequest {
        id: id.to_owned(),
        network: true,
        ipc: true,
        uts: true,
        hostname: "pod-a".to_owned(),
        ..Default::default()
    }
}

/// As [`everything`], in a user namespace.
pub(crate) fn with_user(id: &str) -> CreateRequest {
    let ids = vec![IdMapping { container_id: 0, host_id: 100_000, length: 65536 }];
    CreateRequest { user: Some(UserMappings { uids: ids.clone(), gids: ids }), ..everything(id) }
}

macro_rules! root_test {
    ($name:ident, $body:expr) => {
        #[test]
        fn $name() {
            if !$crate::kernel::root_tests_enabled() {
                eprintln!("skipped: set HULL_ROOT_TESTS=1");
                return;
            }
            $crate::kernel::run($body);
        }
    };
}
pub(crate) use root_test;
