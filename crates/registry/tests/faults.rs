// SPDX-License-Identifier: Apache-2.0
//! A fault at every step comes out as an error, and the next try succeeds.
//!
//! One test alone: the points are the process's.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{bytes, password, read, with_hosts, with_image};
use hull_registry::testing::{Auth, TestRegistry};
use hull_registry::{Registry, Repository, Result, Version};

#[tokio::test]
async fn after_a_fault_at_any_step_the_next_try_succeeds() {
    let registry = with_image().await;
    let layer = bytes(1000);
    let digest = registry.put_blob(&layer);
    let dir = tempfile::tempdir().unwrap();
    let hosts = format!("server = \"{}\"", registry.url(""));
    TestRegistry::write_hosts(dir.path(), "example.com", &hosts);
    let client = Registry::new(with_hosts(dir.path()));
    let pull = async || -> Result<()> {
        let repository = Repository::new("example.com", "team/app");
        let session = client.open(repository, Some(&password("ann", "secret"))).await?;
        session.manifest(Version::Tag("1")).await?;
        read(&session, &digest, 1000).await.map(drop)
    };
    for point in [
        "registry.hosts.read",
        "registry.connect",
        "registry.request",
        "registry.token",
        "registry.manifest.read",
        "registry.blob.open",
        "registry.blob.read",
    ] {
        let user = Some(("ann".to_owned(), "secret".to_owned()));
        registry.require(Auth::Bearer { user, identity: None, anonymous: false, wider: None, realm: None });
        hull_failpoint::configure(&format!("{point}=1*error(injected)")).unwrap();
        let error = pull().await.expect_err(point);
        assert!(format!("{error:?}").contains("injected"), "{point}: {error:?}");
        hull_failpoint::clear();
        pull().await.unwrap_or_else(|error| panic!("after {point}: {error}"));
    }
}
