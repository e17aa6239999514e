// SPDX-License-Identifier: Apache-2.0
//! What a daemon called for one pod, read from the recorders' files, and how it is made another pod's.
//!
//! A recorded word is made a fresh one by replacing texts: the recorders by the programs they stand for,
//! the daemon's directory by our own, each id by a new one of the same form.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One call of one program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    /// `conmon`, `runc`, `bridge`, ...
    pub(crate) program: String,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: String,
    /// Name and content of the files that arguments named.
    pub(crate) files: BTreeMap<String, String>,
}

/// Everything about one pod with one container.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In the order of the chain.
    pub(crate) add: Vec<Call>,
    pub(crate) del: Vec<Call>,
    pub(crate) conmon: Call,
    pub(crate) start: Call,
    pub(crate) exec: Call,
    /// `None`: the daemon sends the stop signal itself.
    pub(crate) kill: Option<Call>,
    pub(crate) delete: Call,
    /// The container's `config.json`.
    pub(crate) config: Value,
    /// What the daemon called besides, which is its own expense: `runc state`, ...
    pub(crate) besides: Vec<String>,
    container: String,
    pod: String,
    exec_id: String,
    /// The daemon's directory, and the recorders'.
    home: String,
    recorders: String,
    programs: Vec<(String, String)>,
}

/// Texts and what takes their place.
#[derive(Debug, Clone)]
pub(crate) struct Swap(Vec<(String, String)>);

/// The ids of a fresh pod.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    pub(crate) container: String,
    pub(crate) pod: String,
    exec: String,
}

impl Ids {
    /// Ids that no other number gives.
    pub(crate) fn of(number: u64) -> Self {
        let id = |kind: u64| format!("{:08x}{kind:08x}{number:048x}", std::process::id());
        Self { container: id(0xc), pod: id(0xd), exec: format!("exec-{number:016x}") }
    }
}

impl Plan {
    /// Reads the calls of a daemon whose directory is `home`. `programs`: what each recorder stands for.
    pub(crate) fn read(home: &Path, recorders: &Path, programs: &[(&str, PathBuf)]) -> Result<Self> {
        let calls = read_calls(&super::files::Places::calls(home))?;
        let mut plan = Self::sort(calls)?;
        plan.home = text(home)?;
        plan.recorders = text(recorders)?;
        for (name, path) in programs {
            plan.programs.push(((*name).to_owned(), text(path)?));
        }
        Ok(plan)
    }

    fn sort(calls: Vec<Call>) -> Result<Self> {
        let mut verbs: BTreeMap<&str, Call> = BTreeMap::new();
        let (mut add, mut del, mut besides) = (Vec::new(), Vec::new(), Vec::new());
        for call in calls {
            let known = ["conmon", "create", "start", "exec", "kill", "delete"];
            let verb = call.verb();
            match known.into_iter().find(|name| *name == verb) {
                _ if verb == "ADD" => add.push(call),
                _ if verb == "DEL" => del.push(call),
                Some(name) if !verbs.contains_key(name) => drop(verbs.insert(name, call)),
                _ => besides.push(format!("{} {verb}", call.program)),
            }
        }
        let kill = verbs.remove("kill");
        let mut take = |verb: &str| {
            verbs.remove(verb).with_context(|| format!("the daemon did not call {verb} for the recorded pod"))
        };
        let conmon = take("conmon")?;
        let config = conmon.files.get("config.json").context("conmon was given no bundle")?;
        let config: Value = serde_json::from_str(config).context("parse the recorded config.json")?;
        let exec = take("exec")?;
        let option = |prefix: &str| conmon.argv.iter().find_map(|word| word.strip_prefix(prefix));
        let container = option("--cid=").context("conmon was given no --cid")?.to_owned();
        let netns = namespace(&config, "network").context("the recorded pod has no network namespace")?;
        let netns = netns.rsplit('/').next().unwrap_or_default();
        let pod =
            netns.strip_prefix("hull-").with_context(|| format!("{netns}: expected hull-ID"))?.to_owned();
        let exec_id =
            exec.argv.iter().find_map(|word| word.split('/').find(|part| part.starts_with("exec-")));
        Ok(Self {
            exec_id: exec_id.unwrap_or("exec-none").to_owned(),
            conmon: conmon.clone(),
            start: take("start")?,
            kill,
            delete: take("delete")?,
            add,
            del,
            exec,
            config,
            besides,
            container,
            pod,
            home: String::new(),
            recorders: String::new(),
            programs: Vec::new(),
        })
    }

    /// Makes recorded words those of a fresh pod whose files are below `dir`.
    pub(crate) fn swap(&self, dir: &Path, ids: &Ids) -> Result<Swap> {
        let mut pairs = vec![
            // Where plugins look for plugins: the recorders come first, and go.
            (format!("{}/cni:", self.recorders), String::new()),
        ];
        for (name, path) in &self.programs {
            pairs.push((format!("{}/{name}", self.recorders), path.clone()));
        }
        pairs.extend([
            (self.home.clone(), text(dir)?),
            (self.container.clone(), ids.container.clone()),
            (self.pod.clone(), ids.pod.clone()),
            (self.exec_id.clone(), ids.exec.clone()),
        ]);
        Ok(Swap(pairs))
    }

    /// The program that a recorder stands for.
    pub(crate) fn program(&self, call: &Call) -> Result<&str> {
        let found = self.programs.iter().find(|(name, _)| *name == call.program);
        found.map(|(_, path)| path.as_str()).with_context(|| format!("no program {}", call.program))
    }
}

