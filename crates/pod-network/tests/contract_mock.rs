// SPDX-License-Identifier: Apache-2.0
//! The contract on the mock.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hull_pod_network::PodNetwork;
use hull_pod_network::contract::{self, Step, Subject};
use hull_pod_network::mock::MockNetwork;
use proptest::prelude::*;

#[derive(Debug)]
struct Mock {
    file: PathBuf,
    newest: Mutex<Option<Arc<MockNetwork>>>,
}

#[async_trait]
impl Subject for Mock {
    async fn open(&self) -> Arc<dyn PodNetwork> {
        let mock = Arc::new(MockNetwork::persistent(&self.file).unwrap());
        *self.newest.lock().unwrap() = Some(Arc::clone(&mock));
        mock
    }

    async fn make_netns(&self, sandbox_id: &str) -> PathBuf {
        PathBuf::from(format!("/run/netns/hull-{sandbox_id}"))
    }

    async fn remove_netns(&self, _: &str) {}

    fn leases(&self) -> BTreeSet<IpAddr> {
        let newest = self.newest.lock().unwrap();
        newest.as_ref().unwrap().leases().into_iter().map(|(_, ip)| ip).collect()
    }
}

#[tokio::test]
async fn the_mock_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock { file: dir.path().join("network.json"), newest: Mutex::default() };
    contract::all(&mock).await;
}

proptest! {
    #[test]
    fn random_sequences_agree_with_the_model(steps in proptest::collection::vec(prop_oneof![
        3 => (0u8..4).prop_map(Step::Attach),
        2 => (0u8..4).prop_map(Step::Detach),
        1 => (0u8..16).prop_map(Step::Gc),
        1 => Just(Step::Restart),
    ], 0..30)) {
        let dir = tempfile::tempdir().unwrap();
        let mock = Mock { file: dir.path().join("network.json"), newest: Mutex::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(contract::follow(&mock, &steps));
    }
}
