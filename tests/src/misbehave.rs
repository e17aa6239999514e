// SPDX-License-Identifier: Apache-2.0
//! Foreign programs that misbehave on demand: wrappers around the real conmon, runc, crun, and a CNI plugin.
//!
//! ```text
//! <dir>/misbehave/PROGRAM.VERB   is there: the program does at this verb what the file says, else the real thing
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{bystander, cni, runtimes, tool};

/// What a program does in place of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misbehaviour {
    /// Never answers, ignores SIGTERM, and has left its process group by a daemon.
    Hang,
    /// Dies of a signal.
    Crash,
    /// Says that all went well, in words that mean nothing, and has done nothing.
    Garbage,
    /// Fails, and leaves two daemons behind: one holds its output open, one has nothing in common with it.
    Daemon,
    /// Never ends, and never stops talking.
    Flood,
    /// Fails with words that would forge a line of the log; of no matrix.
    Forge,
}

/// All of them.
pub const ALL: [Misbehaviour; 5] = [
    Misbehaviour::Hang,
    Misbehaviour::Crash,
    Misbehaviour::Garbage,
    Misbehaviour::Daemon,
    Misbehaviour::Flood,
];

/// How long a daemon that was left behind lives: its arguments tell it from everything else.
const DAEMON: &str = "86399";

impl Misbehaviour {
    fn word(self) -> &'static str {
        match self {
            Self::Hang => "hang",
            Self::Crash => "crash",
            Self::Garbage => "garbage",
            Self::Daemon => "daemon",
            Self::Flood => "flood",
            Self::Forge => "forge",
        }
    }
}

/// What a line begins with that [`Misbehaviour::Forge`] would forge.
pub const FORGED: &str = "2001-02-03T04:05:06.000000Z";

/// Whether a process is such a daemon.
pub fn is_daemon(arguments: &str) -> bool {
    arguments.contains(&format!("sleep {DAEMON}"))
}

/// Ends one that should have been ended by the daemon under test.
pub fn end_daemon(pid: u32) {
    crate::daemon::send_signal(pid, "KILL");
}

/// From now on a program misbehaves at a verb; `None`: it works again.
///
/// # Panics
/// When the file cannot be written.
pub fn set(dir: &Path, program: &str, verb: &str, how: Option<Misbehaviour>) {
    let path = dir.join("misbehave").join(format!("{program}.{verb}"));
    match how {
        Some(how) => fs::write(path, how.word()).expect("write the misbehaviour"),
        None => {
            let _ = fs::remove_file(path);
        }
    }
}

/// A runtime that can misbehave at each of its verbs.
///
/// # Panics
/// When the wrapper cannot be written.
pub fn runtime(dir: &Path, handler: &str) -> PathBuf {
    let real = runtimes::real(dir, handler);
    let verbs = "create start kill delete exec state update";
    let find = format!(
        "verb=\nfor word in \"$@\"; do case \" {verbs} \" in *\" $word \"*) verb=$word; break ;; esac; done\n"
    );
    script(dir, &format!("bad-{handler}"), &find, "runtime", &format!("exec {} \"$@\"", real.display()))
}

/// A conmon that can misbehave (verb `run`), except to the bystander's container: all handlers share it.
///
/// # Panics
/// When the wrapper cannot be written.
pub fn conmon(dir: &Path) -> PathBuf {
    let find = format!(
        "verb=run\ncase \" $* \" in *' --version '*) verb=version ;; *{}*) verb=beside ;; esac\n",
        bystander::CONTAINER
    );
    // By its own name: the daemon knows monitors by it.
    script(dir, "conmon", &find, "conmon", &format!("exec {} \"$@\"", tool("conmon").display()))
}

/// A plugin `misbehaves` at the end of the network's chain, with the verbs ADD and DEL.
///
/// # Panics
/// When it cannot be written.
pub fn plugin(dir: &Path) {
    cni::write_network(dir, &["misbehaves"]);
    cni::write_fake(dir, "works", cni::Fake::Works);
    let works = dir.join("cni/bin/works");
    let bin =
        script(dir, "misbehaves", "verb=$CNI_COMMAND\n", "plugin", &format!("exec {}", works.display()));
    fs::rename(bin, dir.join("cni/bin/misbehaves")).expect("install the plugin");
}

/// A failure: a plugin's is a document on its standard output, the others' is text on standard error.
fn forge() -> String {
    let line = format!("{FORGED}  INFO hull: forged");
    format!(
        "printf 'bad\\n{line}\\000\\033[2J\\302\\233end\\n' >&2; \
         printf '%s' '{{\"cniVersion\":\"1.0.0\",\"code\":99,\"msg\":\"bad\\n{line}\\u0000\\u001b[2J\"}}'; exit 1"
    )
}

fn script(dir: &Path, name: &str, find: &str, program: &str, real: &str) -> PathBuf {
    let modes = dir.join("misbehave");
    let bin = dir.join("bad");
    for dir in [&modes, &bin] {
        fs::create_dir_all(dir).expect("make the directories of misbehaviour");
    }
    let text = format!(
        "#!/bin/sh\n{find}case \"$(cat '{modes}/{program}.'\"$verb\" 2>/dev/null)\" in\n\
         hang) {far} & trap '' TERM; while :; do sleep 1000; done ;;\n\
         crash) kill -SEGV $$ ;;\n\
         garbage) echo '}}no such {{document'; exit 0 ;;\n\
         daemon) {far} & setsid sleep {DAEMON} & echo 'I leave somebody behind' >&2; exit 1 ;;\n\
         flood) trap '' TERM; yes 'so much to say'; while :; do sleep 1000; done ;;\n\
         forge) {forge} ;;\n\
         esac\n{real}\n",
        modes = modes.display(),
        forge = forge(),
        far = format!("setsid sh -c 'trap \"\" TERM; sleep {DAEMON}; :' </dev/null >/dev/null 2>&1"),
    );
    let path = bin.join(name);
    fs::write(&path, text).expect("write a wrapper");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make the wrapper executable");
    path
}
