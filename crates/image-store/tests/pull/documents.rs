// SPDX-License-Identifier: Apache-2.0
//! Manifests, indexes and configs as old and odd builders write them.

use hull_image_store::Digest;
use serde_json::{Value, json};

use super::*;

const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Puts an image whose config has this text; `{diff_id}` is its layer's.
fn put(registry: &TestRegistry, tag: &str, config_type: &str, config: &[u8]) {
    let layer = Layer::new().file("f", tag, 0o644);
    let diff_id = Digest::of(&layer.tar()).to_string();
    let place = b"{diff_id}";
    let at = config.windows(place.len()).position(|window| window == place).unwrap();
    let config = [&config[..at], diff_id.as_bytes(), &config[at + place.len()..]].concat();
    let blob = layer.blob();
    let (config_digest, layer_digest) = (registry.put_blob(&config), registry.put_blob(&blob));
    let manifest = json!({"schemaVersion": 2, "mediaType": DOCKER_IMAGE,
        "config": {"mediaType": config_type, "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": layer.media_type(), "digest": layer_digest, "size": blob.len()}]});
    registry.put_manifest("team/odd", tag, DOCKER_IMAGE, manifest.to_string().as_bytes());
}

const CONFIG: &str = "application/vnd.docker.container.image.v1+json";

#[tokio::test]
async fn configs_are_read_as_go_reads_them() {
    let (_bench, store, registry, _) = scene().await;
    let rootfs = r#""rootfs":{"type":"layers","diff_ids":["{diff_id}"]}"#;
    for (tag, kind, text, expected) in [
        ("octets", "application/octet-stream", r#"{"os":"linux","config":{"User":"7"},R}"#, "7"),
        ("html", "text/html; charset=utf-8", r#"{"os":"linux","config":{"User":"7"},R}"#, "7"),
        ("json", "application/json", r#"{"os":"linux","config":{"User":"7"},R}"#, "7"),
        ("untyped", "", r#"{"os":"linux","config":{"User":"7"},R}"#, "7"),
        ("case", CONFIG, r#"{"OS":"linux","Config":{"user":"7","env":["A=1"]},R}"#, "7"),
        (
            "double",
            CONFIG,
            r#"{"os":"x","config":{"User":"6","Env":["A"]},R,"config":{"user":"7"},"os":"linux"}"#,
            "7",
        ),
        (
            "null",
            CONFIG,
            r#"{"os":"linux","config":{"User":"7","Env":["A=1",null],"Cmd":null,"Labels":null},R}"#,
            "7",
        ),
        ("surrogate", CONFIG, r#"{"os":"linux","config":{"User":"\ud800"},R}"#, "\u{fffd}"),
    ] {
        put(&registry, tag, kind, text.replace('R', rootfs).as_bytes());
        let image = pull(&store, &format!("{}/team/odd:{tag}", registry.host())).await;
        let image = image.unwrap_or_else(|error| panic!("{tag}: {}", words(&error)));
        assert_eq!((image.config.user.as_str(), image.config.os.as_str()), (expected, "linux"), "{tag}");
        if tag == "null" {
            assert_eq!(image.config.env, ["A=1", ""]);
        }
    }
    let latin = [
        &b"{\"os\":\"linux\",\"config\":{\"User\":\"M\xfcller\"},"[..],
        b"\"rootfS\":{\"diff_ids\":[\"{diff_id}\"]}}",
    ];
    put(&registry, "latin", CONFIG, &latin.concat());
    let image = pull(&store, &format!("{}/team/odd:latin", registry.host())).await.unwrap();
    assert_eq!(image.config.user, "M\u{fffd}ller");

    let chart = "application/vnd.cncf.helm.config.v1+json";
    put(&registry, "chart", chart, format!(r#"{{"os":"linux",{rootfs}}}"#).as_bytes());
    let error = pull(&store, &format!("{}/team/odd:chart", registry.host())).await.unwrap_err();
    assert!(words(&error).contains("an artifact, not an image"), "{}", words(&error));
}

#[tokio::test]
async fn entries_for_other_machines_may_be_faulty_and_mandatory_features_count() {
    let (_bench, store, registry, published) = scene().await;
    let here = hull_image_store::import::Platform::host().architecture;
    let entry = |platform: Value| {
        json!({"mediaType": OCI_IMAGE, "digest": published.digest,
               "size": published.encoded.manifest.len(), "platform": platform})
    };
    let plain = entry(json!({"os": "linux", "architecture": here}));
    let other = json!({"os": "linux", "architecture": "s390x"});
    let featured = json!({"mediaType": OCI_IMAGE, "digest": format!("sha256:{}", "1".repeat(64)), "size": 1,
        "platform": {"os": "linux", "architecture": here, "os.features": ["erofs"]}});
    let index = |tag: &str, entries: Vec<Value>| {
        let text = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string();
        registry.put_manifest("team/app", tag, OCI_INDEX, text.as_bytes());
        format!("{}/team/app:{tag}", registry.host())
    };
    for (tag, entries) in [
        ("no-size", vec![json!({"digest": "sha256:x", "platform": other}), plain.clone()]),
        ("no-digest", vec![plain.clone(), json!({"size": -1, "platform": other})]),
        (
            "null",
            vec![Value::Null, json!({"platform": {"os": "linux", "architecture": null}}), plain.clone()],
        ),
        ("feature-first", vec![featured.clone(), plain.clone()]),
        ("feature-last", vec![plain.clone(), featured.clone()]),
        ("no-features", vec![entry(json!({"os": "linux", "architecture": here, "os.features": []}))]),
    ] {
        let name = index(tag, entries);
        let image = pull(&store, &name).await.unwrap_or_else(|error| panic!("{tag}: {}", words(&error)));
        assert_eq!(image.id, published.id, "{tag}");
    }
    for (tag, entries, shown) in [
        ("none", vec![entry(other.clone())], "linux/s390x"),
        ("feature-alone", vec![featured], "with erofs"),
        ("empty", vec![], "no image at all"),
    ] {
        let error = pull(&store, &index(tag, entries)).await.unwrap_err();
        assert!(matches!(pull_error(&error), PullError::NoPlatform(_)), "{tag}: {error:?}");
        assert!(
            words(&error).contains("no image for linux/") && words(&error).contains(shown),
            "{}",
            words(&error)
        );
    }
    // The chosen one is held to what it says.
    let negative = json!({"mediaType": OCI_IMAGE, "digest": published.digest, "size": -1});
    let error = pull(&store, &index("negative", vec![negative])).await.unwrap_err();
    assert!(words(&error).contains("described with -1 bytes"), "{}", words(&error));
}
