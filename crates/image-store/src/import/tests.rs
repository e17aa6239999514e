// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
use super::*;
use crate::digest::sha256_text;
use crate::testing::{ImageBuilder, Layer};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

fn amd64() -> Platform {
    Platform { architecture: "amd64".to_owned(), variants: vec![String::new()] }
}

fn read_path(path: &Path) -> Result<Vec<Found>> {
    let scratch = tempfile::tempdir().unwrap();
    let source = Source::open(path, &scratch.path().join("x"), 1 << 30, CancellationToken::new())?;
    read(&source, &amd64())
}

fn image(architecture: &str) -> ImageBuilder {
    let mut image = ImageBuilder::unnamed().layer(Layer::new().file("arch", architecture, 0o644));
    image.config.architecture = architecture.to_owned();
    image
}

/// A layout with these blobs and this list of manifests.
fn layout(dir: &Path, blobs: &[Vec<u8>], manifests: &Value) -> PathBuf {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    for blob in blobs {
        fs::write(dir.join("blobs/sha256").join(&sha256_text(blob)[7..]), blob).unwrap();
    }
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    dir.to_owned()
}

fn blobs(image: &ImageBuilder) -> Vec<Vec<u8>> {
    image.encode().blobs().into_iter().map(|(_, blob)| blob.to_vec()).collect()
}

fn entry(image: &ImageBuilder, architecture: &str, variant: &str) -> Value {
    let mut descriptor = image.encode().manifest_descriptor();
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture, "variant": variant});
    descriptor
}

fn refusal(path: &Path) -> String {
    match read_path(path) {
        Err(error @ Error::Invalid { .. } | error @ Error::InvalidReference { .. }) => error.to_string(),
        other => panic!("expected a refusal: {other:?}"),
    }
}

#[test]
fn the_best_platform_of_an_index_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (arm, amd, amd_v3) = (image("arm64"), image("amd64"), image("amd64").cmd(&["v3"]));
    let attestation = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha256_text(b"x"),
        "size": 1, "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"}});
    let inner = json!({"schemaVersion": 2, "manifests":
        [entry(&arm, "arm64", "v8"), attestation, entry(&amd_v3, "amd64", "v3"), entry(&amd, "amd64", "")]});
    let inner = inner.to_string().into_bytes();
    let middle =
        json!({"manifests": [{"digest": sha256_text(&inner), "size": inner.len()}]}).to_string().into_bytes();
    let top = json!([{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": sha256_text(&middle),
        "size": middle.len(), "annotations": {"io.containerd.image.name": "docker.io/library/multi:1",
        "org.opencontainers.image.ref.name": "1"}}]);
    let blobs = [blobs(&arm), blobs(&amd), blobs(&amd_v3), vec![inner.clone(), middle.clone()]].concat();
    let found = read_path(&layout(&dir.path().join("l"), &blobs, &top)).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id.hex(), amd.id());
    assert_eq!(found[0].names[0].to_string(), "docker.io/library/multi:1");
    assert_eq!(found[0].indexes, [Digest::of(&middle), Digest::of(&inner)]);
}

#[test]
fn platforms_under_one_name_are_one_image_and_a_lone_foreign_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (arm, amd) = (image("arm64"), image("amd64"));
    let all = [blobs(&arm), blobs(&amd)].concat();
    let both = json!([entry(&arm, "arm64", ""), entry(&amd, "amd64", "")]);
    let found = read_path(&layout(&dir.path().join("both"), &all, &both)).unwrap();
    assert_eq!(found.iter().map(|f| f.id.hex().to_owned()).collect::<Vec<_>>(), [amd.id()]);
    let alone =
        read_path(&layout(&dir.path().join("alone"), &all, &json!([entry(&arm, "arm64", "")]))).unwrap();
    assert_eq!(alone[0].id.hex(), arm.id());
    let foreign = json!([entry(&arm, "arm64", ""), entry(&image("s390x"), "s390x", "")]);
    let problem = refusal(&layout(&dir.path().join("foreign"), &all, &foreign));
    assert!(problem.contains("no image for linux/amd64; it has linux/arm64, linux/s390x"), "{problem}");
}

#[test]
fn names_come_from_annotations_and_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let amd = image("amd64");
    for (annotation, file, name) in [
        ("latest", "nginx", Some("localhost/nginx:latest")),
        ("1.25", "My App", None),
        ("app:2", "x", Some("docker.io/library/app:2")),
        ("x.io/a/b", "x", Some("x.io/a/b:latest")),
        ("", "x", None),
    ] {
        let mut descriptor = entry(&amd, "amd64", "");
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": annotation});
        let path = layout(
            &dir.path().join(format!("{annotation}-/{file}").replace(':', "-")),
            &blobs(&amd),
            &json!([descriptor]),
        );
        let found = read_path(&path).unwrap();
        assert_eq!(found[0].names.first().map(ToString::to_string).as_deref(), name, "{annotation:?}");
    }
}

