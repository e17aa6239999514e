// SPDX-License-Identifier: Apache-2.0
//! The `process` object: what is run, as whom, with what.

use std::path::{Component, PathBuf};

use oci_spec::runtime::{LinuxCapabilities, Process, Spec, User};

use super::{NodeFacts, SpecError, SpecInput, apparmor, env, rlimits, security_context};

/// The container's process.
pub(super) fn container_process(
    input: &SpecInput<'_>,
    capabilities: LinuxCapabilities,
) -> Result<Process, SpecError> {
    let (container, image) = (input.container, input.image);
    let security = security_context(container);
    let resources = container.linux.as_ref().and_then(|it| it.resources.as_ref());
    let args = args(&container.command, &container.args, &image.entrypoint, &image.cmd)?;

    let mut user = User::default();
    user.set_uid(input.user.uid)
        .set_gid(input.user.gid)
        .set_additional_gids(Some(input.user.groups.clone()).filter(|groups| !groups.is_empty()));

    let mut process = bare_process(args, cwd(&container.working_dir, &image.working_dir)?);
    process
        .set_terminal(Some(container.tty))
        .set_user(user)
        .set_env(Some(env::build(&image.env, input.hostname, container.tty, &container.envs)?))
        .set_capabilities(Some(capabilities))
        .set_no_new_privileges(Some(security.is_some_and(|it| it.no_new_privs)))
        .set_apparmor_profile(apparmor::profile(input)?)
        .set_rlimits(rlimits::of_process(input.rlimits)?)
        .set_oom_score_adj(Some(oom_score_adj(resources.map_or(0, |it| it.oom_score_adj), input.facts)?));
    Ok(process)
}

/// The process of an exec: the container's own with another command. `cmd` must not be empty.
pub fn exec_process(spec: &Spec, cmd: &[String], tty: bool) -> Process {
    let mut process = spec.process().clone().unwrap_or_else(|| bare_process(Vec::new(), "/".into()));
    let mut list = process.env().clone().unwrap_or_default();
    if tty && !env::has(&list, "TERM") {
        list.push(env::DEFAULT_TERM.to_owned());
    }
    process.set_args(Some(cmd.to_vec())).set_env(Some(list)).set_terminal(Some(tty)).set_console_size(None);
    process
}

/// A process with nothing but what is given; the library's defaults are not ours (1024 files, capabilities).
pub(super) fn bare_process(args: Vec<String>, cwd: PathBuf) -> Process {
    let mut process = Process::default();
    process
        .set_args(Some(args))
        .set_cwd(cwd)
        .set_env(None)
        .set_terminal(Some(false))
        .set_capabilities(None)
        .set_rlimits(None)
        .set_no_new_privileges(None);
    process
}

/// What is run: the container's command with its args, else the image's entrypoint with the
/// container's args or, where it has none, with the image's. An image's `ENTRYPOINT [""]` is how Docker takes
/// back the entrypoint of a base image: none.
fn args(
    command: &[String],
    args: &[String],
    entrypoint: &[String],
    cmd: &[String],
) -> Result<Vec<String>, SpecError> {
    let entrypoint = if entrypoint == [""] { &[] } else { entrypoint };
    let (program, rest) = match (command.is_empty(), args.is_empty()) {
        (false, _) => (command, args),
        (true, false) => (entrypoint, args),
        (true, true) => (entrypoint, cmd),
    };
    let all: Vec<String> = program.iter().chain(rest).cloned().collect();
    if all.is_empty() || all.iter().all(String::is_empty) {
        return Err(SpecError::NoCommand);
    }
    if all[0].is_empty() {
        return Err(SpecError::invalid("command", "the program's name is empty"));
    }
    if let Some(bad) = all.iter().find(|arg| arg.contains('\0')) {
        return Err(SpecError::invalid("command", format!("{bad:?} holds a NUL byte")));
    }
    Ok(all)
}

