// SPDX-License-Identifier: Apache-2.0
//! conmon's command line.
//!
//! Values are joined to long options (`--name=value`), so that a value that starts with `-` stays one.

use std::ffi::{OsStr, OsString};

use hull_oci_runtime::RuntimeCommand;

use super::ConmonConfig;
use crate::files::Files;
use crate::{CreateRequest, Error, Result, Stdio};

/// The arguments after the program's name.
pub(super) fn arguments(
    config: &ConmonConfig,
    request: &CreateRequest,
    files: &Files,
) -> Result<Vec<OsString>> {
    let command = &request.command;
    let mut arguments = vec![
        joined("--cid", &command.id),
        joined("--cuuid", &command.id),
        joined("--name", &request.name),
        joined("--bundle", &command.bundle),
        joined("--runtime", &command.program),
        joined("--container-pidfile", files.pid()),
        joined("--conmon-pidfile", files.monitor_pid()),
        joined("--exit-dir", files.exits_dir()),
        joined("--persist-dir", files.persist_dir()),
        joined("--socket-dir-path", &config.socket_dir),
        joined("--log-path", log(request)),
    ];
    arguments.extend(streams(request.stdio).iter().map(OsString::from));
    if config.syslog {
        arguments.push("--syslog".into());
    }
    if command.systemd_cgroup {
        arguments.push("--systemd-cgroup".into());
    }
    let (restore, options) = restore_image(command)?;
    arguments.extend(restore.map(|image| joined("--restore", image)));
    arguments.extend(command.global_args.iter().map(|arg| joined("--runtime-arg", arg)));
    // The container inherits the runtime's output, and conmon would log its warnings as the container's words.
    arguments.push(joined("--runtime-arg", joined("--log", files.runtime_log())));
    arguments.push("--runtime-arg=--log-format=json".into());
    arguments.extend(options.iter().map(|option| joined("--runtime-opt", option)));
    Ok(arguments)
}

fn joined(option: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut argument = OsString::from(option);
    argument.push("=");
    argument.push(value);
    argument
}

fn log(request: &CreateRequest) -> OsString {
    request.log_path.as_ref().map_or_else(
        || "none".into(),
        |path| {
            let mut value = OsString::from("k8s-file:");
            value.push(path);
            value
        },
    )
}

/// With a terminal there is no stdin of its own, and `--stdin` would let a leaving client close the
/// terminal for good.
fn streams(stdio: Stdio) -> &'static [&'static str] {
    match stdio {
        Stdio { terminal: true, .. } => &["--terminal"],
        Stdio { stdin: true, stdin_once: false, .. } => &["--stdin", "--leave-stdin-open"],
        Stdio { stdin: true, stdin_once: true, .. } => &["--stdin"],
        Stdio { stdin: false, .. } => &[],
    }
}

/// For `restore`: the image's directory, which conmon wants as an option of its own, and the options
/// that are left. conmon itself adds `--detach`, `--image-path` and `--work-path`.
fn restore_image(command: &RuntimeCommand) -> Result<(Option<OsString>, Vec<OsString>)> {
    if command.subcommand != "restore" {
        return Ok((None, command.options.clone()));
    }
    let (mut image, mut options) = (None, Vec::new());
    let mut rest = command.options.iter();
    while let Some(option) = rest.next() {
        match option.to_str() {
            Some("--image-path") => image = rest.next().cloned(),
            Some("--work-path") => drop(rest.next()),
            Some("--detach" | "-d") => {}
            Some(text) if text.starts_with("--work-path=") => {}
            Some(text) if text.starts_with("--image-path=") => {
                image = text.split_once('=').map(|(_, path)| path.into())
            }
            _ => options.push(option.clone()),
        }
    }
    if image.is_none() {
        return Err(Error::InvalidPath {
            what: "checkpoint image of container",
            path: command.id.clone().into(),
            problem: "the restore command has no --image-path",
        });
    }
    Ok((image, options))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn request(stdio: Stdio) -> CreateRequest {
        CreateRequest {
            command: RuntimeCommand {
                program: "/usr/sbin/runc".into(),
                global_args: vec!["--root=/run/r".into()],
                subcommand: "create",
                options: vec!["--no-pivot".into()],
                systemd_cgroup: false,
                id: "c1".into(),
                bundle: "/b".into(),
            },
            name: "-odd name".into(),
            state_dir: "/s".into(),
            log_path: Some("/l/0.log".into()),
            stdio,
            monitor_cgroup: None,
            deadline: Duration::from_secs(1),
        }
    }

    fn built(request: &CreateRequest) -> Vec<String> {
        let config = ConmonConfig::new("conmon", "/run/a");
        let files = Files::new(&request.command.id, &request.state_dir, &request.command.bundle);
        let arguments = arguments(&config, request, &files).unwrap();
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn every_part_has_its_option() {
        assert_eq!(
            built(&request(Stdio::default())),
            [
                "--cid=c1",
                "--cuuid=c1",
                "--name=-odd name",
                "--bundle=/b",
                "--runtime=/usr/sbin/runc",
                "--container-pidfile=/s/pid",
                "--conmon-pidfile=/s/monitor.pid",
                "--exit-dir=/s/exits",
                "--persist-dir=/s/persist",
                "--socket-dir-path=/run/a",
                "--log-path=k8s-file:/l/0.log",
                "--syslog",
                "--runtime-arg=--root=/run/r",
                "--runtime-arg=--log=/s/runtime.log",
                "--runtime-arg=--log-format=json",
                "--runtime-opt=--no-pivot",
            ]
        );
    }

    #[test]
    fn streams_systemd_and_no_log() {
        let table = [
            (Stdio { terminal: true, stdin: true, stdin_once: true }, vec!["--terminal"]),
            (
                Stdio { terminal: false, stdin: true, stdin_once: false },
                vec!["--stdin", "--leave-stdin-open"],
            ),
            (Stdio { terminal: false, stdin: true, stdin_once: true }, vec!["--stdin"]),
            (Stdio { terminal: false, stdin: false, stdin_once: true }, vec![]),
        ];
        for (stdio, expected) in table {
            let mut request = request(stdio);
            request.command.systemd_cgroup = true;
            request.log_path = None;
            let arguments = built(&request);
            let found: Vec<&str> = arguments
                .iter()
                .map(String::as_str)
                .filter(|argument| ["--terminal", "--stdin", "--leave-stdin-open"].contains(argument))
                .collect();
            assert_eq!(found, expected);
            assert!(arguments.contains(&"--systemd-cgroup".to_owned()));
            assert!(arguments.contains(&"--log-path=none".to_owned()));
        }
    }

    #[test]
    fn restore_takes_its_image_out_of_the_options() {
        let mut request = request(Stdio::default());
        request.command.subcommand = "restore";
        request.command.options = ["--image-path", "/img", "--work-path=/w", "--detach", "--tcp-established"]
            .map(Into::into)
            .to_vec();
        let arguments = built(&request);
        assert!(arguments.contains(&"--restore=/img".to_owned()));
        assert_eq!(
            arguments.iter().filter(|argument| argument.starts_with("--runtime-opt")).collect::<Vec<_>>(),
            ["--runtime-opt=--tcp-established"]
        );
        request.command.options.clear();
        let files = Files::new("c1", Path::new("/s"), Path::new("/b"));
        let refused = super::arguments(&ConmonConfig::new("conmon", "/a"), &request, &files);
        assert!(matches!(refused, Err(Error::InvalidPath { .. })));
    }
}
