// SPDX-License-Identifier: Apache-2.0
//! The thin gRPC layer: takes requests apart, calls a verb, logs a failure once, converts.

pub(crate) mod admin;
mod chunks;
pub(crate) mod deadline;
pub(crate) mod image;
pub(crate) mod node_status;
pub(crate) mod runtime;

use tonic::{Response, Status};

use crate::error::{Error, Result, chain};

/// A verb's result as gRPC wants it.
fn answer<T>(operation: &'static str, result: Result<T>) -> std::result::Result<Response<T>, Status> {
    match result {
        Ok(value) => Ok(Response::new(value)),
        Err(error) => {
            let status = Status::from(&error);
            tracing::debug!(operation, code = ?status.code(), error = %chain(&error), "refused");
            Err(status)
        }
    }
}

/// A later version's RPC.
fn unimplemented<T>(operation: &str) -> std::result::Result<Response<T>, Status> {
    Err(Error::Unimplemented { what: operation.to_owned() }.into())
}
