// SPDX-License-Identifier: Apache-2.0
//! The limit of open files. In a binary of its own: it changes the limits of the process.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use hull_process::{Command, Limits, raise_nofile_limit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[tokio::test]
async fn a_raised_limit_is_not_passed_on() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(300), maximum: hard }).unwrap();
    assert_eq!(raise_nofile_limit().unwrap(), hard.unwrap_or(u64::MAX));
    assert_eq!(raise_nofile_limit().unwrap(), hard.unwrap_or(u64::MAX), "again");
    assert_eq!(getrlimit(Resource::Nofile).current, hard);

    let limits = Limits { deadline: Duration::from_secs(20), max_output: 100, drain: Duration::ZERO };
    // The limit is set right after the start.
    let command = Command::new("/bin/sh").args(["-c", "read line; ulimit -Sn; ulimit -Hn"]);
    let output = command.output(Some(b"go\n".to_vec()), limits).await.unwrap();
    let expected = format!("300\n{}\n", hard.map_or("unlimited".into(), |hard| hard.to_string()));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
