// SPDX-License-Identifier: Apache-2.0
//! That no field is honoured without a test: each is in a row of these tests, or a test elsewhere is named for it;
//! and each has a value that is refused, or there is none that could be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{bad, containers};

const LIST: &str = include_str!("../../../../docs/cri-fields.md");

/// Where a field is shown to be honoured, other than by a row in `containers.rs`: file, test, fields.
const SHOWN: &[(&str, &str, &[&str])] = &[
    (
        "crates/server/tests/requests/containers.rs",
        "are_told_again_by_the_status",
        &[
            "CreateContainerRequest.pod_sandbox_id",
            "CreateContainerRequest.config",
            "ContainerStatusRequest.container_id",
            "ContainerStatusRequest.verbose",
            "ContainerConfig.metadata",
            "ContainerConfig.image",
            "ContainerConfig.labels",
            "ContainerConfig.annotations",
            "ContainerConfig.log_path",
            "ContainerConfig.stop_signal",
            "ContainerMetadata.name",
            "ContainerMetadata.attempt",
            "ImageSpec.image",
            "ImageSpec.annotations",
            "ImageSpec.user_specified_image",
            "PodSandboxConfig.log_directory",
        ],
    ),
    (
        "crates/server/tests/requests/containers.rs",
        "name_an_apparmor_profile_where_there_is_one",
        &["LinuxContainerSecurityContext.apparmor", "LinuxContainerSecurityContext.apparmor_profile"],
    ),
    (
        "crates/server/tests/requests/containers.rs",
        "share_what_their_pod_shares_or_another_container_has",
        &[
            "StartContainerRequest.container_id",
            "LinuxSandboxSecurityContext.namespace_options",
            "NamespaceOption.network",
            "NamespaceOption.ipc",
            "NamespaceOption.target_id",
        ],
    ),
    (
        "crates/server/tests/requests/pods.rs",
        "are_told_again_by_the_status",
        &[
            "RunPodSandboxRequest.config",
            "RunPodSandboxRequest.runtime_handler",
            "PodSandboxStatusRequest.pod_sandbox_id",
            "PodSandboxStatusRequest.verbose",
            "PodSandboxConfig.metadata",
            "PodSandboxConfig.labels",
            "PodSandboxConfig.annotations",
            "PodSandboxMetadata.name",
            "PodSandboxMetadata.uid",
            "PodSandboxMetadata.namespace",
            "PodSandboxMetadata.attempt",
        ],
    ),
    (
        "crates/server/tests/requests/pods.rs",
        "become_files_groups_and_names_of_their_containers",
        &[
            "PodSandboxConfig.hostname",
            "PodSandboxConfig.dns_config",
            "PodSandboxConfig.linux",
            "DNSConfig.servers",
            "DNSConfig.searches",
            "DNSConfig.options",
            "LinuxPodSandboxConfig.cgroup_parent",
            "LinuxPodSandboxConfig.security_context",
        ],
    ),
    (
        "crates/server/tests/requests/pods.rs",
        "of_a_handler_that_nobody_configured_are_refused_in_the_peers_words",
        &["StatusRequest.verbose"],
    ),
    (
        "crates/server/tests/requests/pods.rs",
        "keep_what_they_are_reckoned_to_need",
        &[
            "UpdatePodSandboxResourcesRequest.pod_sandbox_id",
            "UpdatePodSandboxResourcesRequest.overhead",
            "UpdatePodSandboxResourcesRequest.resources",
        ],
    ),
    (
        "crates/server/tests/requests/images.rs",
        "are_pulled_with_the_credentials_that_came_along",
        &[
            "PullImageRequest.image",
            "PullImageRequest.auth",
            "ImageStatusRequest.image",
            "ImageStatusRequest.verbose",
            "AuthConfig.username",
            "AuthConfig.password",
            "AuthConfig.auth",
            "AuthConfig.server_address",
            "AuthConfig.identity_token",
            "AuthConfig.registry_token",
        ],
    ),
    (
        "crates/server/tests/requests/images.rs",
        "are_listed_by_name_and_removed",
        &[
            "ListImagesRequest.filter",
            "StreamImagesRequest.filter",
            "RemoveImageRequest.image",
            "ImageFilter.image",
        ],
    ),
    (
        "crates/server/tests/requests/lists.rs",
        "give_what_every_condition_fits",
        &[
            "ListPodSandboxRequest.filter",
            "StreamPodSandboxesRequest.filter",
            "ListContainersRequest.filter",
            "PodSandboxFilter.id",
            "PodSandboxFilter.state",
            "PodSandboxFilter.label_selector",
            "ContainerFilter.id",
            "ContainerFilter.state",
            "ContainerFilter.pod_sandbox_id",
            "ContainerFilter.label_selector",
            "PodSandboxStateValue.state",
            "ContainerStateValue.state",
        ],
    ),
    (
        "crates/server/tests/requests/lists.rs",
        "of_statistics_give_the_running_ones_that_fit",
        &[
            "StreamContainersRequest.filter",
            "ListContainerStatsRequest.filter",
            "StreamContainerStatsRequest.filter",
            "ContainerStatsFilter.id",
            "ContainerStatsFilter.pod_sandbox_id",
            "ContainerStatsFilter.label_selector",
        ],
    ),
    (
        "crates/server/tests/requests/lists.rs",
        "forget_what_was_removed_in_any_state",
        &[
            "StopPodSandboxRequest.pod_sandbox_id",
            "RemovePodSandboxRequest.pod_sandbox_id",
            "StopContainerRequest.container_id",
            "RemoveContainerRequest.container_id",
        ],
    ),
    (
        "crates/server/tests/refusals.rs",
        "addresses_of_pods",
        &[
            "UpdateRuntimeConfigRequest.runtime_config",
            "RuntimeConfig.network_config",
            "NetworkConfig.pod_cidr",
        ],
    ),
    (
        "crates/server/tests/updates.rs",
        "limits_change_whole_or_not_at_all",
        &["UpdateContainerResourcesRequest.container_id", "UpdateContainerResourcesRequest.linux"],
    ),
    (
        "tests/tests/mock_daemon.rs",
        "who_ignores_sigterm_is_killed_after_the_grace_period",
        &["StopContainerRequest.timeout"],
    ),
    (
        "tests/tests/mock_daemon.rs",
        "statistics_are_given_for_what_runs",
        &["ContainerStatsRequest.container_id"],
    ),
    (
        "tests/tests/mock_daemon.rs",
        "a_container_lives_and_goes",
        &["ExecSyncRequest.container_id", "ExecSyncRequest.cmd"],
    ),
    (
        "tests/tests/root_pods.rs",
        "an_exec_that_takes_too_long_ends_with_everything_it_started",
        &["ExecSyncRequest.timeout"],
    ),
    (
        "tests/tests/root_fields.rs",
        "logs_groups_and_standard_input_are_as_asked",
        &[
            "ReopenContainerLogRequest.container_id",
            "ContainerConfig.stdin",
            "ContainerConfig.stdin_once",
            "LinuxContainerSecurityContext.supplemental_groups_policy",
        ],
    ),
    (
        "tests/tests/root_bridge.rs",
        "host_ports_are_reached_from_everywhere",
        &[
            "PodSandboxConfig.port_mappings",
            "PortMapping.protocol",
            "PortMapping.container_port",
            "PortMapping.host_port",
            "PortMapping.host_ip",
        ],
    ),
    (
        "tests/tests/root_requests.rs",
        "mounts_are_as_asked",
        &["Mount.propagation", "Mount.recursive_read_only", "Mount.mount_options"],
    ),
    (
        "tests/tests/root_requests.rs",
        "containers_get_what_the_node_has_for_them",
        &[
            "LinuxPodSandboxConfig.sysctls",
            "Mount.image",
            "Mount.image_sub_path",
            "ContainerConfig.CDI_devices",
            "CDIDevice.name",
        ],
    ),
    (
        "crates/server/tests/streaming.rs",
        "urls_are_given_for_what_runs_and_nothing_else",
        &[
            "ExecRequest.container_id",
            "ExecRequest.cmd",
            "ExecRequest.tty",
            "ExecRequest.stdin",
            "ExecRequest.stdout",
            "ExecRequest.stderr",
            "AttachRequest.container_id",
            "AttachRequest.stdin",
            "AttachRequest.tty",
            "AttachRequest.stdout",
            "AttachRequest.stderr",
            "PortForwardRequest.pod_sandbox_id",
            "PortForwardRequest.port",
        ],
    ),
    (
        "crates/server/tests/users.rs",
        "a_pod_has_its_own_and_its_containers_are_in_it",
        &[
            "NamespaceOption.userns_options",
            "UserNamespace.mode",
            "UserNamespace.uids",
            "UserNamespace.gids",
            "IDMapping.host_id",
            "IDMapping.container_id",
            "IDMapping.length",
            "Mount.uidMappings",
            "Mount.gidMappings",
        ],
    ),
    // Version 1 of cgroups has no such files: there the field is refused. What a runtime gets on version 2 is the
    // snapshot `unified-on-v2`.
    (
        "crates/server/tests/requests/bad.rs",
        "values_are_refused_by_name_and_leave_nothing",
        &["LinuxContainerResources.unified"],
    ),
];