/// Where it starts: absolute, without `.` and `..`. An image's relative directory is meant from the root.
fn cwd(container: &str, image: &str) -> Result<PathBuf, SpecError> {
    let wanted = if container.is_empty() { image } else { container };
    if wanted.contains('\0') {
        return Err(SpecError::invalid("working_dir", format!("{wanted:?} holds a NUL byte")));
    }
    if !container.is_empty() && !container.starts_with('/') {
        return Err(SpecError::invalid("working_dir", format!("{container:?} is not an absolute path")));
    }
    Ok(clean(wanted))
}

/// Makes a path absolute and takes `.`, `..` and doubled slashes out, as text.
pub(super) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in std::path::Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The wanted value, or the daemon's own where it is higher and the daemon may not go below it: the
/// runtime would fail otherwise (proc(5), `oom_score_adj`).
pub(super) fn oom_score_adj(wanted: i64, facts: &NodeFacts) -> Result<i32, SpecError> {
    let value = i32::try_from(wanted).ok().filter(|value| (-1000..=1000).contains(value));
    let Some(value) = value else {
        let problem = format!("{wanted} is not between -1000 and 1000");
        return Err(SpecError::invalid("linux.resources.oom_score_adj", problem));
    };
    Ok(if facts.can_raise_limits() { value } else { value.max(facts.oom_score_adj) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::facts;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn command_and_args_against_the_image() {
        let (entry, cmd) = (strings(&["entry", "e"]), strings(&["cmd"]));
        let none = Vec::new();
        let (own, own_args) = (strings(&["own"]), strings(&["arg"]));
        let run = |command, given| args(command, given, &entry, &cmd).unwrap();
        assert_eq!(run(&none, &none), strings(&["entry", "e", "cmd"]));
        assert_eq!(run(&none, &own_args), strings(&["entry", "e", "arg"]));
        assert_eq!(run(&own, &none), strings(&["own"]));
        assert_eq!(run(&own, &own_args), strings(&["own", "arg"]));
        assert_eq!(args(&none, &own_args, &none, &cmd).unwrap(), strings(&["arg"]));
        assert_eq!(args(&none, &none, &none, &cmd).unwrap(), strings(&["cmd"]));
        let taken_back = strings(&[""]);
        assert_eq!(args(&none, &none, &taken_back, &cmd).unwrap(), strings(&["cmd"]));
        assert_eq!(args(&none, &own_args, &taken_back, &cmd).unwrap(), strings(&["arg"]));
        assert_eq!(args(&own, &none, &taken_back, &cmd).unwrap(), strings(&["own"]));
        assert!(matches!(args(&none, &none, &taken_back, &none), Err(SpecError::NoCommand)));
        assert!(matches!(args(&none, &none, &none, &none), Err(SpecError::NoCommand)));
        assert!(matches!(args(&strings(&[""]), &none, &none, &none), Err(SpecError::NoCommand)));
        assert!(args(&strings(&["", "x"]), &none, &none, &none).is_err());
        assert!(args(&strings(&["a\0"]), &none, &none, &none).is_err());
    }

    #[test]
    fn working_directories() {
        let cases = [
            ("", "", "/"),
            ("", "/img", "/img"),
            ("/own", "/img", "/own"),
            ("", "srv/app", "/srv/app"),
            ("/a//b/./../c/", "", "/a/c"),
            ("/../../etc", "", "/etc"),
        ];
        for (container, image, expected) in cases {
            assert_eq!(cwd(container, image).unwrap(), PathBuf::from(expected), "{container} {image}");
        }
        assert!(cwd("relative", "").is_err());
    }

    #[test]
    fn oom_scores_are_clamped_without_the_capability() {
        let mut node = facts();
        node.oom_score_adj = -100;
        assert_eq!(oom_score_adj(-998, &node).unwrap(), -998);
        node.capabilities.remove(&oci_spec::runtime::Capability::SysResource);
        assert_eq!(oom_score_adj(-998, &node).unwrap(), -100);
        assert_eq!(oom_score_adj(1000, &node).unwrap(), 1000);
        let error = oom_score_adj(1001, &node).unwrap_err();
        assert_eq!(error.to_string(), "linux.resources.oom_score_adj: 1001 is not between -1000 and 1000");
    }
}
