// SPDX-License-Identifier: Apache-2.0
//! Which system calls a container may make.
//!
//! The CRI's profile decides: none at all, or type Unconfined, is no filter; RuntimeDefault is the
//! built-in one, fitted to the capabilities that the container ends up with; Localhost is a document on the node,
//! read beforehand by [`read_profile`]. The privileged have no filter.

use std::path::PathBuf;

use hull_cri_api::v1;
use oci_spec::runtime::{
    Arch as SeccompArch, Capability, LinuxCapabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};
use v1::security_profile::ProfileType;

use super::capabilities::holds;
use super::seccomp_profile::{
    ALLOWED, BY_ARCH, BY_CAPABILITY, CLONE_NEW, PERSONALITIES, PTRACE_SAFE_SINCE, SOCKET_FAMILIES,
};
use super::{Arch, HandlerPolicy, NodeFacts, SpecError, SpecInput, security_context};

mod localhost;

pub use localhost::{LocalhostProfile, read_profile};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const FIELD: &str = "linux.security_context.seccomp";

/// The profile asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    None,
    RuntimeDefault,
    Localhost(PathBuf),
}

/// The file of the Localhost profile that the container asks for, if it does; see [`LocalhostProfile`].
pub fn localhost_path(container: &v1::ContainerConfig) -> Result<Option<PathBuf>, SpecError> {
    match wanted(security_context(container))? {
        Wanted::Localhost(path) => Ok(Some(path)),
        Wanted::None | Wanted::RuntimeDefault => Ok(None),
    }
}

/// `linux.seccomp`.
pub(super) fn of_container(
    input: &SpecInput<'_>,
    privileged: bool,
    capabilities: &LinuxCapabilities,
) -> Result<Option<LinuxSeccomp>, SpecError> {
    // Understood even where it is not applied: a privileged container with a broken profile is still broken.
    let wanted = wanted(security_context(input.container))?;
    if privileged || wanted == Wanted::None {
        return Ok(None);
    }
    if !input.handler.seccomp {
        return Err(SpecError::unsupported(FIELD, "the runtime handler was built without seccomp"));
    }
    match (wanted, input.seccomp_localhost) {
        (Wanted::RuntimeDefault, _) => Ok(Some(runtime_default(capabilities, input.facts, input.policy)?)),
        (Wanted::Localhost(_), Some(profile)) => profile.resolve(capabilities, input.facts).map(Some),
        (Wanted::Localhost(path), None) => {
            Err(SpecError::invalid(FIELD, format!("profile {} has not been read", path.display())))
        }
        (Wanted::None, _) => Ok(None),
    }
}

fn wanted(security: Option<&v1::LinuxContainerSecurityContext>) -> Result<Wanted, SpecError> {
    let Some(security) = security else { return Ok(Wanted::None) };
    let Some(profile) = &security.seccomp else { return deprecated(&security.seccomp_profile_path) };
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(Wanted::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(Wanted::None),
        Ok(ProfileType::Localhost) => localhost(&profile.localhost_ref),
        Ok(ProfileType::Oci) => {
            Err(SpecError::unsupported(FIELD, "profiles from registries are not served yet"))
        }
        Err(_) => Err(SpecError::invalid(FIELD, format!("unknown profile type {}", profile.profile_type))),
    }
}

/// The string that older callers send.
fn deprecated(text: &str) -> Result<Wanted, SpecError> {
    match text {
        "" | "unconfined" => Ok(Wanted::None),
        "runtime/default" | "docker/default" => Ok(Wanted::RuntimeDefault),
        _ => match text.strip_prefix("localhost/") {
            // The kubelet joined its root already: the rest is absolute, with or without the slash.
            Some(path) => localhost(&format!("/{}", path.trim_start_matches('/'))),
            None => Err(SpecError::invalid(FIELD, format!("unknown seccomp_profile_path {text:?}"))),
        },
    }
}

fn localhost(reference: &str) -> Result<Wanted, SpecError> {
    let path = reference.strip_prefix("localhost/").unwrap_or(reference);
    if !path.starts_with('/') {
        let problem = format!("localhost_ref {reference:?} is not an absolute path");
        return Err(SpecError::invalid(FIELD, problem));
    }
    Ok(Wanted::Localhost(PathBuf::from(path)))
}

