// SPDX-License-Identifier: Apache-2.0
//! `hull image import`: through the daemon that runs, else straight into its store.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hull_admin_api::v1::ImportImageRequest;
use hull_admin_api::v1::admin_client::AdminClient;
use hull_image_store::{ImageStore, LocalImageStore, local::LocalConfig};
use hull_server::config::Config;
use tonic::transport::{Channel, Endpoint};

/// Imports and prints what came.
pub(crate) fn import(path: &Path, config: Option<PathBuf>) -> Result<()> {
    let config = Config::load(config.as_deref())?;
    // The daemon has another working directory.
    let path = std::fs::canonicalize(path).with_context(|| format!("image archive {}", path.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let images = runtime.block_on(async {
        match connect(&config.listen).await {
            Some(channel) => through_daemon(channel, &path).await,
            None => directly(&config, &path).await,
        }
    })?;
    for (id, tags) in images {
        let tags = if tags.is_empty() { "<untagged>".to_owned() } else { tags.join(" ") };
        super::say(&format!("{id} {tags}"))?;
    }
    Ok(())
}

async fn connect(socket: &Path) -> Option<Channel> {
    Endpoint::try_from(format!("unix://{}", socket.display())).ok()?.connect().await.ok()
}

async fn through_daemon(channel: Channel, path: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let path = path.to_str().context("the path is not UTF-8")?.to_owned();
    let answer = AdminClient::new(channel).import_image(ImportImageRequest { path }).await;
    let images = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner().images;
    Ok(images.into_iter().map(|image| (image.id, image.repo_tags)).collect())
}

/// No daemon runs; its lock makes sure that none starts meanwhile.
async fn directly(config: &Config, path: &Path) -> Result<Vec<(String, Vec<String>)>> {
    hull_files::own_dir(&config.root, hull_files::SHARED_PARENT)
        .with_context(|| format!("make {}", config.root.display()))?;
    let _lock = hull_server::lock_root(&config.root).await?;
    let store = LocalConfig {
        quarantine: config.root.join("quarantine"),
        pinned: config.images.pinned.clone(),
        ..LocalConfig::new(config.root.join("images"))
    };
    let images = LocalImageStore::open(store)?.import(path).await?;
    Ok(images.iter().map(|image| (image.id.clone(), image.repo_tags.clone())).collect())
}
