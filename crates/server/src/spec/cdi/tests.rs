// SPDX-License-Identifier: Apache-2.0
use std::collections::HashMap;
use std::fs;

use super::*;
use crate::spec::generate;
use crate::spec::tests::{Fixture, strings};

const GPU: &str = "cdiVersion: 0.6.0
kind: vendor.com/gpu
containerEdits:
  env: [VENDOR=common]
  mounts:
  - {hostPath: /usr/lib/libgpu.so, containerPath: /usr/lib/libgpu.so, options: [ro, nosuid]}
devices:
- name: zero
  containerEdits:
    env: [VENDOR_DEVICE=zero]
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/zero
      permissions: rw
    hooks:
    - {hookName: createContainer, path: /bin/true, args: [tool, x], timeout: 5}
    additionalGids: [44, 0]
- name: one
  containerEdits:
    deviceNodes:
    - {path: /dev/gpu1, type: c, major: 195, minor: 1, fileMode: 0600, uid: 9}
";

fn asks(names: &[&str], annotation: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        cdi_devices: names.iter().map(|&name| v1::CdiDevice { name: name.to_owned() }).collect(),
        annotations: HashMap::from([("cdi.k8s.io/plugin_x".to_owned(), annotation.to_owned())]),
        ..Default::default()
    }
}

fn found(names: &[&str], dirs: &[PathBuf]) -> Result<Edits, SpecError> {
    let mut config = asks(names, "");
    config.annotations.clear();
    resolve(&requested(&config).unwrap(), dirs)
}

#[test]
fn names_come_from_the_field_and_from_annotations() {
    let names = requested(&asks(&["a.com/x=1"], "b.com/y=all,a.com/x=1")).unwrap();
    assert_eq!(names.iter().map(DeviceName::as_str).collect::<Vec<_>>(), ["a.com/x=1", "b.com/y=all"]);
    for bad in ["", "x", "a.com/x", "a.com=1", "a.com/x=", "a.com/x=-1", "../x=1", "a/b/c=1"] {
        let mut config = asks(&[bad], "");
        config.annotations.clear();
        let error = requested(&config).unwrap_err().to_string();
        assert_eq!(error, format!("CDI_devices: {bad:?} is not of the form vendor/class=device"));
    }
    let error = requested(&asks(&[], "nonsense")).unwrap_err().to_string();
    assert!(error.starts_with("annotations[cdi.k8s.io/plugin_x]: "), "{error}");
}

#[test]
fn a_device_brings_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("gpu.yaml"), GPU).unwrap();
    let dirs = [dir.path().to_owned()];
    let edits = found(&["vendor.com/gpu=zero", "vendor.com/gpu=one"], &dirs).unwrap();

    let mut fixture = Fixture::new();
    fixture.container.cdi_devices = asks(&["vendor.com/gpu=zero"], "").cdi_devices;
    let mut input = fixture.input();
    input.cdi = Some(&edits);
    let spec = generate(&input).unwrap();
    let process = spec.process().clone().unwrap();
    let env = process.env().clone().unwrap();
    assert_eq!(env[env.len() - 2..], strings(&["VENDOR=common", "VENDOR_DEVICE=zero"]));
    assert_eq!(process.user().additional_gids().clone().unwrap(), [6, 7, 44]);
    let mounts = spec.mounts().clone().unwrap();
    let library = mounts.iter().find(|it| it.destination().ends_with("libgpu.so")).unwrap();
    assert_eq!(library.options().clone().unwrap(), strings(&["ro", "nosuid", "bind"]));
    let linux = spec.linux().clone().unwrap();
    let nodes: Vec<_> = linux
        .devices()
        .clone()
        .unwrap()
        .iter()
        .map(|it| (it.path().to_str().unwrap().to_owned(), it.major(), it.minor(), it.uid(), it.gid()))
        .collect();
    // Without an owner in the file, the container's user.
    assert_eq!(
        nodes,
        [("/dev/gpu0".into(), 1, 5, Some(5), Some(6)), ("/dev/gpu1".into(), 195, 1, Some(9), Some(6))]
    );
    let rules = linux.resources().clone().unwrap().devices().clone().unwrap();
    let shown: Vec<_> = rules.iter().map(|it| (it.allow(), it.major(), it.access().clone())).collect();
    let expected = [(false, None, "rwm"), (true, Some(1), "rw"), (true, Some(195), "rwm")];
    assert_eq!(shown, expected.map(|(allow, major, access)| (allow, major, Some(access.to_owned()))));
    let hook = spec.hooks().clone().unwrap().create_container().clone().unwrap().remove(0);
    assert_eq!((hook.args().clone().unwrap(), hook.timeout()), (strings(&["tool", "x"]), Some(5)));
}

