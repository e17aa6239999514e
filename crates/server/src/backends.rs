// SPDX-License-Identifier: Apache-2.0
//! The backends that a configuration asks for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_cgroups::{Cgroups, Mode};
use hull_conmon_client::Monitor;
use hull_conmon_client::conmon::{ConmonConfig, ConmonMonitor};
use hull_conmon_client::mock::MockMonitor;
use hull_image_store::mock::MockImageStore;
use hull_image_store::{ImageStore, LocalImageStore, local::LocalConfig, registry};
use hull_netns::mock::MockNetNs;
use hull_netns::{LinuxConfig, LinuxNetNs, NetNsManager};
use hull_oci_runtime::OciRuntime;
use hull_oci_runtime::cli::{CrunRuntime, Deadlines, RuncRuntime, RuntimeConfig, YoukiRuntime};
use hull_oci_runtime::mock::{MockRuntime, World};
use hull_pod_network::PodNetwork;
use hull_pod_network::bridge::{BridgeConfig, BridgeNetwork};
use hull_pod_network::cni::{CniConfig, CniNetwork};
use hull_pod_network::mock::MockNetwork;
use hull_systemd::Systemd;

use crate::config::{CgroupDriver, Config, HandlerConfig, ImagesBackend, NetworkBackend, RuntimeKind};
use crate::context::Handler;
use crate::error::{Error, Result};
use crate::node::{LinuxNode, MemoryNode, Node};
use crate::volume::helper;

/// Everything behind a trait.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) netns: Arc<dyn NetNsManager>,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) images: Arc<dyn ImageStore>,
    pub(crate) handlers: BTreeMap<String, Handler>,
    /// Those of them that are mocks, for tests to steer.
    pub(crate) mocks: Mocks,
    /// To be ended by name: its tasks.
    pub(crate) network_end: NetworkEnd,
    /// Looks at volumes; `None` where nothing is real.
    pub(crate) volume_helper: Option<PathBuf>,
    /// To be ended by name: its pulls.
    pub(crate) local_images: Option<LocalImageStore>,
}

/// What of a network has to be ended.
#[derive(Debug, Clone)]
pub(crate) enum NetworkEnd {
    Cni(Arc<CniNetwork>),
    Bridge(Arc<BridgeNetwork>),
    Nothing,
}

/// The mock backends of a daemon: what a test fails, delays and looks at. `None` where the backend is real.
#[derive(Debug, Clone, Default)]
pub struct Mocks {
    /// The simulated machine that mock runtimes and monitors share.
    pub world: Option<World>,
    /// Namespaces.
    pub netns: Option<Arc<MockNetNs>>,
    /// The pod network.
    pub network: Option<Arc<MockNetwork>>,
    /// Images.
    pub images: Option<Arc<MockImageStore>>,
}

// === impl Backends ===