/// The built-in profile for a container with these capabilities on this node.
pub(super) fn runtime_default(
    capabilities: &LinuxCapabilities,
    facts: &NodeFacts,
    policy: &HandlerPolicy,
) -> Result<LinuxSeccomp, SpecError> {
    let mut names: Vec<&str> = ALLOWED.to_vec();
    names.extend(BY_ARCH.iter().filter(|(arch, _)| *arch == facts.arch).flat_map(|(_, names)| *names));
    let held = BY_CAPABILITY.iter().filter(|(capability, _)| holds(capabilities, *capability));
    names.extend(held.flat_map(|(_, names)| *names));
    if facts.kernel >= PTRACE_SAFE_SINCE {
        names.extend(["process_vm_readv", "process_vm_writev", "ptrace"]);
    }
    if policy.seccomp_allow_socketcall {
        names.push("socketcall");
    }
    names.sort_unstable();
    names.dedup();

    let mut rules = vec![rule(&names, LinuxSeccompAction::ScmpActAllow, None, None)];
    for value in PERSONALITIES {
        rules.push(allow_if("personality", 0, value, None, LinuxSeccompOperator::ScmpCmpEq)?);
    }
    if !policy.seccomp_allow_socketcall {
        // Not listed is not enough: for each rule on `socket`, libseccomp adds one that allows `socketcall` to make a socket of
        // whatever family, unless a rule for the whole call stands before it. Runtimes drop rules that say what the default
        // says, so the error must be another one; "not implemented" makes libraries that know both use `socket`.
        rules.push(rule(&["socketcall"], LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), None));
    }
    for (op, family) in SOCKET_FAMILIES {
        // A pair is refused by most families, after the kernel has made two sockets of it.
        rules.push(allow_if("socket", 0, family, None, op)?);
        rules.push(allow_if("socketpair", 0, family, None, op)?);
    }
    if !holds(capabilities, Capability::SysAdmin) {
        // Threads and processes, but no namespaces: (flags & CLONE_NEW) == 0.
        rules.push(allow_if("clone", 0, CLONE_NEW, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)?);
        // Its flags lie in memory, where a filter cannot look: "not implemented" makes libc use clone.
        rules.push(rule(&["clone3"], LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), None));
    }

    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(architectures(facts.arch))
        .set_syscalls(Some(rules));
    Ok(profile)
}

/// The processor's own calls and those of the older ones that it can act as.
fn architectures(arch: Arch) -> Option<Vec<SeccompArch>> {
    let compatible: &[SeccompArch] = match arch {
        Arch::X86_64 => &[SeccompArch::ScmpArchX86, SeccompArch::ScmpArchX32],
        Arch::Aarch64 => &[SeccompArch::ScmpArchArm],
        Arch::Riscv64 | Arch::Other => &[],
    };
    native_arch(arch).map(|native| std::iter::once(native).chain(compatible.iter().copied()).collect())
}

fn native_arch(arch: Arch) -> Option<SeccompArch> {
    match arch {
        Arch::X86_64 => Some(SeccompArch::ScmpArchX86_64),
        Arch::Aarch64 => Some(SeccompArch::ScmpArchAarch64),
        Arch::Riscv64 => Some(SeccompArch::ScmpArchRiscv64),
        Arch::Other => None,
    }
}

fn rule(
    names: &[&str],
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|it| (*it).to_owned()).collect())
        .set_action(action)
        .set_errno_ret(errno)
        .set_args(args);
    rule
}

fn allow_if(
    name: &str,
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: LinuxSeccompOperator,
) -> Result<LinuxSyscall, SpecError> {
    let arg = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    let arg = match value_two {
        Some(value_two) => arg.value_two(value_two),
        None => arg,
    };
    let arg = arg.build().map_err(|error| SpecError::invalid(FIELD, error.to_string()))?;
    Ok(rule(&[name], LinuxSeccompAction::ScmpActAllow, None, Some(vec![arg])))
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
