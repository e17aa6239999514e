// SPDX-License-Identifier: Apache-2.0
//! What pods may ask for: volumes, users, namespaces, limits.

use serde_json::{Value, json};

use super::{SLEEP, Scenario, checks, named, once, shell, succeeded};

pub(super) fn all() -> Vec<Scenario> {
    let mut all = volumes();
    all.extend(security());
    all.extend(namespaces());
    all.extend(others());
    all
}

fn mounted(volume: Value, script: &str, mount: Value) -> Value {
    let mut mounts = json!({ "name": "it", "mountPath": "/it" });
    if let (Some(mounts), Some(mount)) = (mounts.as_object_mut(), mount.as_object()) {
        mounts.extend(mount.clone());
    }
    let mut volume = volume;
    volume["name"] = json!("it");
    json!({ "restartPolicy": "Never", "volumes": [volume],
            "containers": [shell(script, json!({ "volumeMounts": [mounts] }))] })
}

fn volumes() -> Vec<Scenario> {
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "map" }, "data": { "key": "value" } });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "secret" },
                         "stringData": { "key": "hidden" } });
    vec![
        Scenario::new(
            "volume-config-map",
            mounted(json!({ "configMap": { "name": "map" } }), "[ $(cat /it/key) = value ]", json!({})),
            succeeded,
        )
        .with(map),
        Scenario::new(
            "volume-secret",
            mounted(
                json!({ "secret": { "secretName": "secret" } }),
                "[ $(cat /it/key) = hidden ]",
                json!({}),
            ),
            succeeded,
        )
        .with(secret),
        Scenario::new(
            "volume-downward",
            mounted(
                json!({ "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } }),
                "[ $(cat /it/name) = volume-downward ]",
                json!({}),
            ),
            succeeded,
        ),
        Scenario::new(
            "volume-empty-memory",
            mounted(
                json!({ "emptyDir": { "medium": "Memory" } }),
                "mount | grep -q 'tmpfs on /it '",
                json!({}),
            ),
            succeeded,
        ),
        Scenario::new(
            "volume-sub-path",
            mounted(
                json!({ "emptyDir": {} }),
                "touch /it/x && [ -f /it/x ]",
                json!({ "subPath": "deep/er" }),
            ),
            succeeded,
        ),
        Scenario::new(
            "volume-read-only",
            mounted(json!({ "emptyDir": {} }), "! touch /it/x", json!({ "readOnly": true })),
            succeeded,
        ),
        Scenario::new(
            "volume-recursive-read-only",
            mounted(
                json!({ "emptyDir": {} }),
                "! touch /it/x",
                json!({ "readOnly": true, "recursiveReadOnly": "Enabled" }),
            ),
            succeeded,
        ),
        Scenario::new(
            "volume-host",
            mounted(
                json!({ "hostPath": { "path": "/etc", "type": "Directory" } }),
                "[ -f /it/passwd ]",
                json!({ "readOnly": true }),
            ),
            succeeded,
        ),
        Scenario::new(
            "volume-image",
            mounted(
                json!({ "image": { "reference": super::IMAGE } }),
                "[ -x /it/bin/busybox ] && ! touch /it/x",
                json!({}),
            ),
            succeeded,
        ),
        Scenario::new(
            "volume-image-sub-path",
            mounted(
                json!({ "image": { "reference": super::IMAGE } }),
                "[ -x /it/busybox ]",
                json!({ "subPath": "bin" }),
            ),
            succeeded,
        ),
    ]
}

fn security() -> Vec<Scenario> {
    let with =
        |script: &str, context: Value| once("Never", shell(script, json!({ "securityContext": context })));
    vec![
        Scenario::new(
            "run-as",
            with("[ $(id -u):$(id -g) = 1234:2345 ]", json!({ "runAsUser": 1234, "runAsGroup": 2345 })),
            succeeded,
        ),
        Scenario::new("run-as-non-root-refused", with("exit 0", json!({ "runAsNonRoot": true })), |pod| {
            pod.main().waits_for("CreateContainerConfigError")
        }),
        Scenario::new(
            "fs-group",
            json!({ "restartPolicy": "Never", "securityContext": { "runAsUser": 1000, "fsGroup": 3000 },
                "volumes": [{ "name": "it", "emptyDir": {} }],
                "containers": [shell("touch /it/x && [ $(stat -c %g /it/x) = 3000 ]",
                    json!({ "volumeMounts": [{ "name": "it", "mountPath": "/it" }] }))] }),
            succeeded,
        ),
        Scenario::new(
            "read-only-root",
            with("! touch /x && [ -w /dev/shm ]", json!({ "readOnlyRootFilesystem": true })),
            succeeded,
        ),
        Scenario::new(
            "capabilities",
            with(
                "grep -q 'CapEff:.0*0000000000000400$' /proc/self/status",
                json!({ "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] } }),
            ),
            succeeded,
        ),
        Scenario::new(
            "no-new-privileges",
            with("grep -q 'NoNewPrivs:.1' /proc/self/status", json!({ "allowPrivilegeEscalation": false })),
            succeeded,
        ),
        Scenario::new(
            "seccomp-default",
            with(
                "grep -q 'Seccomp:.2' /proc/self/status",
                json!({ "seccompProfile": { "type": "RuntimeDefault" } }),
            ),
            succeeded,
        ),
        Scenario::new(
            "privileged",
            with("mount -t tmpfs tmpfs /tmp && touch /tmp/x", json!({ "privileged": true })),
            succeeded,
        ),
        Scenario::new(
            "user-namespace",
            json!({ "hostUsers": false, "restartPolicy": "Never", "volumes": [{ "name": "it", "emptyDir": {} }],
                "containers": [shell("[ $(id -u) = 0 ] && [ $(awk '{print $2}' /proc/self/uid_map) != 0 ] && touch /it/x",
                    json!({ "volumeMounts": [{ "name": "it", "mountPath": "/it" }] }))] }),
            succeeded,
        ),
        Scenario::new(
            "user-namespace-stays",
            json!({ "hostUsers": false, "containers": [shell(SLEEP, json!({}))] }),
            |pod| pod.is_ready(),
        ),
    ]
}

fn namespaces() -> Vec<Scenario> {
    let one = |container: Value, key: &str, value: Value| {
        let mut spec = json!({ "restartPolicy": "Never", "containers": [container] });
        spec[key] = value;
        spec
    };
    vec![
        Scenario::new(
            "host-network",
            one(shell("ip address show node0", json!({})), "hostNetwork", json!(true)),
            succeeded,
        ),
        Scenario::new(
            "host-pid",
            one(shell("ps | grep -q kubele[t]", json!({})), "hostPID", json!(true)),
            succeeded,
        ),
        Scenario::new(
            "host-ipc",
            one(shell("[ -d /dev/shm ]", json!({})), "hostIPC", json!(true)),
            succeeded,
        ),
        Scenario::new(
            "share-process-namespace",
            json!({ "restartPolicy": "Never", "shareProcessNamespace": true, "containers": [
                shell("for i in $(seq 50); do ps | grep -q 'sleep 424[2]' && exit 0; sleep 0.2; done; exit 1", json!({})),
                named("other", "sleep 4242 & sleep 12", json!({}))] }),
            |pod| pod.main().ended("Completed", 0),
        ),
        Scenario::new(
            "sysctl",
            json!({ "restartPolicy": "Never",
                "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "12345" },
                                                 { "name": "net.ipv4.ip_unprivileged_port_start", "value": "80" }] },
                "containers": [shell("[ $(cat /proc/sys/kernel/msgmax) = 12345 ] && \
                    [ $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start) = 80 ]", json!({}))] }),
            succeeded,
        ),
        Scenario::new(
            "hostname",
            one(
                shell("[ $(hostname) = chosen ] && grep -q chosen /etc/hosts", json!({})),
                "hostname",
                json!("chosen"),
            ),
            succeeded,
        ),
        Scenario::new(
            "host-aliases",
            one(
                shell("grep -q '192.0.2.1.*an-alias' /etc/hosts", json!({})),
                "hostAliases",
                json!([{ "ip": "192.0.2.1", "hostnames": ["an-alias"] }]),
            ),
            succeeded,
        ),
        Scenario::new(
            "dns",
            json!({ "restartPolicy": "Never", "dnsPolicy": "None",
                "dnsConfig": { "nameservers": ["192.0.2.53"], "searches": ["example.test"], "options": [{ "name": "ndots", "value": "2" }] },
                "containers": [shell("grep -q 'nameserver 192.0.2.53' /etc/resolv.conf && grep -q 'ndots:2' /etc/resolv.conf", json!({}))] }),
            succeeded,
        ),
        Scenario::new(
            "host-port",
            json!({ "containers": [shell("mkdir /www; echo port > /www/index.html; httpd -f -p 80 -h /www",
                json!({ "ports": [{ "containerPort": 80, "hostPort": 18080 }] }))] }),
            |pod| pod.is_ready(),
        ),
    ]
}

fn others() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "limits",
            once(
                "Never",
                shell(
                    "[ $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes) = 67108864 ] && \
                     [ $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us) = 20000 ]",
                    json!({ "resources": { "limits": { "memory": "64Mi", "cpu": "200m" } } }),
                ),
            ),
            succeeded,
        ),
        Scenario::new(
            "environment",
            once(
                "Never",
                shell(
                    "[ \"$A\" = 'a b' ] && [ $POD = environment ]",
                    json!({ "env": [{ "name": "A", "value": "a b" },
                        { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }] }),
                ),
            ),
            succeeded,
        ),
        Scenario::new(
            "working-directory",
            once("Never", shell("[ $PWD = /tmp ]", json!({ "workingDir": "/tmp" }))),
            succeeded,
        ),
        Scenario::new(
            "crun",
            json!({ "runtimeClassName": "crun", "containers": [shell(SLEEP, json!({}))] }),
            |pod| pod.is_ready(),
        ),
        Scenario::new(
            "two-containers",
            json!({ "containers": [named("main", SLEEP, json!({})), named("other", SLEEP, json!({}))] }),
            |pod| pod.is_ready() && pod.container("other").is_running(),
        ),
        Scenario::new("annotated", checks("true"), succeeded)
            .annotated(json!({ "example.test/note": "a\nb" })),
    ]
}
