// SPDX-License-Identifier: Apache-2.0
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

/// A directory with a file and, in `bin`, programs to find.
struct Machine {
    dir: tempfile::TempDir,
    programs: Programs,
}

impl Machine {
    fn new(installed: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir_all(dir.path().join("conf.d")).unwrap();
        fs::create_dir(&bin).unwrap();
        for name in installed {
            fs::write(bin.join(name), "").unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { programs: Programs::new([bin]), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load_with(Some(&self.path("hull.toml")), &self.programs)
    }

    /// Loads a text; in the error the machine's directory is called `~`.
    fn check(&self, text: &str) -> Result<Config, String> {
        self.write("hull.toml", text);
        let home = self.dir.path().to_str().unwrap().to_owned();
        self.load().map_err(|error| error.to_string().replace(&home, "~"))
    }
}

fn machine() -> Machine {
    Machine::new(&["runc", "crun", "conmon"])
}

#[test]
fn an_empty_file_is_a_whole_configuration() {
    let machine = machine();
    let config = machine.check("").unwrap();
    assert_eq!(config.root, PathBuf::from("/var/lib/hull"));
    assert_eq!(config.run_root, PathBuf::from("/run/hull"));
    assert_eq!(config.listen, PathBuf::from("/run/hull/hull.sock"));
    assert_eq!(config.log_level.as_str(), "info");
    assert_eq!(config.runtime.default, "runc");
    assert_eq!(config.runtime.conmon, machine.path("bin/conmon"));
    let crun = &config.runtime.handlers["crun"];
    assert_eq!((crun.kind, &crun.path), (RuntimeKind::Crun, &machine.path("bin/crun")));
    assert_eq!(crun.root, PathBuf::from("/run/hull/runtime/crun"));
    assert_eq!(crun.policy, HandlerPolicy::default());
    assert_eq!(config.runtime.handlers.len(), 2);
    assert_eq!(config.network, NetworkConfig::default());
    assert_eq!(config.images, ImagesConfig::default());
    assert_eq!(config.timeouts.create, Duration::from_secs(240));
    assert_eq!(config.containers.default_capabilities.len(), 9);
}

#[test]
fn every_key_can_be_set() {
    let machine = machine();
    let runc = machine.path("bin/runc");
    let text = format!(
        r#"
root = "/data/hull/"
run_root = "/run//other"
listen = "unix:///run/cri.sock"
log_level = "debug"
[runtime]
default = "mine"
cgroup_driver = "systemd"
conmon = "{runc}"
[runtime.handlers.mine]
kind = "runc"
path = "{runc}"
root = "/run/mine"
allowed_annotations = ["run.oci.*", "module.wasm.image/variant"]
seccomp_allow_socketcall = true
[runtime.handlers.mock]
kind = "mock"
[network]
backend = "mock"
cni_conf_dir = "/n/conf"
cni_bin_dirs = ["/n/bin", "/m/bin"]
netns_dir = "/n/ns"
exclusive = true
cni_conf_template = "/n/template"
[network.bridge]
name = "br-pods"
subnets = ["fd00:1::/64", "10.9.0.0/16"]
mtu = 1400
[images]
backend = "mock"
certs_dir = "/i/certs"
pinned = ["registry.k8s.io/pause:*"]
[streaming]
address = "::1"
port = 10010
base_url = "https://node-7:10010"
tls_cert = "/s/cert.pem"
tls_key = "/s/key.pem"
tls_client_ca = "/s/ca.pem"
idle_timeout = "1h"
exec_linger = "3s"
[timeouts]
create = "1m30s"
start = "2s"
stop_extra = "3s"
network = "4s"
exec_extra = "5s"
runtime = "6s"
pull_idle = "7s"
volume = "8s"
unclaimed = "9s"
shutdown = "500ms"
[containers]
default_capabilities = ["CAP_KILL", "net_raw", "KILL"]
pids_limit = 100
log_size_max = 8192
apparmor_profile = "node-default"
ulimits = ["nofile=1024:65536", "core=unlimited"]
shm_size = 8192
cdi_spec_dirs = []
host_paths_not_made = ["/etc/hostname"]
"#,
        runc = runc.display()
    );
    let config = machine.check(&text).unwrap();
    assert_eq!(config.root, PathBuf::from("/data/hull"));
    assert_eq!(config.run_root, PathBuf::from("/run/other"));
    assert_eq!(config.listen, PathBuf::from("/run/cri.sock"));
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.runtime.default, "mine");
    assert_eq!(config.runtime.conmon, runc);
    let mine = &config.runtime.handlers["mine"];
    assert_eq!((&mine.path, &mine.root), (&runc, &PathBuf::from("/run/mine")));
    assert!(mine.policy.seccomp_allow_socketcall && mine.policy.allows("run.oci.handler"));
    assert!(mine.policy.allows("module.wasm.image/variant") && !mine.policy.allows("module.wasm.image/x"));
    assert!(config.runtime.handlers["mock"].policy.allows("io.hull.mock.log"));
    assert_eq!(config.runtime.handlers["mock"].root, PathBuf::from("/run/other/runtime/mock"));
    assert_eq!(config.network.backend, NetworkBackend::Mock);
    assert_eq!(config.network.cni_bin_dirs, [PathBuf::from("/n/bin"), PathBuf::from("/m/bin")]);
    assert!(config.network.exclusive);
    assert_eq!(config.network.cni_conf_template, Some(PathBuf::from("/n/template")));
    let bridge = &config.network.bridge;
    let subnets: Vec<String> = bridge.subnets.iter().map(ToString::to_string).collect();
    assert_eq!((bridge.name.as_str(), bridge.mtu), ("br-pods", Some(1400)));
    assert_eq!(subnets, ["fd00:1::/64", "10.9.0.0/16"]);
    assert_eq!(config.images.backend, ImagesBackend::Mock);
    assert_eq!(config.images.pinned, ["registry.k8s.io/pause:*"]);
    let streaming = StreamingConfig {
        address: "::1".parse().unwrap(),
        port: 10010,
        base_url: Some("https://node-7:10010".to_owned()),
        tls: Some(StreamingTls {
            cert: "/s/cert.pem".into(),
            key: "/s/key.pem".into(),
            client_ca: Some("/s/ca.pem".into()),
        }),
        idle_timeout: Duration::from_secs(3600),
        exec_linger: Duration::from_secs(3),
    };
    assert_eq!(config.streaming, streaming);
    let seconds = |duration: Duration| duration.as_secs_f64();
    let t = &config.timeouts;
    let all = [
        t.create,
        t.start,
        t.stop_extra,
        t.network,
        t.exec_extra,
        t.runtime,
        t.pull_idle,
        t.volume,
        t.unclaimed,
        t.shutdown,
    ];
    assert_eq!(all.map(seconds), [90.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 0.5]);
    assert_eq!(config.containers.default_capabilities, [Capability::Kill, Capability::NetRaw]);
    assert_eq!(config.containers.pids_limit, Some(100));
    assert_eq!(config.containers.log_size_max, Some(8192));
    assert_eq!(config.containers.apparmor_profile.as_deref(), Some("node-default"));
    let hard: Vec<u64> = config.containers.ulimits.iter().map(|it| it.hard).collect();
    assert_eq!(hard, [65536, u64::MAX]);
    assert_eq!((config.containers.shm_size, config.containers.cdi_spec_dirs.len()), (8192, 0));
    assert_eq!(config.containers.host_paths_not_made, [PathBuf::from("/etc/hostname")]);
}

#[test]
fn bad_files_say_where_what_and_what_to_write() {
    #[rustfmt::skip]
    let cases: &[(&str, &str)] = &[
        ("rot = \"/x\"", "~/hull.toml:1:1: unknown key \"rot\" in the top level; did you mean \"root\"?"),
        ("\n  [runtime]\n  cgroup_drivr = \"x\"", "~/hull.toml:3:3: unknown key \"cgroup_drivr\" in [runtime]; did you mean \"cgroup_driver\"?"),
        ("[netwrok]\n", "~/hull.toml:1:2: unknown key \"netwrok\" in the top level; did you mean \"network\"?"),
        ("[streaming]\nsomething_else = 1", "~/hull.toml:2:1: unknown key \"something_else\" in [streaming]; known keys are \"address\", \"port\", \"base_url\", \"tls_cert\", \"tls_key\", \"tls_client_ca\", \"idle_timeout\", \"exec_linger\""),
        ("[runtime.handlers.a]\nknd = 1", "~/hull.toml:2:1: unknown key \"knd\" in [runtime.handlers.a]; did you mean \"kind\"?"),
        ("root = 5", "~/hull.toml:1:8: root must be a string, not integer"),
        ("network = \"cni\"", "~/hull.toml:1:11: network must be a table, not string"),
        ("[network]\nexclusive = \"yes\"", "~/hull.toml:2:13: network.exclusive must be true or false, not string"),
        ("[network]\ncni_bin_dirs = \"/x\"", "~/hull.toml:2:16: network.cni_bin_dirs must be an array of strings, not string"),
        ("[network]\ncni_bin_dirs = [\n  \"/x\",\n  7]", "~/hull.toml:4:3: network.cni_bin_dirs must be an array of strings, not integer"),
        ("[network]\ncni_bin_dirs = []", "~/hull.toml:2:16: network.cni_bin_dirs must not be empty; leave the key out for the default"),
        ("[network]\ncni_bin_dirs = [\"/a\", \"b\"]", "~/hull.toml:2:23: network.cni_bin_dirs = \"b\": must be an absolute path"),
        ("[timeouts]\ncreate = 30", "~/hull.toml:2:10: timeouts.create must be a duration with its unit, such as \"30s\", not integer"),
        ("[timeouts]\ncreate = \"30\"", "~/hull.toml:2:10: timeouts.create = \"30\": is not a duration: write a whole number and a unit, as in \"30s\", \"4m\" or \"250ms\""),
        ("[timeouts]\ncreate = \"0s\"", "~/hull.toml:2:10: timeouts.create = \"0s\": must be more than zero"),
        ("root = \"var/lib\"", "~/hull.toml:1:8: root = \"var/lib\": must be an absolute path"),
        ("root = \"/var/../lib\"", "~/hull.toml:1:8: root = \"/var/../lib\": must not contain \"..\""),
        ("root = \"/a\"\nrun_root = \"/a/\"", "~/hull.toml:1:8: root and run_root are both /a: what must survive a reboot and what must not need directories of their own"),
        ("run_root = \"/var/lib/hull\"", "~/hull.toml:1:12: root and run_root are both /var/lib/hull: what must survive a reboot and what must not need directories of their own"),
        ("listen = \"tcp://0.0.0.0:1\"", "~/hull.toml:1:10: listen = \"tcp://0.0.0.0:1\": tcp is not served; the CRI listens on a unix socket: \"unix:///path\""),
        ("listen = \"hull.sock\"", "~/hull.toml:1:10: listen = \"hull.sock\": must be an absolute path"),
        ("log_level = \"warning\"", "~/hull.toml:1:13: log_level = \"warning\": must be one of \"error\", \"warn\", \"info\", \"debug\", \"trace\""),
        ("log_level = \"dbug\"", "~/hull.toml:1:13: log_level = \"dbug\": must be one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"; did you mean \"debug\"?"),
        ("[runtime]\ncgroup_driver = \"systemdd\"", "~/hull.toml:2:17: runtime.cgroup_driver = \"systemdd\": must be one of \"cgroupfs\", \"systemd\"; did you mean \"systemd\"?"),
        ("[network]\nbackend = \"brige\"", "~/hull.toml:2:11: network.backend = \"brige\": must be one of \"cni\", \"bridge\", \"mock\"; did you mean \"bridge\"?"),
        ("[network.bridge]\nsubnet = []", "~/hull.toml:2:1: unknown key \"subnet\" in [network.bridge]; did you mean \"subnets\"?"),
        ("[network.bridge]\nname = \"a bridge\"", "~/hull.toml:2:8: network.bridge.name = \"a bridge\": must begin with a letter and contain only a-z, A-Z, 0-9, \"_\", \".\" and \"-\""),
        ("[network.bridge]\nname = \"0123456789abcdef\"", "~/hull.toml:2:8: network.bridge.name = \"0123456789abcdef\": must be 1 to 15 bytes long"),
        ("[network.bridge]\nsubnets = \"10.0.0.0/8\"", "~/hull.toml:2:11: network.bridge.subnets must be an array of strings, not string"),
        ("[network.bridge]\nsubnets = []", "~/hull.toml:2:11: network.bridge.subnets must have at least one subnet"),
        ("[network.bridge]\nsubnets = [\"10.0.0.0/16\", \"10.1.0.0/16\"]", "~/hull.toml:2:11: network.bridge.subnets can have at most one subnet of each family (IPv4, IPv6)"),
        ("[network.bridge]\nsubnets = [\"fd00::/64\", \"10.0.0.1/16\"]", "~/hull.toml:2:25: network.bridge.subnets = \"10.0.0.1/16\": has bits set beyond its prefix: write \"10.0.0.0/16\""),
        ("[network.bridge]\nmtu = 68", "~/hull.toml:2:7: network.bridge.mtu = 68: must be 1280 (the least that IPv6 works with) to 65535"),
        ("[runtime]\ndefault = \"rnc\"", "~/hull.toml:2:11: runtime.default = \"rnc\": there is no such handler; did you mean \"runc\"? (none is configured; these are the runtimes found in PATH)"),
        ("[runtime]\ndefault = \"kata\"\n[runtime.handlers.m]\nkind = \"mock\"", "~/hull.toml:2:11: runtime.default = \"kata\": there is no such handler; there is only [\"m\"]"),
        ("[runtime.handlers.a]\nkind = \"mock\"\n[runtime.handlers.b]\nkind = \"mock\"", "runtime.default is not set and no handler is named \"runc\": set it to one of \"a\", \"b\""),
        ("[runtime.handlers.a]\nkind = \"runk\"", "~/hull.toml:2:8: runtime.handlers.a.kind = \"runk\": must be one of \"runc\", \"crun\", \"youki\", \"mock\"; did you mean \"runc\"?"),
        ("[runtime.handlers.a]\n", "~/hull.toml:1:19: runtime.handlers.a.kind is missing: write kind = \"runc\", \"crun\", \"youki\" or \"mock\""),
        ("[runtime.handlers.\"A b\"]\nkind = \"mock\"", "~/hull.toml:1:19: runtime.handlers has a handler named \"A b\": a name is 1 to 63 of a-z, 0-9, \"-\" and \".\", and begins with a letter or digit"),
        ("[runtime.handlers.a]\nkind = \"runc\"\npath = \"/no/runc\"", "~/hull.toml:3:8: runtime.handlers.a.path = \"/no/runc\": there is no executable file"),
        ("[runtime.handlers.a]\nkind = \"mock\"\nroot = \"/r\"\n[runtime.handlers.b]\nkind = \"mock\"\nroot = \"/r/\"", "~/hull.toml:6:8: runtime.handlers.b.root = \"/r\" is also the root of handler \"a\": each needs its own"),
        ("[runtime.handlers.a]\nkind = \"mock\"\nallowed_annotations = \"run.oci.*\"", "~/hull.toml:3:23: runtime.handlers.a.allowed_annotations must be an array of strings, not string"),
        ("[runtime.handlers.a]\nkind = \"mock\"\nallowed_annotations = [\"run.oci.*\", \"\"]", "~/hull.toml:3:37: runtime.handlers.a.allowed_annotations = \"\": must not be empty"),
        ("[runtime.handlers.a]\nkind = \"mock\"\nallowed_anotations = []", "~/hull.toml:3:1: unknown key \"allowed_anotations\" in [runtime.handlers.a]; did you mean \"allowed_annotations\"?"),
        ("[runtime]\nconmon = \"/no/conmon\"", "~/hull.toml:2:10: runtime.conmon = \"/no/conmon\": there is no executable file"),
        ("[streaming]\naddress = \"localhost\"", "~/hull.toml:2:11: streaming.address = \"localhost\": must be an IP address, such as \"127.0.0.1\""),
        ("[streaming]\nport = 65536", "~/hull.toml:2:8: streaming.port = 65536: a TCP port is 0 (any free one) to 65535"),
        ("[streaming]\ntls_cert = \"/c\"", "~/hull.toml:2:12: streaming.tls_cert is set without streaming.tls_key: set both or none"),
        ("[streaming]\ntls_key = \"/k\"", "~/hull.toml:2:11: streaming.tls_key is set without streaming.tls_cert: set both or none"),
        ("[streaming]\ntls_client_ca = \"/k\"", "~/hull.toml:2:17: streaming.tls_client_ca is set without streaming.tls_cert and streaming.tls_key: set all or none"),
        ("[streaming]\nbase_url = \"\"", "~/hull.toml:2:12: streaming.base_url = \"\": must be of the form \"https://HOST:PORT\""),
        ("[streaming]\nexec_linger = 5", "~/hull.toml:2:15: streaming.exec_linger must be a duration with its unit, such as \"30s\", not integer"),
        ("[streaming]\nport = 1.5", "~/hull.toml:2:8: streaming.port must be an integer, not float"),
        ("[containers]\npids_limit = 0", "~/hull.toml:2:14: containers.pids_limit = 0: must be at least 1, or -1 for no limit"),
        ("[containers]\nulimits = [\"nofile=x\"]", "~/hull.toml:2:12: containers.ulimits = \"nofile=x\": is not of the form \"nofile=1024:65536\" or \"core=unlimited\""),
        ("[containers]\nulimits = [\"core=0\", \"core=1\"]", "~/hull.toml:2:22: containers.ulimits = \"core=1\": is the second one of its kind"),
        ("[containers]\napparmor_profile = \"\"", "~/hull.toml:2:20: containers.apparmor_profile = \"\": must be the name of a profile that is loaded"),
        ("[containers]\nshm_size = 1", "~/hull.toml:2:12: containers.shm_size = 1: must be at least 4096 bytes"),
        ("[containers]\ncdi_spec_dirs = [\"cdi\"]", "~/hull.toml:2:18: containers.cdi_spec_dirs = \"cdi\": must be an absolute path"),
        ("[containers]\nlog_size_max = 10", "~/hull.toml:2:16: containers.log_size_max = 10: must be at least 8192 bytes, or -1 for no limit"),
        ("[containers]\ndefault_capabilities = [\"KILL\", \"KIL\"]", "~/hull.toml:2:33: containers.default_capabilities = \"KIL\": is not a capability; write names such as \"CHOWN\" or \"CAP_CHOWN\""),
        ("[images]\npinned = [\"a*b\"]", "~/hull.toml:2:11: images.pinned = \"a*b\": must be an image name, with \"*\" at most at its end"),
        ("# \u{e9}\u{e9}\n[images]\npinned = [\"\u{e9}\", \"\"]", "~/hull.toml:3:16: images.pinned = \"\": must be an image name, with \"*\" at most at its end"),
    ];
    let machine = machine();
    for (text, message) in cases {
        assert_eq!(machine.check(text).unwrap_err(), *message, "in:\n{text}");
    }
    // The parser's own words are not ours to fix; their place is.
    for (text, place) in
        [("a = ", "~/hull.toml:1:5: "), ("\nroot = \"/a\"\nroot = \"/b\"", "~/hull.toml:3:1: ")]
    {
        let error = machine.check(text).unwrap_err();
        assert!(error.starts_with(&format!("{place}not valid TOML: ")), "{error}");
    }
}

#[test]
fn drop_ins_apply_in_order_and_keep_their_place() {
    let machine = machine();
    let text = "log_level = \"warn\"\n[network]\nexclusive = true\ncni_bin_dirs = [\"/a\", \"/b\"]";
    machine.write("conf.d/10-a.toml", "log_level = \"debug\"\n[network]\ncni_bin_dirs = [\"/c\"]");
    machine.write("conf.d/20-b.toml", "log_level = \"error\"");
    machine.write("conf.d/.20-b.toml.swp", "junk");
    machine.write("conf.d/30-c.toml.bak", "junk");
    machine.write("conf.d/.hidden.toml", "junk");
    let config = machine.check(text).unwrap();
    assert_eq!(config.log_level, LogLevel::Error);
    assert!(config.network.exclusive);
    assert_eq!(config.network.cni_bin_dirs, [PathBuf::from("/c")]);

    machine.write("conf.d/20-b.toml", "\nlog_levle = \"error\"");
    let expected =
        "~/conf.d/20-b.toml:2:1: unknown key \"log_levle\" in the top level; did you mean \"log_level\"?";
    assert_eq!(machine.check(text).unwrap_err(), expected);

    // A value that a later file replaces must be right all the same.
    machine.write("conf.d/20-b.toml", "log_level = \"error\"");
    assert!(machine.check("log_level = 1").unwrap_err().contains("log_level must be a string"));
}

#[test]
fn files_that_cannot_be_read() {
    let machine = machine();
    assert!(matches!(machine.load(), Err(ConfigError::Read { .. })));
    fs::create_dir(machine.path("hull.toml")).unwrap();
    assert!(matches!(machine.load(), Err(ConfigError::Read { .. })));
    fs::remove_dir(machine.path("hull.toml")).unwrap();
    fs::write(machine.path("hull.toml"), b"root = \"\xff\"").unwrap();
    assert!(matches!(machine.load(), Err(ConfigError::Read { .. })));
    fs::File::create(machine.path("hull.toml")).unwrap().set_len(2 << 20).unwrap();
    assert!(matches!(machine.load(), Err(ConfigError::Read { .. })));
}

#[test]
fn runtimes_are_found_where_they_are() {
    let machine = Machine::new(&["crun", "conmon"]);
    let config = machine.check("").unwrap();
    assert_eq!(config.runtime.default, "crun");
    let error = machine.check("[runtime.handlers.a]\nkind = \"runc\"").unwrap_err();
    assert!(error.contains("\"runc\" is not in PATH; install it or write its path"), "{error}");

    let error = Machine::new(&["conmon"]).check("").unwrap_err();
    assert!(error.contains("neither runc nor crun is in PATH"), "{error}");
}

#[test]
fn the_mock_stays_in_its_directory() {
    let dir = std::path::Path::new("/tmp/somewhere");
    let config = Config::mock(dir);
    let handler = &config.runtime.handlers[&config.runtime.default];
    assert_eq!(handler.kind, RuntimeKind::Mock);
    let paths = [
        &config.root,
        &config.run_root,
        &config.listen,
        &handler.root,
        &config.network.netns_dir,
        &config.network.cni_conf_dir,
        &config.images.certs_dir,
    ];
    assert!(paths.iter().all(|path| path.starts_with(dir)));
    assert_ne!(config.root, config.run_root);
}

fn any_toml_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|it| it.to_string()),
        any::<bool>().prop_map(|it| it.to_string()),
        "[a-z0-9/.:*-]{0,12}".prop_map(|it| format!("\"{it}\"")),
        Just("[]".to_owned()),
        Just("[\"/a\", 1]".to_owned()),
        Just("{}".to_owned()),
        Just("{ a = { kind = \"mock\" } }".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("nan".to_owned()),
        Just("0xffffffffffffffffff".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage_never_panics(text in ".{0,200}") {
        let path = std::path::Path::new("/x.toml");
        if let Ok(table) = tree::parse(path, &text) {
            let _ = raw::read(&table);
        }
    }

    #[test]
    fn any_key_with_any_value_never_panics(
        key in "(root|run_root|listen|log_level|(runtime|network|images|streaming|timeouts|containers)(\\.(default|handlers|conmon|backend|exclusive|cni_conf_template|cni_bin_dirs|bridge|name|subnets|mtu|pinned|address|port|create|pids_limit|log_size_max|default_capabilities|apparmor_profile|ulimits|shm_size|cdi_spec_dirs|tls_cert|tls_key|tls_client_ca|base_url|exec_linger|host_paths_not_made|allowed_annotations|seccomp_allow_socketcall)){0,2})",
        value in any_toml_value(),
    ) {
        let path = std::path::Path::new("/x.toml");
        if let Ok(table) = tree::parse(path, &format!("{key} = {value}"))
            && let Ok(raw) = raw::read(&table)
        {
            let _ = resolve::resolve(raw, &Programs::new([]));
        }
    }
}
