// SPDX-License-Identifier: Apache-2.0
//! `url`.

use hull_cri_api::v1::{AttachRequest, ExecRequest, PortForwardRequest};

use crate::cli::{Url, UrlKind};
use crate::client::{Client, call, rpc_error};
use crate::error::Failures;
use crate::output;

/// Prints where a client finds a session. Without a terminal and input: output is what clients of one's own read.
pub(crate) async fn url(client: &Client, args: Url) -> Result<(), Failures> {
    let mut runtime = client.runtime().await?;
    let (limit, id) = (client.limit(), args.id.clone());
    let url = match args.kind {
        UrlKind::Exec => {
            let request =
                ExecRequest { container_id: args.id, cmd: args.command, stdout: true, ..Default::default() };
            call(limit, request, |request| runtime.exec(request))
                .await
                .map_err(rpc_error("url exec", &id))?
                .url
        }
        UrlKind::Attach => {
            let request = AttachRequest { container_id: args.id, stdout: true, ..Default::default() };
            call(limit, request, |request| runtime.attach(request))
                .await
                .map_err(rpc_error("url attach", &id))?
                .url
        }
        UrlKind::PortForward => {
            let request = PortForwardRequest { pod_sandbox_id: args.id, port: Vec::new() };
            call(limit, request, |request| runtime.port_forward(request))
                .await
                .map_err(rpc_error("url port-forward", &id))?
                .url
        }
    };
    output::print_line(&url)?;
    Ok(())
}
