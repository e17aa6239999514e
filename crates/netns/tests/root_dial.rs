// SPDX-License-Identifier: Apache-2.0
//! Connections into the kernel's namespaces, besides the contract. Needs root and HULL_ROOT_TESTS=1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod kernel;

use std::fs;
use std::io::Read;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use hull_netns::{Connection, DialRequest, Error, LinuxNetNs, NetNsManager, NetNsPath, Result};
use kernel::{everything, root_test, serve, with_user};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where a served connection tells what it saw.
static SEEN: Mutex<Option<mpsc::SyncSender<String>>> = Mutex::new(None);

const PATIENCE: Duration = Duration::from_secs(60);

async fn dial(manager: &LinuxNetNs, network: &NetNsPath, port: u16) -> Result<Connection> {
    manager.dial(&DialRequest { network: Some(network.clone()), port, deadline: PATIENCE }).await
}

root_test!(a_service_on_ipv6_alone_is_reached_also_in_a_user_namespace, async |kernel| {
    let manager = kernel.manager();
    for request in [everything("six"), with_user("six-user")] {
        let network = manager.create(&request).await.unwrap().network.unwrap();
        let port =
            serve(Some(&network), "[::1]:0", 1, |mut stream| std::io::Write::write_all(&mut stream, b"six"));
        let mut connection = dial(&manager, &network, port).await.unwrap();
        let mut told = String::new();
        connection.read_to_string(&mut told).await.unwrap();
        assert_eq!(told, "six");
        manager.remove(&request.id).await.unwrap();
    }
});

root_test!(a_reset_arrives_as_one_and_an_end_as_an_end, async |kernel| {
    let manager = kernel.manager();
    let network = manager.create(&everything("cut")).await.unwrap().network.unwrap();
    for (cut, expected) in [(true, "connection reset"), (false, "end")] {
        let (seen, told) = mpsc::sync_channel(2);
        *SEEN.lock().unwrap() = Some(seen);
        let port = serve(Some(&network), "127.0.0.1:0", 1, |mut stream| {
            let seen = SEEN.lock().unwrap().take().unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes)?;
            seen.send("bytes".to_owned()).unwrap();
            let end =
                stream.read(&mut bytes).map_or_else(|error| error.kind().to_string(), |_| "end".to_owned());
            seen.send(end).unwrap();
            Ok(())
        });
        let mut connection = dial(&manager, &network, port).await.unwrap();
        connection.write_all(b"bytes").await.unwrap();
        // A reset would throw away what was not read yet.
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "bytes");
        if cut {
            connection.reset();
        }
        drop(connection);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected);
    }
    manager.remove("cut").await.unwrap();
});

root_test!(a_file_that_is_no_namespace_is_told, async |kernel| {
    let path = kernel.dir.path().join("file");
    fs::write(&path, "").unwrap();
    let outcome = dial(&kernel.manager(), &NetNsPath::unverified(&path), 1).await;
    let error = outcome.unwrap_err();
    assert!(matches!(&error, Error::Io { path: told, .. } if *told == path), "{error}");
});
