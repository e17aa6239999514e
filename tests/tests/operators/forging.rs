// SPDX-License-Identifier: Apache-2.0
//! Strings of images, registries and clients that would forge lines of the log, or command a terminal: each stays
//! within its line, in the log, in messages and in tables.

use std::process::Stdio;

use hull_cri_api::v1::*;
use hull_image_store::testing::{ImageBuilder, Layer};
use hull_registry::testing::{Fault, TestRegistry};
use hull_tests::{Cri, Daemon, Pod, Setup, program};
use tonic::Status;

use super::pulls::publish;

/// What a forged line begins with: the daemon's own have another year.
const FORGED: &str = "2001-02-03T04:05:06.000000Z";

/// A string that is dangerous in every way, and says where it was put.
fn poison(place: &str) -> String {
    format!("{place}\n{FORGED}  INFO hull_server: forged\0\r\t\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\u{2028}\\nend")
}

/// Nothing but lines: no control character, nothing that reorders, and no forged line.
fn assert_harmless(what: &str, text: &str) {
    for line in text.lines() {
        assert!(!line.contains(hull_escape::is_unsafe), "{what}: {line:?}");
        assert!(!line.starts_with(FORGED), "{what}: {line:?}");
    }
}

/// A message of the daemon.
fn assert_message(what: &str, status: &Status) {
    assert!(!status.message().contains(hull_escape::is_unsafe), "{what}: {:?}", status.message());
}

/// What the daemon has logged, as bytes would show it.
fn assert_log(daemon: &Daemon) {
    let log = daemon.log();
    assert_harmless("the log", &log);
    for line in log.lines() {
        let stamp = line.split(' ').next().unwrap_or_default();
        assert!(stamp.ends_with('Z') && stamp.contains('T'), "a line without a time: {line:?}");
    }
}

/// Runs every command that prints a table, and looks at what it prints.
async fn assert_tables(daemon: &Daemon, ids: &[String]) {
    for words in
        [&["status"][..], &["ops"], &["sessions"], &["check"], &["ops", "cancel", &poison("key")[..5]]]
    {
        let said = daemon.hull(words).await;
        assert_harmless(&format!("hull {words:?}"), &said.stdout);
        assert_harmless(&format!("hull {words:?}"), &said.stderr);
    }
    let inspected = ids.iter().flat_map(|id| {
        ["table", "json", "yaml"]
            .map(|format| vec!["inspect".to_owned(), "-o".into(), format.into(), id.clone()])
    });
    let lists = ["pods", "ps -a", "images", "info", "pods -o json", "ps -a -o yaml", "images -q", "version"];
    let lists = lists.iter().map(|words| words.split(' ').map(str::to_owned).collect());
    for words in lists.chain(inspected) {
        let output = tokio::process::Command::new(program("crictl-lite"))
            .arg("--runtime-endpoint")
            .arg(format!("unix://{}", daemon.socket().display()))
            .args(&words)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        for stream in [output.stdout, output.stderr] {
            assert_harmless(&format!("crictl-lite {words:?}"), &String::from_utf8(stream).unwrap());
        }
    }
}

fn chatty(setup: Setup) -> Setup {
    setup.env("RUST_LOG", "debug,h2=info,hyper=info,tower=info,tonic=info")
}