impl Swap {
    pub(crate) fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }
}

impl Call {
    /// `ADD`, `start`, `conmon`.
    fn verb(&self) -> String {
        if self.program == "conmon" {
            return self.program.clone();
        }
        if let Some((_, command)) = self.env.iter().find(|(key, _)| key == "CNI_COMMAND") {
            return command.clone();
        }
        self.argv.iter().find(|word| !word.starts_with('-')).cloned().unwrap_or_default()
    }
}

/// The path of a namespace that the container joins.
pub(crate) fn namespace<'a>(config: &'a Value, kind: &str) -> Option<&'a str> {
    let namespaces = config.pointer("/linux/namespaces")?.as_array()?;
    namespaces.iter().find(|namespace| namespace["type"] == kind)?["path"].as_str()
}

/// In the order in which they were made.
fn read_calls(dir: &Path) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let argv = path.join("argv");
        let time = argv.metadata().and_then(|metadata| metadata.modified());
        calls.push((time.with_context(|| format!("look at {}", argv.display()))?, read_call(&path)?));
    }
    calls.sort_by_key(|(time, _)| *time);
    Ok(calls.into_iter().map(|(_, call)| call).collect())
}

fn read_call(dir: &Path) -> Result<Call> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (program, _) = name.rsplit_once('-').with_context(|| format!("{name}: expected NAME-PID"))?;
    let mut call = Call { program: program.to_owned(), ..Default::default() };
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        match path.file_name().unwrap_or_default().to_string_lossy().as_ref() {
            "argv" => call.argv = words(&text),
            "env" => call.env = words(&text).iter().filter_map(|word| pair(word)).collect(),
            "stdin" => call.stdin = text,
            "cwd" | "fds" => {}
            file => drop(call.files.insert(file.to_owned(), text)),
        }
    }
    Ok(call)
}

fn words(text: &str) -> Vec<String> {
    text.split_terminator('\0').map(str::to_owned).collect()
}

fn pair(word: &str) -> Option<(String, String)> {
    word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn text(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!("{} is not UTF-8", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(program: &str, argv: &str, env: &str) -> Call {
        Call {
            program: program.to_owned(),
            argv: argv.split_whitespace().map(str::to_owned).collect(),
            env: env.split_whitespace().filter_map(pair).collect(),
            ..Default::default()
        }
    }

    fn calls() -> Vec<Call> {
        let mut conmon = call("conmon", "--cid=c1 --runtime=/d/rec/runc --bundle=/d/r/c1", "");
        let config = r#"{"linux": {"namespaces": [{"type": "network", "path": "/d/r/netns/hull-p1"}]}}"#;
        conmon.files.insert("config.json".into(), config.into());
        vec![
            call("bridge", "", "CNI_COMMAND=ADD"),
            call("portmap", "", "CNI_COMMAND=ADD"),
            conmon,
            call("runc", "--root=/d/r/s create c1", ""),
            call("runc", "--root=/d/r/s start c1", ""),
            call("runc", "--root=/d/r/s exec --process /d/r/exec/exec-12/process.json c1", ""),
            call("runc", "--root=/d/r/s kill c1 15", ""),
            call("runc", "--root=/d/r/s state c1", ""),
            call("runc", "--root=/d/r/s delete c1", ""),
            call("portmap", "", "CNI_COMMAND=DEL"),
            call("bridge", "", "CNI_COMMAND=DEL"),
        ]
    }

    #[test]
    fn calls_are_told_apart_and_what_is_left_is_named() {
        let plan = Plan::sort(calls()).unwrap();
        let names = |calls: &[Call]| calls.iter().map(|call| call.program.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&plan.add), names(&plan.del)),
            (vec!["bridge".into(), "portmap".into()], vec!["portmap".into(), "bridge".into()])
        );
        assert_eq!(plan.besides, ["runc state"]);
        assert_eq!(
            (plan.pod.as_str(), plan.container.as_str(), plan.exec_id.as_str()),
            ("p1", "c1", "exec-12")
        );
        let mut without = calls();
        without.remove(4);
        assert!(Plan::sort(without).unwrap_err().to_string().contains("did not call start"));
    }

    #[test]
    fn a_recorded_word_becomes_a_fresh_pods() {
        let mut plan = Plan::sort(calls()).unwrap();
        plan.home = "/d/r".into();
        plan.recorders = "/d/rec".into();
        plan.programs = vec![("runc".into(), "/usr/sbin/runc".into())];
        let ids = Ids::of(7);
        let swap = plan.swap(Path::new("/d/b"), &ids).unwrap();
        assert_eq!(swap.apply("--runtime=/d/rec/runc"), "--runtime=/usr/sbin/runc");
        assert_eq!(swap.apply("/d/rec/cni:/usr/lib/cni"), "/usr/lib/cni");
        assert_eq!(swap.apply("/d/r/netns/hull-p1"), format!("/d/b/netns/hull-{}", ids.pod));
        assert_eq!(swap.apply("pids:exec-12 c1"), format!("pids:{} {}", ids.exec, ids.container));
        assert_eq!(plan.program(&plan.start).unwrap(), "/usr/sbin/runc");
    }

    #[test]
    fn ids_have_the_usual_form() {
        let (one, other) = (Ids::of(1), Ids::of(2));
        assert!(one.container.len() == 64 && one.container.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(one.container != one.pod && one.pod != other.pod);
    }
}