impl Backends {
    /// Opens them. The mocks keep their state under `<run_root>/mock`, so that they survive the daemon
    /// as the real things do.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let mock_dir = config.run_root.join("mock");
        let mut mocks = Mocks::default();
        let simulated = config.runtime.handlers.values().all(|handler| handler.kind == RuntimeKind::Mock)
            && config.network.backend == NetworkBackend::Mock;
        let cgroups = if simulated { None } else { Some(Cgroups::detect()?) };
        if uses_mocks(config) {
            make_dir(&mock_dir)?;
        }
        let node: Arc<dyn Node> = match &cgroups {
            Some(cgroups) => {
                ask_for_systemd(config, cgroups).await?;
                Arc::new(LinuxNode::new(cgroups.clone(), Systemd::new())?)
            }
            None => Arc::new(MemoryNode::new(&mock_dir.join("boot"))?),
        };
        let netns: Arc<dyn NetNsManager> = if simulated {
            let mock = Arc::new(MockNetNs::persistent(mock_dir.join("netns.json"))?);
            mocks.netns = Some(mock.clone());
            mock
        } else {
            Arc::new(LinuxNetNs::new(LinuxConfig {
                netns_dir: config.network.netns_dir.clone(),
                ns_dir: config.run_root.join("ns"),
                ..LinuxConfig::default()
            }))
        };
        let (network, network_end): (Arc<dyn PodNetwork>, _) = match config.network.backend {
            NetworkBackend::Mock => {
                let mock = Arc::new(MockNetwork::persistent(mock_dir.join("network.json"))?);
                mocks.network = Some(mock.clone());
                (mock, NetworkEnd::Nothing)
            }
            NetworkBackend::Cni => {
                let network = Arc::new(CniNetwork::new(cni_config(config))?);
                (network.clone(), NetworkEnd::Cni(network))
            }
            NetworkBackend::Bridge => {
                let network = Arc::new(BridgeNetwork::open(bridge_config(config)).await?);
                (network.clone(), NetworkEnd::Bridge(network))
            }
        };
        let mut local_images = None;
        let images: Arc<dyn ImageStore> = match config.images.backend {
            ImagesBackend::Mock => {
                let mock = Arc::new(MockImageStore::persistent(&mock_dir.join("images"))?.with_busybox()?);
                // Who tests software against this server wants any image to be there.
                mock.set_pull_any(true);
                mocks.images = Some(mock.clone());
                mock
            }
            ImagesBackend::Local => {
                let config = LocalConfig {
                    quarantine: config.root.join("quarantine"),
                    pinned: config.images.pinned.clone(),
                    registry: registry::Config {
                        certs_dir: Some(config.images.certs_dir.clone()),
                        ..registry::Config::default()
                    },
                    ..LocalConfig::new(config.root.join("images"))
                };
                let store = crate::records::blocking(move || LocalImageStore::open(config)).await?;
                local_images = Some(store.clone());
                Arc::new(store)
            }
        };
        let handlers = handlers(config, cgroups.as_ref(), &mock_dir, &mut mocks)?;
        let volume_helper = (!simulated).then(|| PathBuf::from(helper::PROGRAM));
        Ok(Self { node, netns, network, images, handlers, mocks, network_end, local_images, volume_helper })
    }
}

// === impl NetworkEnd ===

impl NetworkEnd {
    /// Ends it and waits.
    pub(crate) async fn shutdown(self) {
        match self {
            Self::Cni(network) => network.shutdown().await,
            Self::Bridge(network) => network.shutdown().await,
            Self::Nothing => {}
        }
    }
}

/// A driver that cannot work is told at the start, not with the first pod.
async fn ask_for_systemd(config: &Config, cgroups: &Cgroups) -> Result<()> {
    if config.runtime.cgroup_driver != CgroupDriver::Systemd {
        return Ok(());
    }
    if cgroups.mode() != Mode::V2 {
        let problem = "it needs cgroup version 2 alone; use cgroup_driver = \"cgroupfs\" on this machine";
        return Err(Error::io("use runtime.cgroup_driver = \"systemd\"", std::io::Error::other(problem)));
    }
    Systemd::new().probe().await?;
    Ok(())
}

fn uses_mocks(config: &Config) -> bool {
    config.network.backend == NetworkBackend::Mock
        || config.images.backend == ImagesBackend::Mock
        || config.runtime.handlers.values().any(|handler| handler.kind == RuntimeKind::Mock)
}

fn cni_config(config: &Config) -> CniConfig {
    CniConfig {
        conf_dir: config.network.cni_conf_dir.clone(),
        bin_dirs: config.network.cni_bin_dirs.clone(),
        cache_dir: config.root.join("cni"),
        add_deadline: config.timeouts.network,
        del_deadline: config.timeouts.release,
        exclusive: config.network.exclusive,
        ..CniConfig::default()
    }
}

fn bridge_config(config: &Config) -> BridgeConfig {
    let bridge = &config.network.bridge;
    BridgeConfig {
        name: bridge.name.clone(),
        subnets: bridge.subnets.clone(),
        mtu: bridge.mtu,
        state_dir: config.root.join("bridge"),
        quarantine: config.root.join("quarantine"),
        ..BridgeConfig::default()
    }
}

