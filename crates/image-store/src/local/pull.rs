// SPDX-License-Identifier: Apache-2.0
//! Pulling an image from its registry.
//!
//! ```text
//! reference --> is a digest that is present? --> done, without a question
//!     |
//! join the pull that runs for it, or start one (`join`)
//!     |
//! manifest [-> index -> manifest] -> config            (`resolve`; what is here already is not fetched)
//!     |
//! hold the diff ids
//!     |
//! layers, some side by side (`fetch`):  registry -> size, digest -> channel -> thread: inflate, unpack -> diff id -> rename
//!     |
//! record, as an import does
//! ```
//! No blob of a layer is ever kept. A layer becomes visible when both of its digests are right, an image when its
//! record is written. What fails before that is deleted: half-made layers by their threads, whole ones that no
//! image has by the pull. There is no deadline for the whole: every wait within has its own (see `hull_registry`).

mod credentials;
mod fetch;
mod join;
mod resolve;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use hull_failpoint::{failpoint, failpoint_async};
use hull_registry::{Credentials, Repository};
use tokio_util::sync::CancellationToken;

use super::layers::Hold;
use super::{Inner, io_error, lock};
use crate::reference::{Query, Reference};
use crate::{Error, Image, PullError, PullRequest, Result};

pub(super) use join::Pulls;

/// What makes two pulls the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Job {
    reference: Reference,
    credentials: Option<Credentials>,
}

/// Answers from what is present, joins a pull or starts one.
pub(super) async fn pull(
    inner: &Arc<Inner>,
    pulls: &Arc<Pulls>,
    request: &PullRequest,
) -> Result<Arc<Image>> {
    let query = Query::parse(&request.reference)?;
    let reference = match &query {
        Query::Name(reference, _) => reference.clone(),
        // An id names content that no registry can be asked for.
        Query::Id(_) => {
            let missing = || Error::NotPresent { reference: request.reference.clone() };
            return inner.catalog().find(&query)?.ok_or_else(missing);
        }
    };
    if reference.digest().is_some()
        && let Some(image) = inner.catalog().find(&Query::Name(reference.clone(), None))?
    {
        return Ok(image);
    }
    let credentials = match &request.auth {
        Some(auth) => credentials::of(auth, &reference).map_err(failed(&reference))?,
        None => None,
    };
    let job = Job { reference, credentials };
    let start = |cancel: CancellationToken| {
        let (inner, job) = (Arc::clone(inner), job.clone());
        async move { run(&inner, &job, &cancel).await }
    };
    pulls.join(&job, start).await
}

async fn run(inner: &Arc<Inner>, job: &Job, cancel: &CancellationToken) -> Result<Arc<Image>> {
    let started = Instant::now();
    let reference = &job.reference;
    let session = async {
        failpoint_async!("image-store.pull.open").map_err(io_error("pull into", &inner.config.root))?;
        let repository = Repository::new(reference.registry(), reference.repository());
        let session = inner.registry.open(repository, job.credentials.as_ref()).await;
        session.map_err(|error| failed(reference)(error.into()))
    };
    let session = Arc::new(unless(cancel, reference, session).await?);
    let resolving = resolve::resolve(inner, &session, reference);
    let resolved = unless(cancel, reference, resolving).await?;
    let mut diff_ids: Vec<_> = resolved.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    diff_ids.sort();
    diff_ids.dedup();
    let hold = Hold::new(Arc::clone(inner), diff_ids);
    let taken = take(inner, &session, reference, resolved, cancel).await;
    // Not on the runtime's threads: deleting takes a while.
    let cleaned = blocking(inner, move |inner| {
        let diff_ids = hold.diff_ids().to_vec();
        drop(hold);
        inner.collect_layers(&diff_ids)
    });
    match taken {
        Ok((image, fetched)) => {
            tracing::info!(image = %reference, id = %image.id, fetched, took = ?started.elapsed(), "pulled");
            Ok(image)
        }
        Err(error) => {
            if let Err(error) = cleaned.await {
                tracing::warn!(%error, "cannot delete the layers of a failed pull");
            }
            Err(error)
        }
    }
}

/// Layers, then the record; the image, and how many layers were fetched.
async fn take(
    inner: &Arc<Inner>,
    session: &Arc<hull_registry::Session>,
    reference: &Reference,
    resolved: resolve::Resolved,
    cancel: &CancellationToken,
) -> Result<(Arc<Image>, usize)> {
    let resolve::Resolved { found, layers } = resolved;
    let fetched = fetch::all(inner, session, reference, &layers, cancel).await?;
    let sizes = layers.iter().map(|layer| {
        let info = inner.layer_info(&layer.diff_id.to_string());
        info.map(|info| info.size).ok_or_else(|| Error::Invalid {
            origin: reference.to_string(),
            problem: format!("layer {} went away while the image was pulled", layer.diff_id),
        })
    });
    let sizes: Vec<u64> = sizes.collect::<Result<_>>()?;
    let image = blocking(inner, move |inner| {
        failpoint!("image-store.pull.record").map_err(io_error("record an image in", &inner.config.root))?;
        let _writer = lock(&inner.writer);
        inner.record(found, &sizes)
    });
    Ok((image.await?, fetched))
}

/// Runs async work that leaves nothing behind when it is dropped.
async fn unless<T>(
    cancel: &CancellationToken,
    reference: &Reference,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(failed(reference)(PullError::Cancelled)),
        result = work => result,
    }
}

/// Runs blocking work to its end.
async fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shared = Arc::clone(inner);
    match tokio::task::spawn_blocking(move || work(&shared)).await {
        Ok(result) => result,
        Err(error) => Err(io_error("finish work on", &inner.config.root)(std::io::Error::other(error))),
    }
}

fn failed(reference: &Reference) -> impl FnOnce(PullError) -> Error {
    let reference = reference.to_string();
    move |source| Error::Pull { reference, source }
}
