// SPDX-License-Identifier: Apache-2.0
//! `exec`.

use std::io::Write as _;

use hull_cri_api::v1::ExecSyncRequest;

use crate::cli::Exec;
use crate::client::{Client, call, rpc_error};
use crate::error::{Error, Failures};
use crate::output;

/// Runs a command in a container, prints what it printed, and gives its exit code.
pub(crate) async fn exec(client: &Client, args: Exec) -> Result<u8, Failures> {
    let mut runtime = client.runtime().await?;
    let limit = if args.timeout > 0 { client.limit_with(args.timeout) } else { client.patient_limit() };
    let request = ExecSyncRequest { container_id: args.id.clone(), cmd: args.command, timeout: args.timeout };
    let response = call(limit, request, |request| runtime.exec_sync(request))
        .await
        .map_err(rpc_error("exec", &args.id))?;
    output::print_bytes(&response.stdout)?;
    let mut err = std::io::stderr().lock();
    err.write_all(&response.stderr)
        .map_err(|cause| Error::Io { what: "write to standard error".to_owned(), cause })?;
    Ok(exit_code(response.exit_code))
}

/// What does not fit an exit code must not turn into success.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_turns_into_success() {
        assert_eq!([0, 1, 137, 255].map(exit_code), [0, 1, 137, 255]);
        assert_eq!([-1, 256, 512, i32::MIN].map(exit_code), [255; 4]);
    }
}