fn handlers(
    config: &Config,
    cgroups: Option<&Cgroups>,
    mock_dir: &Path,
    mocks: &mut Mocks,
) -> Result<BTreeMap<String, Handler>> {
    let mut handlers = BTreeMap::new();
    let mut conmon: Option<Arc<dyn Monitor>> = None;
    for (name, handler) in &config.runtime.handlers {
        let made = match handler.kind {
            RuntimeKind::Mock => {
                let world = match &mocks.world {
                    Some(world) => world.clone(),
                    None => {
                        let path = mock_dir.join("world.json");
                        World::persistent(&path)
                            .map_err(|e| Error::io(format!("open {}", path.display()), e))?
                    }
                };
                mocks.world = Some(world.clone());
                Handler {
                    runtime: Arc::new(MockRuntime::new(name.clone(), world.clone())),
                    monitor: Arc::new(MockMonitor::new(world)),
                }
            }
            kind => {
                // Tightened here, not only with the next container.
                make_dir(&attach_dir(&config.run_root))?;
                let monitor = conmon.get_or_insert_with(|| {
                    let mut settings =
                        ConmonConfig::new(&config.runtime.conmon, attach_dir(&config.run_root));
                    settings.cgroups = cgroups.cloned();
                    settings.systemd = Systemd::new();
                    Arc::new(ConmonMonitor::new(settings))
                });
                make_runtime_root(&config.run_root, &handler.root)?;
                Handler {
                    runtime: cli_runtime(config, name, handler, kind, cgroups),
                    monitor: monitor.clone(),
                }
            }
        };
        handlers.insert(name.clone(), made);
    }
    Ok(handlers)
}

fn cli_runtime(
    config: &Config,
    name: &str,
    handler: &HandlerConfig,
    kind: RuntimeKind,
    cgroups: Option<&Cgroups>,
) -> Arc<dyn OciRuntime> {
    let timeouts = &config.timeouts;
    let settings = RuntimeConfig {
        name: name.to_owned(),
        path: handler.path.clone(),
        root: handler.root.clone(),
        cgroups: cgroups.cloned(),
        deadlines: Deadlines {
            query: timeouts.runtime,
            start: timeouts.start,
            kill: timeouts.runtime,
            delete: timeouts.runtime,
            update: timeouts.runtime,
            pause: timeouts.runtime,
            exec_start: timeouts.start,
            exec_kill: timeouts.exec_extra,
            ..Deadlines::default()
        },
    };
    match kind {
        RuntimeKind::Crun => Arc::new(CrunRuntime::new(settings)),
        RuntimeKind::Youki => Arc::new(YoukiRuntime::new(settings)),
        RuntimeKind::Runc | RuntimeKind::Mock => Arc::new(RuncRuntime::new(settings)),
    }
}

/// Where the links to attach sockets are: short, because `sun_path` has 108 bytes and a container's id
/// takes 64 of them. A long `run_root` gets a directory named by its hash beside it in `/run`.
pub(crate) fn attach_dir(run_root: &Path) -> PathBuf {
    use sha2::{Digest, Sha256};
    let dir = run_root.join("a");
    if dir.as_os_str().len() <= LONGEST_ATTACH_DIR {
        return dir;
    }
    let hash = crate::id::hex(&Sha256::digest(run_root.as_os_str().as_encoded_bytes()));
    Path::new("/run").join(format!("hull-{}", hash.get(..12).unwrap_or(&hash)))
}

/// With 64 digits of an id, `/attach` and the slashes between: 107 bytes.
const LONGEST_ATTACH_DIR: usize = 35;

/// One elsewhere may be shared with other programs, and keeps the mode that it has.
fn make_runtime_root(run_root: &Path, dir: &Path) -> Result<()> {
    if dir.starts_with(run_root) {
        return make_dir(dir);
    }
    crate::layout::make_dir(dir, hull_files::PRIVATE_DIR)
        .map_err(|e| Error::io(format!("make directory {}", dir.display()), e))
}

fn make_dir(dir: &Path) -> Result<()> {
    crate::layout::own_dir(dir, hull_files::PRIVATE_DIR)
        .map_err(|e| Error::io(format!("make directory {}", dir.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attach_sockets_fit_into_an_address() {
        let id = "0".repeat(64);
        for run_root in ["/run/hull", &format!("/tmp/{}", "x".repeat(200))] {
            let socket = attach_dir(Path::new(run_root)).join(&id).join("attach");
            assert!(socket.as_os_str().len() <= 107, "{}", socket.display());
        }
        assert_ne!(attach_dir(Path::new(&"/a".repeat(50))), attach_dir(Path::new(&"/b".repeat(50))));
    }
}
