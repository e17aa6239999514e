// SPDX-License-Identifier: Apache-2.0
//! Who wins between stops and execs: sequences of both, in simulated time, against a model.

use std::collections::HashMap;
use std::path::Path;

use hull_cri_api::v1;
use proptest::prelude::*;
use tokio::time::sleep_until;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::*;
use crate::backends::Backends;
use crate::config::Config;
use crate::context::Daemon;
use crate::layout::Layout;
use crate::{container, sandbox};

#[derive(Debug, Clone, Copy)]
enum Act {
    /// StopContainer with this timeout in seconds.
    Stop(u64),
    /// RemoveContainer.
    Remove,
    /// The workload ends by itself.
    Exit,
    /// An exec that ends at once.
    Exec,
}

/// Acts, and how many seconds each comes after the one before.
fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let act = prop_oneof![
        4 => (0..12u64).prop_map(Act::Stop),
        1 => Just(Act::Remove),
        1 => Just(Act::Exit),
        6 => Just(Act::Exec),
    ];
    prop::collection::vec((1..5u64, act), 1..10)
}

/// The model: the second at which execs end, which is the earliest end of any grace period, or the container's.
fn end_of_execs(acts: &[(u64, Act)]) -> Option<u64> {
    let mut now = 0;
    let ends = acts.iter().filter_map(|(gap, act)| {
        now += gap;
        match act {
            Act::Stop(patience) => Some(now + patience),
            Act::Remove | Act::Exit => Some(now),
            Act::Exec => None,
        }
    });
    ends.min()
}

/// A daemon of mocks with a container that runs and ignores SIGTERM.
async fn running(dir: &Path) -> (Context, Arc<Container>) {
    let config = Config::mock(dir);
    let layout = Layout { root: config.root.clone(), run_root: config.run_root.clone() };
    layout.make().unwrap();
    let backends = Backends::open(&config).await.unwrap();
    let ctx = Arc::new(Daemon::new(config, layout, backends).unwrap());
    let metadata = v1::PodSandboxMetadata {
        name: "web".into(),
        uid: "u".into(),
        namespace: "default".into(),
        attempt: 0,
    };
    let pod = v1::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    let request = v1::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
    let pod_sandbox_id = sandbox::run::run(&ctx, request).await.unwrap();
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "app".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        annotations: HashMap::from([("io.hull.mock.ignore-term".into(), "true".into())]),
        ..Default::default()
    };
    let request =
        v1::CreateContainerRequest { pod_sandbox_id, config: Some(config), sandbox_config: Some(pod) };
    let id = container::create::create(&ctx, request).await.unwrap();
    container::start::start(&ctx, &id).await.unwrap();
    let container = ctx.store.container_exact(&id).unwrap();
    (ctx, container)
}

async fn exec(ctx: Context, id: String, words: &[&str]) -> Result<v1::ExecSyncResponse> {
    let cmd = words.iter().map(|word| (*word).to_owned()).collect();
    let request = v1::ExecSyncRequest { container_id: id, cmd, timeout: 0 };
    container::exec_sync::exec_sync(&ctx, request).await
}

async fn play(acts: &[(u64, Act)]) {
    let dir = tempfile::tempdir().unwrap();
    let (ctx, container) = running(dir.path()).await;
    let id = container.id().to_owned();
    let spawn = |work| AbortOnDropHandle::new(tokio::spawn(work));
    let long = exec(ctx.clone(), id.clone(), &["sleep", "100000"]);
    let long = AbortOnDropHandle::new(tokio::spawn(long));
    let due = end_of_execs(acts);
    let begin = Instant::now();
    let (mut now, mut ends) = (0, Vec::new());
    for (gap, act) in acts {
        now += gap;
        let at = begin + Duration::from_secs(now);
        sleep_until(at).await;
        let (ctx_, id_) = (ctx.clone(), id.clone());
        match *act {
            Act::Stop(patience) => {
                let patience = i64::try_from(patience).unwrap();
                let work: futures_util::future::BoxFuture<'static, Result<()>> =
                    Box::pin(async move { stop(&ctx_, &id_, patience).await });
                ends.push(spawn(work));
            }
            Act::Remove => {
                ends.push(spawn(Box::pin(async move { container::remove::remove(&ctx_, &id_).await })));
            }
            Act::Exit => {
                let kill = KillRequest { id: id_, signal: SIGKILL, target: KillTarget::Init, process: None };
                let _ = ctx.handlers["mock"].runtime.kill(&kill).await;
            }
            Act::Exec => {}
        }
        // Off the moments at which something ends.
        sleep_until(at + Duration::from_millis(300)).await;
        let lives = due.is_none_or(|due| now < due);
        if matches!(act, Act::Exec) {
            let served = exec(ctx.clone(), id.clone(), &["true"]).await;
            assert_eq!(served.is_ok(), lives, "at {now} s: {served:?}");
            let refusals = [Code::FailedPrecondition, Code::NotFound];
            assert!(served.as_ref().err().is_none_or(|error| refusals.contains(&error.code())), "{served:?}");
        }
        assert_eq!(!long.is_finished(), lives, "the exec that runs, at {now} s");
    }
    for end in ends {
        end.await.unwrap().unwrap();
    }
    if due.is_some() {
        let ended = long.await.unwrap().unwrap();
        assert_eq!(ended.exit_code, 137, "it ends with its container, and its caller learns how");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Execs are served, and those that run live, until the earliest end of any stop's grace period, whatever else is
    /// asked; from then on they are refused, and those that run end with the container.
    #[test]
    fn execs_are_served_until_sigkill_is_due(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(play(&acts));
    }
}
