// SPDX-License-Identifier: Apache-2.0
//! What can go wrong in the daemon, and the one place that maps it to gRPC codes.

use std::time::Duration;

use hull_image_store::PullError;
use tonic::{Code, Status};

use crate::exhausted;

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a verb failed, named by what it means for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong.
    #[error("{operation}: {field}: {problem}")]
    InvalidArgument {
        /// The RPC.
        operation: &'static str,
        /// The field.
        field: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// There is no such thing.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// `pod sandbox`, `container`, `image`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// A short id that several things have.
    #[error("{kind} id {prefix:?} is ambiguous: {matches} begin with it; give more digits")]
    Ambiguous {
        /// `pod sandbox` or `container`.
        kind: &'static str,
        /// The short id.
        prefix: String,
        /// How many.
        matches: usize,
    },
    /// The name is taken by something else.
    #[error("{operation}: {name} already exists as {id} ({detail})")]
    AlreadyExists {
        /// The RPC.
        operation: &'static str,
        /// The key in words.
        name: String,
        /// Who has it.
        id: String,
        /// In which way it differs, and what to do.
        detail: String,
    },
    /// The state does not allow it.
    #[error("{operation} {id}: {problem}")]
    FailedPrecondition {
        /// The RPC.
        operation: &'static str,
        /// The thing.
        id: String,
        /// Why not.
        problem: String,
    },
    /// The container's program cannot be run; known since its creation.
    #[error("StartContainer {id}: {message}")]
    StartFailed {
        /// The container.
        id: String,
        /// What the runtime said.
        message: String,
    },
    /// A step took longer than allowed.
    #[error("{operation} {id}: timed out after {after:?} at stage {stage}")]
    DeadlineExceeded {
        /// The RPC.
        operation: &'static str,
        /// The thing.
        id: String,
        /// The step.
        stage: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Another operation won (see `operation::admit`).
    #[error("{operation} {id}: cancelled at stage {stage}")]
    Cancelled {
        /// The RPC.
        operation: &'static str,
        /// The thing.
        id: String,
        /// The step.
        stage: &'static str,
    },
    /// The daemon is starting or stopping.
    #[error("{operation}: {problem}; try again")]
    Unavailable {
        /// The RPC.
        operation: &'static str,
        /// What it is busy with.
        problem: &'static str,
    },
    /// What became of the thing while no daemon ran is being found out.
    #[error("{operation} {id}: it is being recovered after a restart of the daemon; try again")]
    Recovering {
        /// The RPC.
        operation: &'static str,
        /// The thing.
        id: String,
    },
    /// Another daemon works on the directory.
    #[error("{} is in use by another hull", dir.display())]
    InUse {
        /// The directory.
        dir: std::path::PathBuf,
    },
    /// The `run_root` goes with another `root`.
    #[error(
        "run_root {} belongs to the hull whose root is {}: set run_root to a directory of its own; or, if that root is not \
         used any more, remove the file owner from run_root",
        run_root.display(), owner.display()
    )]
    RunRootTaken {
        /// The directory.
        run_root: std::path::PathBuf,
        /// The other `root`.
        owner: std::path::PathBuf,
    },
    /// Not built in.
    #[error("{what} is not implemented")]
    Unimplemented {
        /// The RPC or feature.
        what: String,
    },
    /// A step failed.
    #[error("{operation} {id}: {stage}: {}", chain(cause.as_ref()))]
    Step {
        /// The RPC.
        operation: &'static str,
        /// The thing.
        id: String,
        /// The step.
        stage: &'static str,
        /// The cause.
        cause: Box<Error>,
    },
    /// A step failed without saying why, and a file system of the daemon lacks something.
    #[error("{}; {lack}: {}", chain(cause.as_ref()), dir.display())]
    Lacks {
        /// The directory on it.
        dir: std::path::PathBuf,
        /// What it lacks.
        lack: &'static str,
        /// The code of that.
        code: Code,
        /// The failure.
        cause: Box<Error>,
    },
    /// A bug, or the lack of a thread: a task ended by a panic.
    #[error("{operation} {id}: {words}")]
    Panicked {
        /// The RPC.
        operation: &'static str,
        /// The thing.
        id: String,
        /// The panic's message.
        words: String,
    },
    /// An OCI runtime.
    #[error(transparent)]
    Runtime(#[from] hull_oci_runtime::Error),
    /// A monitor.
    #[error(transparent)]
    Monitor(#[from] hull_conmon_client::Error),
    /// Namespaces.
    #[error(transparent)]
    NetNs(#[from] hull_netns::Error),
    /// The pod network.
    #[error(transparent)]
    Network(#[from] hull_pod_network::Error),
    /// Images.
    #[error(transparent)]
    Image(#[from] hull_image_store::Error),
    /// Records.
    #[error(transparent)]
    Record(#[from] hull_record::Error),
    /// The streaming server.
    #[error(transparent)]
    Streaming(#[from] hull_streaming::Error),
    /// Control groups.
    #[error(transparent)]
    Cgroup(#[from] hull_cgroups::Error),
    /// systemd.
    #[error(transparent)]
    Systemd(#[from] hull_systemd::Error),
    /// The OCI spec cannot be made from the request.
    #[error(transparent)]
    Spec(#[from] crate::spec::SpecError),
    /// A file or mount.
    #[error("{context}")]
    Io {
        /// What was being done, with the path.
        context: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Several things went wrong while cleaning up; each was tried.
    #[error("{operation} {id}: {}", failures.iter().map(|f| chain(f)).collect::<Vec<_>>().join("; "))]
    Cleanup {
        /// The RPC.
        operation: &'static str,
        /// The thing.
        id: String,
        /// Each failure.
        failures: Vec<Error>,
    },
    /// What another caller of the same operation was told.
    #[error("{}", chain(.0.as_ref()))]
    Shared(std::sync::Arc<Error>),
    /// A bug: a task ended without an answer.
    #[error("{operation} {id}: ended without an answer")]
    Lost {
        /// The RPC.
        operation: &'static str,
        /// The thing.
        id: String,
    },
}

/// An error with its causes on one line, the cause last; the lines of another program's text are joined by `"; "`.
/// Other control characters stay: they are escaped where the text is written out (see [`hull_escape`]).
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let words = source.to_string();
        // Transparent layers repeat their source.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = source.source();
    }
    hull_escape::join_lines(&text).into_owned()
}

/// The message that a client gets for an error: escaped, because clients print it, and bounded, because gRPC carries
/// it in a header that a caller's own huge id must not burst.
pub(crate) fn for_client(text: &str) -> String {
    let escaped = hull_escape::escape(text);
    match hull_escape::cut(&escaped, LONGEST_MESSAGE) {
        (_, false) => escaped.into_owned(),
        (beginning, true) => format!("{beginning}{}", hull_escape::CUT),
    }
}

const LONGEST_MESSAGE: usize = 4096;

// === impl Error ===

impl Error {
    /// The gRPC code. What would only be an internal error is looked at again: the node may have run out of something.
    pub fn code(&self) -> Code {
        match self.code_of_kind() {
            Code::Internal => exhausted::code(self).unwrap_or(Code::Internal),
            code => code,
        }
    }

    /// The code by what the error is. Total on purpose: a new variant must be thought about here.
    fn code_of_kind(&self) -> Code {
        match self {
            Self::InvalidArgument { .. } | Self::Ambiguous { .. } => Code::InvalidArgument,
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::FailedPrecondition { .. } | Self::StartFailed { .. } | Self::RunRootTaken { .. } => {
                Code::FailedPrecondition
            }
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::Cancelled { .. } => Code::Aborted,
            Self::Unavailable { .. } | Self::Recovering { .. } | Self::InUse { .. } => Code::Unavailable,
            Self::Unimplemented { .. } => Code::Unimplemented,
            Self::Step { cause, .. } => cause.code(),
            Self::Lacks { code, .. } => *code,
            Self::Shared(shared) => shared.code(),
            Self::Runtime(error) => runtime_code(error),
            Self::Monitor(error) => monitor_code(error),
            Self::Network(error) => network_code(error),
            Self::Image(error) => image_code(error),
            Self::Streaming(error) => streaming_code(error),
            Self::NetNs(
                hull_netns::Error::Sysctl { .. }
                | hull_netns::Error::InvalidId { .. }
                | hull_netns::Error::InvalidHostname { .. },
            ) => Code::InvalidArgument,
            Self::Spec(error) => spec_code(error),
            Self::NetNs(_)
            | Self::Record(_)
            | Self::Cgroup(_)
            | Self::Systemd(_)
            | Self::Io { .. }
            | Self::Cleanup { .. }
            | Self::Panicked { .. }
            | Self::Lost { .. } => Code::Internal,
        }
    }

    /// The word that the kubelet looks for at the beginning of a message, to tell the pod's user why it waits.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Image(error) => match error.root() {
                hull_image_store::Error::Pull { source: PullError::Unavailable(_), .. } => {
                    Some("RegistryUnavailable")
                }
                _ => None,
            },
            Self::Step { cause, .. } => cause.reason(),
            Self::Shared(shared) => shared.reason(),
            _ => None,
        }
    }

    pub(crate) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { context: context.into(), source }
    }
}

fn runtime_code(error: &hull_oci_runtime::Error) -> Code {
    use hull_oci_runtime::Error as E;
    match error {
        E::NotFound { .. } => Code::NotFound,
        E::AlreadyExists { .. } => Code::AlreadyExists,
        E::InvalidState { .. } => Code::FailedPrecondition,
        E::Unsupported { .. } => Code::Unimplemented,
        E::TimedOut { .. } => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

fn monitor_code(error: &hull_conmon_client::Error) -> Code {
    use hull_conmon_client::Error as E;
    match error {
        E::TimedOut { .. } => Code::DeadlineExceeded,
        E::NoMonitor { .. } => Code::FailedPrecondition,
        E::InvalidPath { .. } => Code::InvalidArgument,
        E::Unsupported { .. } => Code::Unimplemented,
        _ => Code::Internal,
    }
}

fn network_code(error: &hull_pod_network::Error) -> Code {
    use hull_pod_network::Error as E;
    match error {
        E::NotReady { .. } => Code::Unavailable,
        E::TimedOut { .. } => Code::DeadlineExceeded,
        E::Attach { source, .. } => network_code(source),
        E::Invalid(_) => Code::InvalidArgument,
        E::PortTaken { .. } => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}

fn streaming_code(error: &hull_streaming::Error) -> Code {
    use hull_streaming::Error as E;
    match error {
        E::InvalidRequest { .. } => Code::InvalidArgument,
        E::TooManyTokens { .. } | E::TokensTooLarge { .. } => Code::ResourceExhausted,
        _ => Code::Internal,
    }
}

fn image_code(error: &hull_image_store::Error) -> Code {
    use hull_image_store::Error as E;
    match error.root() {
        E::InvalidReference { .. } | E::Ambiguous { .. } => Code::InvalidArgument,
        E::NotPresent { .. } => Code::NotFound,
        E::Pull { source, .. } => pull_code(source),
        _ => Code::Internal,
    }
}

fn pull_code(error: &PullError) -> Code {
    match error {
        PullError::NotFound(_) | PullError::NoPlatform(_) | PullError::NoRegistry(_) => Code::NotFound,
        PullError::Unauthorized(_) => Code::Unauthenticated,
        PullError::Denied(_) => Code::PermissionDenied,
        PullError::TooManyRequests(_) => Code::ResourceExhausted,
        PullError::Unavailable(_) | PullError::Closing => Code::Unavailable,
        PullError::Configuration(_) => Code::FailedPrecondition,
        PullError::Credentials(_) => Code::InvalidArgument,
        PullError::Cancelled => Code::Aborted,
        _ => Code::Internal,
    }
}

fn spec_code(error: &crate::spec::SpecError) -> Code {
    use crate::spec::SpecError as E;
    match error {
        E::Unsupported { .. } => Code::Unimplemented,
        E::NoAnswer { .. } => Code::DeadlineExceeded,
        E::Helper { errno: Some(errno), .. } => {
            exhausted::of(nix::errno::Errno::from_raw(*errno)).unwrap_or(Code::Internal)
        }
        E::Io { .. } | E::Helper { invalid: false, .. } => Code::Internal,
        _ => Code::InvalidArgument,
    }
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Self {
        let words = chain(error);
        let words = match error.reason() {
            Some(reason) => format!("{reason}: {words}"),
            None => words,
        };
        Status::new(error.code(), for_client(&words))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_meaning_has_its_code() {
        let id = || "x".to_owned();
        let rows = [
            (Error::InvalidArgument { operation: "o", field: id(), problem: id() }, Code::InvalidArgument),
            (Error::NotFound { kind: "container", id: id() }, Code::NotFound),
            (Error::Ambiguous { kind: "container", prefix: id(), matches: 2 }, Code::InvalidArgument),
            (
                Error::AlreadyExists { operation: "o", name: id(), id: id(), detail: id() },
                Code::AlreadyExists,
            ),
            (Error::FailedPrecondition { operation: "o", id: id(), problem: id() }, Code::FailedPrecondition),
            (Error::StartFailed { id: id(), message: id() }, Code::FailedPrecondition),
            (
                Error::DeadlineExceeded { operation: "o", id: id(), stage: "s", after: Duration::ZERO },
                Code::DeadlineExceeded,
            ),
            (Error::Cancelled { operation: "o", id: id(), stage: "s" }, Code::Aborted),
            (Error::Unavailable { operation: "o", problem: "starting" }, Code::Unavailable),
            (Error::Recovering { operation: "o", id: "a".into() }, Code::Unavailable),
            (Error::InUse { dir: "/r".into() }, Code::Unavailable),
            (Error::RunRootTaken { run_root: "/a".into(), owner: "/b".into() }, Code::FailedPrecondition),
            (Error::Unimplemented { what: id() }, Code::Unimplemented),
            (Error::Runtime(hull_oci_runtime::Error::NotFound { id: id() }), Code::NotFound),
            (
                Error::Runtime(hull_oci_runtime::Error::TimedOut {
                    operation: "exec",
                    after: Duration::ZERO,
                }),
                Code::DeadlineExceeded,
            ),
            (Error::Monitor(hull_conmon_client::Error::NoMonitor { id: id() }), Code::FailedPrecondition),
            (
                Error::Network(hull_pod_network::Error::NotReady { reason: id(), message: id() }),
                Code::Unavailable,
            ),
            (Error::Image(hull_image_store::Error::NotPresent { reference: id() }), Code::NotFound),
            (
                Error::Streaming(hull_streaming::Error::InvalidRequest { kind: "exec", problem: "p" }),
                Code::InvalidArgument,
            ),
            (Error::Streaming(hull_streaming::Error::TooManyTokens { limit: 1 }), Code::ResourceExhausted),
            (Error::Streaming(hull_streaming::Error::TokensTooLarge { limit: 1 }), Code::ResourceExhausted),
            (Error::io("write", std::io::Error::from_raw_os_error(28)), Code::ResourceExhausted),
            (Error::io("write", std::io::Error::from_raw_os_error(30)), Code::FailedPrecondition),
            (Error::io("write", std::io::Error::from_raw_os_error(5)), Code::Internal),
            (Error::io("start", std::io::Error::other("Too many open files")), Code::ResourceExhausted),
            (
                Error::Spec(crate::spec::SpecError::NoAnswer {
                    path: "/v/x".into(),
                    mount: "/v".into(),
                    kind: "nfs4".into(),
                    after: Duration::from_secs(30),
                }),
                Code::DeadlineExceeded,
            ),
            (Error::Cleanup { operation: "o", id: id(), failures: vec![] }, Code::Internal),
            (Error::Lost { operation: "o", id: id() }, Code::Internal),
        ];
        for (error, code) in rows {
            assert_eq!(error.code(), code, "{error}");
            let step = Error::Step { operation: "o", id: id(), stage: "s", cause: Box::new(error) };
            assert_eq!(step.code(), code, "a step keeps its cause's code");
        }
    }

    #[test]
    fn a_pull_that_fails_says_what_the_kubelet_can_tell_its_user() {
        use hull_image_store::registry::Error as Registry;
        let (url, detail) = (|| "https://r.io/v2/a".to_owned(), String::new);
        let pull = |source| {
            let pull = hull_image_store::Error::Pull { reference: "r.io/a:1".into(), source };
            Error::Image(hull_image_store::Error::Shared(std::sync::Arc::new(pull)))
        };
        let down = || Registry::Connect { url: url(), problem: "refused".into() };
        let lie = || Registry::Content { url: url(), problem: "wrong digest".into() };
        let rows = [
            (PullError::NotFound(Registry::NotFound { url: url(), detail: detail() }), Code::NotFound),
            (
                PullError::Unauthorized(Registry::Unauthorized { url: url(), detail: detail() }),
                Code::Unauthenticated,
            ),
            (PullError::Denied(Registry::Denied { url: url(), detail: detail() }), Code::PermissionDenied),
            (
                PullError::TooManyRequests(Registry::TooManyRequests {
                    url: url(),
                    retry_after: None,
                    detail: detail(),
                }),
                Code::ResourceExhausted,
            ),
            (PullError::Unavailable(down()), Code::Unavailable),
            (PullError::Configuration(lie()), Code::FailedPrecondition),
            (PullError::Content(lie()), Code::Internal),
            (PullError::Credentials("bad".into()), Code::InvalidArgument),
            (PullError::NoPlatform("no image for linux/amd64".into()), Code::NotFound),
            (PullError::NoRegistry("mock".into()), Code::NotFound),
            (PullError::Cancelled, Code::Aborted),
            (PullError::Closing, Code::Unavailable),
        ];
        for (source, code) in rows {
            let status = Status::from(pull(source));
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains("r.io/a:1"), "{status}");
        }
        let status = Status::from(pull(PullError::Unavailable(down())));
        let message = "RegistryUnavailable: cannot pull r.io/a:1: the registry is not available: \
                       https://r.io/v2/a: cannot connect: refused";
        assert_eq!(status.message(), message);
    }

    #[test]
    fn a_message_fits_into_a_header() {
        let status = Status::from(Error::NotFound { kind: "container", id: "ä".repeat(100_000) });
        assert!(status.message().len() < 5000);
    }

    #[test]
    fn a_message_names_operation_thing_stage_and_cause_on_one_line() {
        let cause = Error::io("write /x", std::io::Error::other("line one\nline two"));
        let error = Error::Step {
            operation: "RunPodSandbox",
            id: "abc".into(),
            stage: "files",
            cause: Box::new(cause),
        };
        assert_eq!(Status::from(error).message(), "RunPodSandbox abc: files: write /x: line one; line two");
    }

    #[test]
    fn a_message_has_no_control_characters() {
        let problem = "a\0b\u{1b}[2J\u{9b}c\u{202e}".to_owned();
        let error = Error::InvalidArgument { operation: "o", field: "f\nINFO forged".to_owned(), problem };
        let status = Status::from(error);
        assert_eq!(status.message(), "o: f; INFO forged: a\\0b\\u{1b}[2J\\u{9b}c\\u{202e}");
    }
}
