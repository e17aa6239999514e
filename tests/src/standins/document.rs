// SPDX-License-Identifier: Apache-2.0
//! Configs and manifests, in the forms that public registries hold them.

use hull_image_store::testing::{Encoded, ImageBuilder};
use hull_image_store::{Digest, ImageConfig};
use serde_json::{Value, json};

/// How an image is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One manifest of docker's kind.
    Docker,
    /// A list by platform, of docker's kind, with a platform first that is nobody's.
    List,
}

/// What a tag or a digest leads to.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) media_type: &'static str,
    pub(super) bytes: Vec<u8>,
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

// === impl Document ===

impl Document {
    fn new(media_type: &'static str, value: &Value) -> Self {
        Self { media_type, bytes: serde_json::to_vec(value).expect("JSON") }
    }

    pub(super) fn digest(&self) -> String {
        Digest::of(&self.bytes).to_string()
    }
}

/// The image with its layers on those of `below`, which were packed once for all.
pub(super) fn stack(below: &Encoded, image: &ImageBuilder) -> Encoded {
    let own = image.encode();
    let mut whole = below.clone();
    whole.layers.extend(own.layers);
    whole.diff_ids.extend(own.diff_ids);
    let mut config: Value = serde_json::from_slice(&own.config).expect("JSON");
    config["rootfs"]["diff_ids"] = json!(whole.diff_ids);
    whole.config = serde_json::to_vec(&config).expect("JSON");
    whole.manifest = Vec::new();
    whole
}

/// The documents of an image; the last is the one for its tags, those before are reached by digest.
pub(super) fn documents(image: &Encoded, config: &ImageConfig, form: Form) -> Vec<Document> {
    let layers: Vec<Value> = image.layers.iter().map(|(_, blob)| descriptor(LAYER, blob)).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &image.config),
        "layers": layers,
    });
    let manifest = Document::new(MANIFEST, &manifest);
    if form == Form::Docker {
        return vec![manifest];
    }
    let mut here = descriptor(MANIFEST, &manifest.bytes);
    let mut elsewhere = here.clone();
    here["platform"] = json!({ "os": config.os, "architecture": config.architecture });
    elsewhere["platform"] = json!({ "os": "plan9", "architecture": "mips" });
    let list = json!({ "schemaVersion": 2, "mediaType": LIST, "manifests": [elsewhere, here] });
    vec![manifest, Document::new(LIST, &list)]
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len() })
}

#[cfg(test)]
mod tests {
    use hull_image_store::testing::Layer;

    use super::*;

    #[test]
    fn layers_lie_on_those_below_and_the_list_leads_to_the_manifest() {
        let file = |name: &str| Layer::new().file(name, b"x", 0o644).gzip();
        let below = ImageBuilder::unnamed().layer(file("below")).encode();
        let image = ImageBuilder::unnamed().layer(file("own")).user("7");
        let whole = stack(&below, &image);
        assert_eq!(whole.layers, [below.layers.clone(), image.encode().layers].concat());
        let config: Value = serde_json::from_slice(&whole.config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        assert_eq!(config["config"]["User"], "7");

        let documents = documents(&whole, &image.config, Form::List);
        let list: Value = serde_json::from_slice(&documents[1].bytes).unwrap();
        let entry = list["manifests"].as_array().unwrap().iter().find(|it| it["platform"]["os"] == "linux");
        assert_eq!(entry.unwrap()["digest"], documents[0].digest());
        let manifest: Value = serde_json::from_slice(&documents[0].bytes).unwrap();
        assert_eq!(manifest["config"]["digest"], Digest::of(&whole.config).to_string());
        assert_eq!(manifest["layers"][0]["size"], below.layers[0].1.len());
    }
}
