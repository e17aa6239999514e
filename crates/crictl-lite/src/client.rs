// SPDX-License-Identifier: Apache-2.0
//! The connection to the runtime, and the deadline of each request.
//!
//! A deadline stands in the request's `grpc-timeout` header, so that the runtime knows it, and is kept
//! here as well, for a runtime that does not. Whichever fires first, the caller sees
//! `DEADLINE_EXCEEDED`.

use std::time::Duration;

use hull_cri_api::MAX_MESSAGE_BYTES;
use hull_cri_api::v1::image_service_client::ImageServiceClient;
use hull_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, TimeoutExpired};

use crate::cli::Cli;
use crate::error::Error;

/// How long it may take to connect to a socket of this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What the kubelet gives a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How much later than the runtime we give up: its own answer says more.
const GRACE: Duration = Duration::from_millis(200);

/// Client of the runtime service.
pub(crate) type Runtime = RuntimeServiceClient<Channel>;
/// Client of the image service.
pub(crate) type Images = ImageServiceClient<Channel>;

/// Where the services are, and how long a request may take.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    runtime_endpoint: String,
    image_endpoint: String,
    timeout: Option<Duration>,
}

impl Client {
    /// Takes the endpoints from the command line; does not connect yet.
    pub(crate) fn new(cli: &Cli) -> Self {
        Self {
            runtime_endpoint: cli.runtime_endpoint.clone(),
            image_endpoint: cli.image_endpoint.clone().unwrap_or_else(|| cli.runtime_endpoint.clone()),
            timeout: cli.timeout,
        }
    }

    /// Connects to the runtime service.
    pub(crate) async fn runtime(&self) -> Result<Runtime, Error> {
        self.runtime_at(&self.runtime_endpoint).await
    }

    /// The runtime's endpoint as given.
    pub(crate) fn runtime_endpoint(&self) -> &str {
        &self.runtime_endpoint
    }

    /// Connects to the runtime service at another endpoint.
    pub(crate) async fn runtime_at(&self, endpoint: &str) -> Result<Runtime, Error> {
        let channel = connect(endpoint).await?;
        Ok(RuntimeServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Connects to the image service.
    pub(crate) async fn images(&self) -> Result<Images, Error> {
        let channel = connect(&self.image_endpoint).await?;
        Ok(ImageServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The deadline of a plain request.
    pub(crate) fn limit(&self) -> Option<Duration> {
        self.limit_or(Some(REQUEST_TIMEOUT))
    }

    /// The deadline of RunPodSandbox: twice the usual, as the kubelet has it.
    pub(crate) fn run_pod_limit(&self) -> Option<Duration> {
        self.limit_or(Some(REQUEST_TIMEOUT * 2))
    }

    /// The deadline of a request that itself waits for `seconds`.
    pub(crate) fn limit_with(&self, seconds: i64) -> Option<Duration> {
        let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        self.limit_or(Some(REQUEST_TIMEOUT + wait))
    }

    /// The deadline of a request that may take as long as it takes, unless `--timeout` says otherwise.
    pub(crate) fn patient_limit(&self) -> Option<Duration> {
        self.limit_or(None)
    }

    fn limit_or(&self, usual: Option<Duration>) -> Option<Duration> {
        match self.timeout {
            Some(Duration::ZERO) => None,
            Some(timeout) => Some(timeout),
            None => usual,
        }
    }
}

/// Turns `unix:///PATH`, `unix:/PATH` or `/PATH` into the path.
pub(crate) fn socket_path(endpoint: &str) -> Result<&str, Error> {
    let path =
        endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(Error::Usage(format!("endpoint {endpoint:?} is not of the form unix:///PATH or /PATH")))
    }
}

async fn connect(endpoint: &str) -> Result<Channel, Error> {
    let path = socket_path(endpoint)?;
    let failed = |cause: String| Error::Connect { endpoint: endpoint.to_owned(), cause };
    let target = Endpoint::try_from(format!("unix://{path}")).map_err(|cause| failed(innermost(&cause)))?;
    match tokio::time::timeout(CONNECT_TIMEOUT, target.connect()).await {
        Ok(channel) => channel.map_err(|cause| failed(innermost(&cause))),
        Err(_) => Err(failed(format!("no answer within {} seconds", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// The text of the first cause; those around it only say that something failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Sends `message` through `rpc` and waits for the answer, at most for `limit`.
pub(crate) async fn call<M, R, F>(
    limit: Option<Duration>,
    message: M,
    rpc: impl FnOnce(Request<M>) -> F,
) -> Result<R, Status>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let mut request = Request::new(message);
    let Some(limit) = limit else {
        return rpc(request).await.map(Response::into_inner);
    };
    request.set_timeout(limit);
    match tokio::time::timeout(limit.saturating_add(GRACE), rpc(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if is_own_timer(&status) => Err(deadline(limit)),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(deadline(limit)),
    }
}

/// tonic watches the header's deadline too, on either side, and calls its passing a cancellation.
fn is_own_timer(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string()
}

fn deadline(limit: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {limit:?}"))
}

/// Gives a status its place: which command, on what.
pub(crate) fn rpc_error(operation: &'static str, id: &str) -> impl FnOnce(Status) -> Error {
    let id = id.to_owned();
    move |status| Error::Rpc { operation, id, status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for good in ["unix:///run/a.sock", "unix:/run/a.sock", "/run/a.sock"] {
            assert_eq!(socket_path(good).unwrap(), "/run/a.sock");
        }
        for bad in ["", "run/a.sock", "unix://run/a.sock", "tcp://127.0.0.1:1", "npipe:x"] {
            assert_eq!(socket_path(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_deadline_is_told_as_one_whoever_notices() {
        let silent = call(Some(Duration::from_millis(1)), (), |_: Request<()>| {
            std::future::pending::<Result<Response<()>, Status>>()
        });
        assert_eq!(silent.await.unwrap_err().code(), Code::DeadlineExceeded);
        let cancelled = call(Some(Duration::from_secs(9)), (), |_: Request<()>| async {
            Err::<Response<()>, _>(Status::from_error(Box::new(TimeoutExpired(()))))
        });
        assert_eq!(cancelled.await.unwrap_err().code(), Code::DeadlineExceeded);
        let other = call(Some(Duration::from_secs(9)), (), |_: Request<()>| async {
            Err::<Response<()>, _>(Status::cancelled("by the daemon"))
        });
        assert_eq!(other.await.unwrap_err().code(), Code::Cancelled);
    }
}
