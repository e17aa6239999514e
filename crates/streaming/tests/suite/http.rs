// SPDX-License-Identifier: Apache-2.0
//! A server to test.

use std::sync::Arc;
use std::time::Duration;

use hull_streaming::{Config, Context, ExecRequest, PortForwardRequest, Request, Server, Stdio};

use crate::handler::TestHandler;
pub(crate) use hull_stream_client::http::{ask, connect, parts, read_answer, soon, spdy_headers, ws_headers};

pub(crate) struct Tested {
    pub(crate) server: Server,
    pub(crate) handler: Arc<TestHandler>,
}

pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Tested {
    let mut config = Config::default();
    config.timeouts.close_linger = Duration::from_secs(2);
    change(&mut config);
    let handler = Arc::new(TestHandler::default());
    let server = Server::start(config, handler.clone()).await.unwrap();
    Tested { server, handler }
}

/// `tty`, `stdin`, `stdout`, `stderr`, in any order.
pub(crate) fn stdio(names: &str) -> Stdio {
    let has = |name| names.split(' ').any(|own| own == name);
    Stdio { tty: has("tty"), stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") }
}

impl Tested {
    pub(crate) fn exec(&self, names: &str, command: &str) -> String {
        let command = command.split(' ').map(str::to_owned).collect();
        let (container_id, context) = ("container".to_owned(), Context::default());
        let request = ExecRequest { container_id, command, stdio: stdio(names), context };
        self.server.issue(Request::Exec(request)).unwrap()
    }

    pub(crate) fn forward(&self, ports: &[u16]) -> String {
        let (sandbox_id, ports, context) = ("sandbox".to_owned(), ports.to_vec(), Context::default());
        self.server.issue(Request::PortForward(PortForwardRequest { sandbox_id, ports, context })).unwrap()
    }

    /// Waits until no session is left.
    pub(crate) async fn no_sessions(&self) {
        soon("the end of all sessions", async {
            while !self.server.sessions().list().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}