type PodField = (&'static str, fn(&mut PodSandboxConfig, String));

const POD_FIELDS: [PodField; 12] = [
    ("pod name", |it, bad| it.metadata.as_mut().unwrap().name = bad),
    ("namespace", |it, bad| it.metadata.as_mut().unwrap().namespace = bad),
    ("uid", |it, bad| it.metadata.as_mut().unwrap().uid = bad),
    ("hostname", |it, bad| it.hostname = bad),
    ("log directory", |it, bad| it.log_directory.push_str(&format!("/{bad}"))),
    ("pod label", |it, bad| drop(it.labels.insert(bad.clone(), bad))),
    ("pod annotation", |it, bad| drop(it.annotations.insert(bad.clone(), bad))),
    ("dns server", |it, bad| it.dns_config.as_mut().unwrap().servers.push(bad)),
    ("dns search", |it, bad| it.dns_config.as_mut().unwrap().searches.push(bad)),
    ("cgroup parent", |it, bad| it.linux.as_mut().unwrap().cgroup_parent = format!("/{bad}")),
    ("sysctl", |it, bad| drop(it.linux.as_mut().unwrap().sysctls.insert(bad.clone(), bad))),
    ("host ip", |it, bad| {
        let port = PortMapping { container_port: 80, host_port: 80, host_ip: bad, ..PortMapping::default() };
        it.port_mappings.push(port);
    }),
];

type ContainerField = (&'static str, fn(&mut ContainerConfig, String));

const CONTAINER_FIELDS: [ContainerField; 19] = [
    ("container name", |it, bad| it.metadata.as_mut().unwrap().name = bad),
    ("image", |it, bad| it.image.as_mut().unwrap().image = bad),
    ("image as asked", |it, bad| it.image.as_mut().unwrap().user_specified_image = bad),
    ("command", |it, bad| it.command = vec![bad]),
    ("argument", |it, bad| it.args.push(bad)),
    ("directory", |it, bad| it.working_dir = format!("/{bad}")),
    ("variable", |it, bad| it.envs.push(KeyValue { key: bad, value: "x".into() })),
    ("value", |it, bad| it.envs.push(KeyValue { key: "X".into(), value: bad.into() })),
    ("mount", |it, bad| it.mounts[0].container_path = format!("/{bad}")),
    ("mounted", |it, bad| it.mounts[0].host_path = format!("/{bad}")),
    ("label", |it, bad| drop(it.labels.insert(bad.clone(), bad))),
    ("annotation", |it, bad| drop(it.annotations.insert(bad.clone(), bad))),
    ("log", |it, bad| it.log_path = bad),
    ("device", |it, bad| {
        it.devices.push(Device {
            container_path: format!("/{bad}"),
            host_path: bad,
            permissions: "r".into(),
        });
    }),
    ("cdi device", |it, bad| it.cdi_devices.push(CdiDevice { name: bad })),
    ("user", |it, bad| security(it).run_as_username = bad),
    ("capability", |it, bad| security(it).capabilities.get_or_insert_default().add_capabilities.push(bad)),
    ("seccomp", |it, bad| {
        let profile_type = security_profile::ProfileType::Localhost.into();
        security(it).seccomp =
            Some(SecurityProfile { profile_type, localhost_ref: bad, ..Default::default() });
    }),
    ("apparmor", |it, bad| {
        let profile_type = security_profile::ProfileType::Localhost.into();
        security(it).apparmor =
            Some(SecurityProfile { profile_type, localhost_ref: bad, ..Default::default() });
    }),
];

fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// Calls that name something; each is refused.
async fn named_calls(cri: &Cri, container: &str) -> Vec<(&'static str, Status)> {
    let bad = poison;
    let mut refused = vec![
        ("pull", cri.pull(&bad("pull")).await.unwrap_err()),
        ("import", cri.import(std::path::Path::new(&format!("/{}", bad("import")))).await.unwrap_err()),
        ("pod status", cri.pod(&bad("pod")).await.unwrap_err()),
        ("container status", cri.container(&bad("container")).await.unwrap_err()),
        ("start", cri.start(&bad("start")).await.unwrap_err()),
        ("exec", cri.exec(&bad("exec"), &["true"], 5).await.unwrap_err()),
    ];
    let admin = hull_admin_api::v1::CancelOperationRequest { key: bad("cancel") };
    refused.push(("cancel", cri.admin.clone().cancel_operation(admin).await.unwrap_err()));
    let request = ReopenContainerLogRequest { container_id: bad("reopen") };
    refused.push(("reopen", cri.runtime.clone().reopen_container_log(request).await.unwrap_err()));
    // The command of an exec is the client's; the container does not know it.
    let _ = cri.exec(container, &[&bad("command")], 5).await;
    let network = NetworkConfig { pod_cidr: bad("cidr") };
    let request =
        UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config: Some(network) }) };
    if let Err(error) = cri.runtime.clone().update_runtime_config(request).await {
        refused.push(("cidr", error));
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_forges_no_line() {
    let daemon = chatty(Setup::mock()).start().await;
    let cri = daemon.cri().await;
    let mut ids = Vec::new();
    for (what, change) in POD_FIELDS {
        let mut pod = Pod::new(&daemon, "web");
        change(&mut pod.config, poison(what));
        if let Err(error) = cri.run_pod(&pod.config, "").await {
            assert_message(what, &error);
        }
    }
    let pod = Pod::new(&daemon, "web");
    let error = cri.run_pod(&pod.config, &poison("handler")).await.unwrap_err();
    assert_message("handler", &error);
    assert!(error.message().contains("handler") && error.message().contains("\\n"), "it is shown: {error}");
    let pod_id = cri.run_pod(&pod.config, "").await.unwrap();
    for (number, (what, change)) in CONTAINER_FIELDS.into_iter().enumerate() {
        let mut container = pod.container(&format!("c{number}"), &["sleep", "1000"]);
        change(&mut container.config, poison(what));
        match cri.create(&pod_id, &container.config, &pod.config).await {
            Ok(id) => {
                if let Err(error) = cri.start(&id).await {
                    assert_message(what, &error);
                }
                ids.push(id);
            }
            Err(error) => assert_message(what, &error),
        }
    }
    let container = pod.container("main", &["sleep", "1000"]);
    let container = cri.create_and_start(&pod_id, &container.config, &pod.config).await.unwrap();
    for (what, error) in named_calls(&cri, &container).await {
        assert_message(what, &error);
    }
    ids.push(container);
    assert_tables(&daemon, &ids).await;
    assert_log(&daemon);
    assert!(daemon.log().contains("\\n2001-02-03"), "the strings did reach the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_and_its_registry_forge_no_line() {
    let registry = TestRegistry::start().await;
    let mut image = ImageBuilder::new("app")
        .layer(Layer::new().dir("etc", 0o755))
        .cmd(&[&poison("cmd")])
        .entrypoint(&[&poison("entrypoint")])
        .env(&format!("X={}", poison("env")))
        .user(&poison("user"))
        .working_dir(&format!("/{}", poison("dir")))
        .stop_signal(&poison("signal"))
        .label(&poison("key"), &poison("label"));
    image.config.architecture = poison("architecture");
    image.config.os = poison("os");
    let daemon = chatty(Setup::mock().local_images()).start().await;
    let cri = daemon.cri().await;
    let name = publish(&registry, &image);
    if let Err(error) = cri.pull(&name).await {
        assert_message("image", &error);
    }
    let dir = tempfile::tempdir().unwrap();
    let archive = image.write_archive(&dir.path().join("image.tar"));
    if let Err(error) = cri.import(&archive).await {
        assert_message("archive", &error);
    }
    let said = daemon.hull(&["image", "import", archive.to_str().unwrap()]).await;
    assert_harmless("hull image import", &format!("{}{}", said.stdout, said.stderr));

    let words = serde_json::json!({ "errors": [{ "code": poison("code"), "message": poison("message") }] });
    for (part, status, body) in [
        ("/manifests/", 403, words.to_string()),
        ("/manifests/", 401, poison("no document")),
        ("/manifests/", 200, poison("no manifest")),
        (
            "/manifests/",
            200,
            serde_json::json!({ "config": {}, "layers": [], "mediaType": poison("type") }).to_string(),
        ),
    ] {
        registry.on(part, Fault::Status(status, Vec::new(), body.clone()));
        let error = cri.pull(&format!("{}/team/other:{status}", registry.host())).await.unwrap_err();
        assert_message(&body, &error);
    }
    let hosts = format!("[host.{}]\n", serde_json::to_string(&poison("host")).unwrap());
    TestRegistry::write_hosts(&daemon.dir().join("certs.d"), "example.invalid", &hosts);
    assert_message("hosts.toml", &cri.pull("example.invalid/a:1").await.unwrap_err());
    assert_tables(&daemon, &[]).await;
    assert_log(&daemon);
    assert!(daemon.log().contains("architecture"), "the platform is warned of");
}