#[test]
fn broken_layouts_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let amd = image("amd64");
    let encoded = amd.encode();
    let good = encoded.manifest_descriptor();
    let check = |name: &str, blobs: &[Vec<u8>], manifests: Value, reason: &str| {
        let problem = refusal(&layout(&dir.path().join(name), blobs, &manifests));
        assert!(problem.contains(reason), "{name}: {problem}");
    };
    let with = |key: &str, value: Value| {
        let mut descriptor = good.clone();
        descriptor[key] = value;
        json!([descriptor])
    };
    check("empty", &[], json!([]), "no image for linux/amd64");
    check("missing", &[], json!([good]), "missing");
    check("size", &blobs(&amd), with("size", json!(5)), "descriptor says 5");
    check("digest", &blobs(&amd), with("digest", json!("sha256:../../etc/passwd")), "is not a digest");
    check(
        "sha512",
        &blobs(&amd),
        with("digest", json!(format!("sha512:{}", "0".repeat(128)))),
        "only sha256",
    );

    let document = |name: &str, bytes: Vec<u8>, reason: &str| {
        let descriptor = json!([{"digest": sha256_text(&bytes), "size": bytes.len()}]);
        check(name, &[blobs(&amd), vec![bytes]].concat(), descriptor, reason);
    };
    let mut both: Value = serde_json::from_slice(&encoded.manifest).unwrap();
    both["manifests"] = json!([]);
    document("both", both.to_string().into_bytes(), "both an index and a manifest");
    let mut artifact: Value = serde_json::from_slice(&encoded.manifest).unwrap();
    artifact["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    document("artifact", artifact.to_string().into_bytes(), "an artifact, not an image");
    let mut short: Value = serde_json::from_slice(&encoded.manifest).unwrap();
    short["layers"] = json!([]);
    document("short", short.to_string().into_bytes(), "0 layers, but its config has 1 diff ids");
    document("text", b"hello".to_vec(), "not a manifest");
    document("giant", vec![b' '; 5 << 20], "too much for a document");

    let flipped = layout(&dir.path().join("flipped"), &blobs(&amd), &json!([good]));
    let config = flipped.join("blobs/sha256").join(amd.id());
    let text = fs::read_to_string(&config).unwrap().replace("amd64", "AMD64");
    fs::write(&config, text).unwrap();
    assert!(refusal(&flipped).contains("its content has the digest"));
}

#[test]
fn a_layout_directory_cannot_name_files_outside() {
    let dir = tempfile::tempdir().unwrap();
    let amd = image("amd64");
    let path = layout(&dir.path().join("l"), &blobs(&amd), &json!([amd.encode().manifest_descriptor()]));
    let config = path.join("blobs/sha256").join(amd.id());
    fs::rename(&config, dir.path().join("outside")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("outside"), &config).unwrap();
    assert!(refusal(&path).contains("missing"));
}

#[test]
fn docker_archives_are_read_with_links_null_tags_and_compression() {
    let dir = tempfile::tempdir().unwrap();
    let amd = image("amd64");
    let encoded = amd.encode();
    let manifest = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["x/layer.tar"]},
        {"Config": "c.json", "RepoTags": ["app:1", "x.io/app"], "Layers": ["y/layer.tar"]}]);
    let archive = Layer::new()
        .file("manifest.json", manifest.to_string(), 0o644)
        .symlink("x/layer.tar", "../y/./layer.tar")
        .file("./y/layer.tar", amd.layers[0].blob(), 0o644)
        .file("c.json", &encoded.config, 0o644);
    for (name, bytes) in [("plain.tar", archive.blob()), ("a.tar.gz", archive.clone().gzip().blob())] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let found = read_path(&path).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].names.is_empty());
        let names: Vec<_> = found[1].names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["docker.io/library/app:1", "x.io/app:latest"]);
        assert_eq!(found[0].id.hex(), amd.id());
        assert_eq!(manifest_for(&found[0], &[10]), manifest_for(&found[1], &[10]));
    }
    let renamed = json!([{"Config": format!("{}.json", "0".repeat(64)), "Layers": ["l"]}]);
    let archive = Layer::new().file("manifest.json", renamed.to_string(), 0o644).file(
        &format!("{}.json", "0".repeat(64)),
        &encoded.config,
        0o644,
    );
    fs::write(dir.path().join("bad.tar"), archive.blob()).unwrap();
    assert!(refusal(&dir.path().join("bad.tar")).contains("its content has the digest"));
    let circle = Layer::new().symlink("manifest.json", "a").symlink("a", "manifest.json");
    fs::write(dir.path().join("circle.tar"), circle.blob()).unwrap();
    assert!(refusal(&dir.path().join("circle.tar")).contains("neither an OCI layout"));
}

#[test]
fn a_cancelled_import_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = image("amd64").write_archive(&dir.path().join("a.tar"));
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = Source::open(&path, &dir.path().join("x"), 1 << 30, cancel).unwrap_err().to_string();
    assert!(error.contains("cancelled"), "{error}");
}