/// Where a value of a field is refused, other than by a row in `bad.rs`: file, test, what is in it, fields.
const REFUSED: &[(&str, &str, &str, &[&str])] = &[
    ("crates/server/tests/refusals.rs", "pods", "(\"hostname\"", &["PodSandboxConfig.hostname"]),
    ("crates/server/tests/refusals.rs", "pods", "(\"log_directory\"", &["PodSandboxConfig.log_directory"]),
    ("crates/server/tests/refusals.rs", "pods", "(\"labels\"", &["PodSandboxConfig.labels"]),
    ("crates/server/tests/refusals.rs", "pods", "(\"annotations\"", &["PodSandboxConfig.annotations"]),
    (
        "crates/server/tests/refusals.rs",
        "pods",
        "(\"cgroup_parent\"",
        &["LinuxPodSandboxConfig.cgroup_parent"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "pods",
        "(\"namespace_options.network\"",
        &["NamespaceOption.network", "NamespaceOption.ipc", "NamespaceOption.pid"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "pods",
        "(\"userns_options.mode\"",
        &["NamespaceOption.userns_options", "UserNamespace.mode"],
    ),
    ("crates/server/tests/refusals.rs", "pods", "(\"userns_options.uids\"", &["UserNamespace.uids"]),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"mounts.gidMappings\"",
        &["Mount.uidMappings", "Mount.gidMappings"],
    ),
    ("crates/server/tests/refusals.rs", "containers", "(\"working_dir\"", &["ContainerConfig.working_dir"]),
    ("crates/server/tests/refusals.rs", "containers", "(\"envs\"", &["ContainerConfig.envs"]),
    ("crates/server/tests/refusals.rs", "containers", "(\"annotations\"", &["ContainerConfig.annotations"]),
    ("crates/server/tests/refusals.rs", "containers", "(\"log_path\"", &["ContainerConfig.log_path"]),
    ("crates/server/tests/refusals.rs", "containers", "(\"stop_signal\"", &["ContainerConfig.stop_signal"]),
    ("crates/server/tests/refusals.rs", "containers", "(\"CDI_devices\"", &["ContainerConfig.CDI_devices"]),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"devices\"",
        &["ContainerConfig.devices", "Device.permissions"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"mounts.host_path\"",
        &["Mount.host_path", "Mount.image"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"mounts.container_path\"",
        &["Mount.container_path", "ContainerConfig.mounts"],
    ),
    ("crates/server/tests/refusals.rs", "containers", "(\"mounts.propagation\"", &["Mount.propagation"]),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"mounts.recursive_read_only\"",
        &["Mount.recursive_read_only"],
    ),
    ("crates/server/tests/refusals.rs", "containers", "(\"mounts.readonly\"", &["Mount.readonly"]),
    ("crates/server/tests/refusals.rs", "containers", "(\"mounts.mount_options\"", &["Mount.mount_options"]),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"mounts.image_sub_path\"",
        &["Mount.image_sub_path"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"cpu_period\"",
        &["LinuxContainerResources.cpu_period"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"cpu_quota\"",
        &["LinuxContainerResources.cpu_quota"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"cpu_shares\"",
        &["LinuxContainerResources.cpu_shares"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"cpuset_cpus\"",
        &["LinuxContainerResources.cpuset_cpus"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"cpuset_mems\"",
        &["LinuxContainerResources.cpuset_mems"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"memory_limit_in_bytes\"",
        &["LinuxContainerResources.memory_limit_in_bytes"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"memory_swap_limit_in_bytes\"",
        &["LinuxContainerResources.memory_swap_limit_in_bytes"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"oom_score_adj\"",
        &["LinuxContainerResources.oom_score_adj"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"privileged\"",
        &["LinuxContainerSecurityContext.privileged", "LinuxSandboxSecurityContext.privileged"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"add_capabilities\"",
        &["Capability.add_capabilities"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"drop_capabilities\"",
        &["Capability.drop_capabilities"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"add_ambient_capabilities\"",
        &["Capability.add_ambient_capabilities"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"run_as_user\"",
        &["LinuxContainerSecurityContext.run_as_user", "Int64Value.value"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"run_as_group\"",
        &["LinuxContainerSecurityContext.run_as_group"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"supplemental_groups\"",
        &["LinuxContainerSecurityContext.supplemental_groups"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"supplemental_groups_policy\"",
        &["LinuxContainerSecurityContext.supplemental_groups_policy"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"seccomp\"",
        &["LinuxContainerSecurityContext.seccomp", "SecurityProfile.profile_type"],
    ),
    (
        "crates/server/tests/refusals.rs",
        "containers",
        "(\"apparmor\"",
        &["LinuxContainerSecurityContext.apparmor"],
    ),
    ("crates/server/tests/refusals.rs", "addresses_of_pods", "\"pod_cidr\"", &["NetworkConfig.pod_cidr"]),
    (
        "crates/server/tests/updates.rs",
        "limits_change_whole_or_not_at_all",
        "limits(-7, 0)",
        &["UpdateContainerResourcesRequest.linux"],
    ),
    (
        "crates/server/tests/updates.rs",
        "what_a_pod_is_reckoned_to_need_is_kept",
        "limits(-2, 0)",
        &["UpdatePodSandboxResourcesRequest.overhead", "UpdatePodSandboxResourcesRequest.resources"],
    ),
    (
        "crates/server/tests/requests/bad.rs",
        "states_that_are_none_are_refused_in_filters",
        "filter.state",
        &[
            "PodSandboxFilter.state",
            "ContainerFilter.state",
            "PodSandboxStateValue.state",
            "ContainerStateValue.state",
        ],
    ),
    (
        "crates/server/tests/requests/pods.rs",
        "of_a_handler_that_nobody_configured_are_refused_in_the_peers_words",
        "kata",
        &["RunPodSandboxRequest.runtime_handler"],
    ),
    (
        "tests/tests/bad_input.rs",
        "execs_that_make_no_sense_are_refused",
        "-1).await",
        &["ExecSyncRequest.timeout", "ExecSyncRequest.cmd"],
    ),
    (
        "tests/tests/bad_input.rs",
        "image_names_that_are_none_are_refused",
        "library/UPPER",
        &["PullImageRequest.image", "ImageStatusRequest.image", "RemoveImageRequest.image"],
    ),
    (
        "tests/tests/mock_daemon.rs",
        "streamed_lists_say_what_the_lists_say",
        "Not/A:Name:",
        &["ImageFilter.image"],
    ),
    (
        "tests/tests/bad_input.rs",
        "empty_ids_are_invalid",
        "ExecSync",
        &[
            "PodSandboxStatusRequest.pod_sandbox_id",
            "ContainerStatusRequest.container_id",
            "StartContainerRequest.container_id",
            "StopContainerRequest.container_id",
            "RemoveContainerRequest.container_id",
            "StopPodSandboxRequest.pod_sandbox_id",
            "RemovePodSandboxRequest.pod_sandbox_id",
            "ExecSyncRequest.container_id",
        ],
    ),
    (
        "crates/server/tests/requests/bad.rs",
        "ids_that_are_empty_are_refused",
        "must not be empty",
        &[
            "CreateContainerRequest.pod_sandbox_id",
            "UpdateContainerResourcesRequest.container_id",
            "UpdatePodSandboxResourcesRequest.pod_sandbox_id",
            "ReopenContainerLogRequest.container_id",
            "ContainerStatsRequest.container_id",
        ],
    ),
];

/// The same of streams: what they are asked for together.
const STREAMS: &str = "crates/server/tests/streaming.rs";
const STREAMS_REFUSED: &[(&str, &[&str])] = &[
    ("exec(\"\", &[\"true\"])", &["ExecRequest.container_id"]),
    ("exec(&id, &[])", &["ExecRequest.cmd"]),
    (
        "ExecRequest { tty: true, stderr: true",
        &["ExecRequest.tty", "ExecRequest.stderr", "ExecRequest.stdout", "ExecRequest.stdin"],
    ),
    ("attach(\"nobody\")", &["AttachRequest.container_id"]),
    (
        "AttachRequest { tty: true, stderr: true",
        &["AttachRequest.tty", "AttachRequest.stderr", "AttachRequest.stdout", "AttachRequest.stdin"],
    ),
    ("forward(\"nobody\", vec![80])", &["PortForwardRequest.pod_sandbox_id"]),
    ("forward(&pod, vec![65536])", &["PortForwardRequest.port"]),
];

/// Fields that no value is bad for, and why.
const ANY_IS_GOOD: &[(&str, &[&str])] = &[
    (
        "a switch",
        &[
            "PodSandboxStatusRequest.verbose",
            "ContainerStatusRequest.verbose",
            "StatusRequest.verbose",
            "ImageStatusRequest.verbose",
            "ContainerConfig.stdin",
            "ContainerConfig.stdin_once",
            "ContainerConfig.tty",
            "LinuxContainerSecurityContext.readonly_rootfs",
            "LinuxContainerSecurityContext.no_new_privs",
        ],
    ),
    (
        "a number of which each is one",
        &["PodSandboxMetadata.attempt", "ContainerMetadata.attempt", "HugepageLimit.limit"],
    ),
    ("seconds; none and less are at once", &["StopContainerRequest.timeout"]),
    (
        "what fits nothing is an empty list",
        &[
            "PodSandboxFilter.id",
            "PodSandboxFilter.label_selector",
            "ContainerFilter.id",
            "ContainerFilter.pod_sandbox_id",
            "ContainerFilter.label_selector",
            "ContainerStatsFilter.id",
            "ContainerStatsFilter.pod_sandbox_id",
            "ContainerStatsFilter.label_selector",
        ],
    ),
    ("told again as they are", &["ImageSpec.annotations", "ImageSpec.user_specified_image"]),
    (
        "the registry judges them",
        &[
            "AuthConfig.username",
            "AuthConfig.password",
            "AuthConfig.auth",
            "AuthConfig.server_address",
            "AuthConfig.identity_token",
            "AuthConfig.registry_token",
        ],
    ),
    ("a profile's name, which the kernel knows or not", &["LinuxContainerSecurityContext.apparmor_profile"]),
    (
        "a message, whose fields are judged",
        &[
            "RunPodSandboxRequest.config",
            "CreateContainerRequest.config",
            "ListPodSandboxRequest.filter",
            "StreamPodSandboxesRequest.filter",
            "ListContainersRequest.filter",
            "StreamContainersRequest.filter",
            "ListContainerStatsRequest.filter",
            "StreamContainerStatsRequest.filter",
            "ListImagesRequest.filter",
            "StreamImagesRequest.filter",
            "PullImageRequest.auth",
            "UpdateRuntimeConfigRequest.runtime_config",
            "RuntimeConfig.network_config",
            "PodSandboxConfig.linux",
            "LinuxPodSandboxConfig.security_context",
            "LinuxSandboxSecurityContext.namespace_options",
            "ContainerConfig.linux",
            "LinuxContainerConfig.resources",
            "LinuxContainerConfig.security_context",
            "LinuxContainerSecurityContext.capabilities",
            "LinuxContainerSecurityContext.namespace_options",
        ],
    ),
];

/// The fields that the list says are honoured.
fn honoured() -> BTreeSet<&'static str> {
    let rows = LIST.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|line| line.split_once("` | honoured |"));
    rows.map(|(field, _)| field).collect()
}

/// That there is such a test in such a file, with such words in it.
fn assert_is_test(file: &str, test: &str, words: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let body = text.split_once(&format!("async fn {test}()")).map(|(_, body)| body);
    let body = body.unwrap_or_else(|| panic!("{file} has no test {test}"));
    let body = body.split("\n}\n").next().unwrap_or_default();
    assert!(body.contains(words), "{file}: {test} has no {words:?}");
}

fn assert_whole(what: &str, covered: &BTreeMap<&str, Vec<String>>) {
    let honoured = honoured();
    assert!(honoured.len() > 100, "the list has been read: {}", honoured.len());
    let missing: Vec<_> = honoured.iter().filter(|field| !covered.contains_key(**field)).collect();
    assert!(missing.is_empty(), "honoured in docs/cri-fields.md, and {what}: {missing:?}");
    let strange: Vec<_> = covered.keys().filter(|field| !honoured.contains(**field)).collect();
    assert!(strange.is_empty(), "not honoured by docs/cri-fields.md, and yet here: {strange:?}");
}

#[test]
fn every_field_that_is_honoured_is_shown_to_be() {
    let mut covered: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (fields, ..) in containers::ROWS {
        fields.iter().for_each(|field| covered.entry(field).or_default().push("a row".into()));
    }
    for (file, test, fields) in SHOWN {
        assert_is_test(file, test, "");
        fields.iter().for_each(|field| covered.entry(field).or_default().push(format!("{file}: {test}")));
    }
    assert_whole("no test shows it", &covered);
}

#[test]
fn every_field_that_is_honoured_has_a_value_that_is_refused_or_none_could_be() {
    let mut covered: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let rows =
        bad::PODS.iter().map(|(fields, ..)| fields).chain(bad::CONTAINERS.iter().map(|(fields, ..)| fields));
    for fields in rows {
        fields.iter().for_each(|field| covered.entry(field).or_default().push("a row".into()));
    }
    for (file, test, words, fields) in REFUSED {
        assert_is_test(file, test, words);
        fields.iter().for_each(|field| covered.entry(field).or_default().push(format!("{file}: {test}")));
    }
    for (words, fields) in STREAMS_REFUSED {
        assert_is_test(STREAMS, "urls_are_given_for_what_runs_and_nothing_else", words);
        fields.iter().for_each(|field| covered.entry(field).or_default().push((*words).into()));
    }
    for (reason, fields) in ANY_IS_GOOD {
        for field in *fields {
            let elsewhere = covered.insert(field, vec![(*reason).to_owned()]);
            assert!(elsewhere.is_none(), "{field}: {reason}, and yet refused by {elsewhere:?}");
        }
    }
    assert_whole("no value of it is refused", &covered);
}
