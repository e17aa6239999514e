// SPDX-License-Identifier: Apache-2.0
//! The contract on the mock, in memory and on a file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hull_netns::contract::{self, Step, Subject};
use hull_netns::mock::MockNetNs;
use hull_netns::{NetNsManager, NetNsPath};
use proptest::prelude::*;

/// Keeps the newest instance, which is the one that a leftover is put into.
#[derive(Debug)]
struct Mock {
    file: PathBuf,
    newest: Mutex<Option<Arc<MockNetNs>>>,
}

impl Subject for Mock {
    fn open(&self) -> Arc<dyn NetNsManager> {
        let mock = Arc::new(MockNetNs::persistent(&self.file).unwrap());
        *self.newest.lock().unwrap() = Some(Arc::clone(&mock));
        mock
    }

    fn leave_file(&self, _: &Arc<dyn NetNsManager>, id: &str) {
        self.newest.lock().unwrap().as_ref().unwrap().leave_file(id).unwrap();
    }

    fn echo(&self, _: Option<&NetNsPath>, _: usize) -> u16 {
        8080
    }

    fn silent_port(&self, _: &Arc<dyn NetNsManager>) -> u16 {
        self.newest.lock().unwrap().as_ref().unwrap().silence(9);
        9
    }
}

fn with_mock(test: impl AsyncFnOnce(&Mock)) {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock { file: dir.path().join("netns.json"), newest: Mutex::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(&mock));
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0u8..3;
    let step = prop_oneof![
        id.clone().prop_map(Step::Create),
        id.clone().prop_map(Step::CreateNetwork),
        id.clone().prop_map(Step::CreateUser),
        id.clone().prop_map(Step::Remove),
        id.clone().prop_map(Step::RemoveAtOnce),
        Just(Step::Restart),
        id.prop_map(Step::LeaveFile),
    ];
    proptest::collection::vec(step, 0..25)
}

#[test]
fn the_fixed_cases() {
    with_mock(async |mock| contract::all(mock).await);
}

proptest! {
    #[test]
    fn random_sequences_agree_with_the_model(steps in steps()) {
        with_mock(async |mock| contract::follow(mock, &steps).await);
    }
}