#[test]
fn what_is_asked_for_and_not_found_is_not_dropped() {
    let mut fixture = Fixture::new();
    fixture.container.cdi_devices = asks(&["vendor.com/gpu=zero"], "").cdi_devices;
    let error = generate(&fixture.input()).unwrap_err().to_string();
    assert_eq!(error, "CDI_devices: not every device has been resolved");
}

#[test]
fn later_directories_win_and_doubles_in_one_are_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["etc", "run"].map(|name| dir.path().join(name));
    let put = |path: &str, env: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let device = serde_json::json!({"name": "d", "containerEdits": {"env": [env]}});
        let file = serde_json::json!({"cdiVersion": "1.0.0", "kind": "v.com/c", "devices": [device]});
        fs::write(path, file.to_string()).unwrap();
    };
    put("etc/a.json", "FROM=etc");
    put("run/a.json", "FROM=run");
    assert_eq!(found(&["v.com/c=d"], &dirs).unwrap().env, ["FROM=run"]);
    put("run/b.json", "FROM=other");
    let error = found(&["v.com/c=d"], &dirs).unwrap_err().to_string();
    assert!(error.contains("v.com/c=d is in ") && error.contains("b.json"), "{error}");
    fs::remove_dir_all(&dirs[1]).unwrap();
    assert_eq!(found(&["v.com/c=d"], &dirs).unwrap().env, ["FROM=etc"]);
}

#[test]
fn the_error_names_devices_and_files_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = [dir.path().to_owned()];
    let cases = [
        ("[", "EOF while parsing"),
        (
            "{\"cdiVersion\": \"3.0.0\", \"kind\": \"v.com/c\", \"devices\": [{\"name\": \"d\", \"containerEdits\": {}}]}",
            "cdiVersion \"3.0.0\"",
        ),
        ("{\"cdiVersion\": \"0.5.0\", \"kind\": \"v\", \"devices\": []}", "kind \"v\""),
        ("{\"cdiVersion\": \"0.5.0\", \"kind\": \"v.com/c\", \"devices\": []}", "it has no devices"),
        (
            "{\"cdiVersion\": \"0.5.0\", \"kind\": \"v.com/c\", \"devices\": [{\"name\": \"d\", \"containerEdits\": {\"new\": 1}}]}",
            "unknown field `new`",
        ),
        (
            "{\"cdiVersion\": \"0.5.0\", \"kind\": \"v.com/c\", \"devices\": [{\"name\": \"d\", \"containerEdits\": {\"intelRdt\": {}}}]}",
            "intelRdt is not supported",
        ),
        (
            "{\"cdiVersion\": \"0.5.0\", \"kind\": \"v.com/c\", \"devices\": [{\"name\": \"d\", \"containerEdits\": {\"hooks\": [{\"hookName\": \"x\", \"path\": \"/x\"}]}}]}",
            "hook name \"x\"",
        ),
        (
            "{\"cdiVersion\": \"0.5.0\", \"kind\": \"v.com/c\", \"devices\": [{\"name\": \"d\", \"containerEdits\": {\"env\": [\"X\"]}}]}",
            "env \"X\"",
        ),
    ];
    for (text, problem) in cases {
        fs::write(dir.path().join("bad.json"), text).unwrap();
        let error = found(&["v.com/c=d"], &dirs).unwrap_err().to_string();
        assert!(error.starts_with("CDI_devices: no CDI file has v.com/c=d; not usable: "), "{error}");
        assert!(error.contains("bad.json") && error.contains(problem), "{error}");
    }
    let error = found(&["v.com/c=d"], &[]).unwrap_err().to_string();
    assert!(error.contains("CDI is off"), "{error}");
    assert_eq!(found(&[], &[]).unwrap(), Edits::default());
}
