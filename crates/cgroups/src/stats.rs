// SPDX-License-Identifier: Apache-2.0
//! What a cgroup uses.
//!
//! | what               | version 1                            | version 2                       |
//! |--------------------|--------------------------------------|---------------------------------|
//! | `cpu_usage_ns`     | `cpuacct.usage`                      | `cpu.stat` usage_usec × 1000    |
//! | `memory_usage`     | `memory.usage_in_bytes`              | `memory.current`                |
//! | working set        | usage − `total_inactive_file`        | usage − `inactive_file`         |
//! | rss                | `total_rss`                          | `anon`                          |
//! | page faults        | `total_pgfault`, `total_pgmajfault`  | `pgfault`, `pgmajfault`         |
//! | limit              | `memory.limit_in_bytes`              | `memory.max`                    |
//! | swap               | `memory.memsw.usage_in_bytes` − usage| `memory.swap.current`           |
//! | pids               | `pids.current`                       | `pids.current`                  |

use std::io;
use std::path::{Path, PathBuf};

use crate::file::{self, io_error};
use crate::layout::Layout;
use crate::{Error, Mode, Result, Stats, path, walk};

/// Version 1 writes "no limit" as the largest number of whole pages: 2^63 less one page, whatever its size
/// (the largest is 64 KiB).
const V1_UNLIMITED: u64 = i64::MAX as u64 - (64 << 10);

/// The files of one cgroup, over the hierarchies that have it.
struct Files<'a> {
    layout: &'a Layout,
    below: PathBuf,
}

pub(crate) fn stats(layout: &Layout, path: &Path) -> Result<Stats> {
    let files = Files::of(layout, path)?;
    let stats = match layout.mode {
        Mode::V2 => v2(&files)?,
        Mode::V1 | Mode::Hybrid => v1(&files)?,
    };
    // It may have vanished between two reads: zeros must not pass for its numbers.
    Files::of(layout, path)?;
    Ok(stats)
}

pub(crate) fn oom_kills(layout: &Layout, path: &Path) -> Result<Option<u64>> {
    let files = Files::of(layout, path)?;
    let name = if layout.mode == Mode::V2 { "memory.events" } else { "memory.oom_control" };
    files.word("memory", name, "oom_kill")
}

fn v1(files: &Files<'_>) -> Result<Stats> {
    let memory = |key| files.word("memory", "memory.stat", key);
    let usage = files.number("memory", "memory.usage_in_bytes")?.unwrap_or(0);
    let with_swap = files.number("memory", "memory.memsw.usage_in_bytes")?;
    let limit = files.number("memory", "memory.limit_in_bytes")?;
    Ok(Stats {
        cpu_usage_ns: files.number("cpuacct", "cpuacct.usage")?.unwrap_or(0),
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(memory("total_inactive_file")?.unwrap_or(0)),
        memory_rss: memory("total_rss")?.unwrap_or(0),
        memory_limit: limit.filter(|limit| *limit < V1_UNLIMITED),
        page_faults: memory("total_pgfault")?.unwrap_or(0),
        major_page_faults: memory("total_pgmajfault")?.unwrap_or(0),
        swap_usage: with_swap.map(|both| both.saturating_sub(usage)),
        pids: files.number("pids", "pids.current")?,
    })
}

fn v2(files: &Files<'_>) -> Result<Stats> {
    let memory = |key| files.word("memory", "memory.stat", key);
    let usage = files.number("memory", "memory.current")?.unwrap_or(0);
    Ok(Stats {
        // Part of every cgroup, also where the cpu controller is not handed down.
        cpu_usage_ns: files.word("unified", "cpu.stat", "usage_usec")?.unwrap_or(0).saturating_mul(1000),
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(memory("inactive_file")?.unwrap_or(0)),
        memory_rss: memory("anon")?.unwrap_or(0),
        memory_limit: files.number("memory", "memory.max")?,
        page_faults: memory("pgfault")?.unwrap_or(0),
        major_page_faults: memory("pgmajfault")?.unwrap_or(0),
        swap_usage: files.number("memory", "memory.swap.current")?,
        pids: files.number("pids", "pids.current")?,
    })
}

// === impl Files ===

impl<'a> Files<'a> {
    fn of(layout: &'a Layout, path: &Path) -> Result<Self> {
        let below = path::relative(path)?;
        // In hybrid mode a cgroup of version 2 alone has no numbers.
        let exists = match layout.mode {
            Mode::V2 => !walk::dirs(layout, path)?.is_empty(),
            Mode::V1 | Mode::Hybrid => layout.v1.iter().any(|tree| tree.root.join(&below).is_dir()),
        };
        if exists { Ok(Self { layout, below }) } else { Err(Error::NotFound { path: path.to_owned() }) }
    }

    fn path(&self, controller: &str, name: &str) -> Option<PathBuf> {
        Some(self.layout.root_of(controller)?.join(&self.below).join(name))
    }

    fn text(&self, controller: &str, name: &str) -> Result<Option<(PathBuf, String)>> {
        let Some(path) = self.path(controller, name) else { return Ok(None) };
        Ok(file::read(&path)?.map(|text| (path, text)))
    }

    /// The number that is all of a file; `None` for `max` and where there is no such file.
    fn number(&self, controller: &str, name: &str) -> Result<Option<u64>> {
        match self.text(controller, name)? {
            Some((_, text)) if text.trim() == "max" => Ok(None),
            Some((path, text)) => parse(&path, text.trim()).map(Some),
            None => Ok(None),
        }
    }

    /// The number after a word at the start of a line.
    fn word(&self, controller: &str, name: &str, key: &str) -> Result<Option<u64>> {
        let Some((path, text)) = self.text(controller, name)? else { return Ok(None) };
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.map(|value| parse(&path, value.trim())).transpose()
    }
}

/// Version 1 counters can show below zero for a moment.
fn parse(path: &Path, text: &str) -> Result<u64> {
    if text.strip_prefix('-').is_some_and(|rest| rest.parse::<u64>().is_ok()) {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        let problem = format!("not a number: {text:?}");
        io_error("cannot read", path, io::Error::new(io::ErrorKind::InvalidData, problem))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Tree;

    const C: &str = "/pod/c";

    fn v1_tree(tree: Tree) -> Tree {
        tree.put("cpuacct/pod/c/cpuacct.usage", "123456789\n");
        tree.put("memory/pod/c/memory.usage_in_bytes", "10000\n");
        tree.put("memory/pod/c/memory.memsw.usage_in_bytes", "10500\n");
        tree.put("memory/pod/c/memory.limit_in_bytes", "65536\n");
        let stat = "rss 1\ninactive_file 1\npgfault 1\ntotal_rss_huge 9\ntotal_rss 4000\ntotal_pgfault 70\n\
                    total_pgmajfault 3\ntotal_inactive_file 2500\n";
        tree.put("memory/pod/c/memory.stat", stat);
        tree.put("memory/pod/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        tree.put("pids/pod/c/pids.current", "5\n");
        tree
    }

    const V1_STATS: Stats = Stats {
        cpu_usage_ns: 123_456_789,
        memory_usage: 10_000,
        memory_working_set: 7_500,
        memory_rss: 4_000,
        memory_limit: Some(65_536),
        page_faults: 70,
        major_page_faults: 3,
        swap_usage: Some(500),
        pids: Some(5),
    };

    #[test]
    fn version_1_and_hybrid_read_the_hierarchical_numbers() {
        for tree in [v1_tree(Tree::v1()), v1_tree(Tree::hybrid())] {
            assert_eq!(tree.cgroups().stats(Path::new(C)).unwrap(), V1_STATS);
            assert_eq!(tree.cgroups().oom_kills(Path::new(C)).unwrap(), Some(2));
        }
    }

    #[test]
    fn version_1_oddities() {
        let tree = v1_tree(Tree::v1());
        let stats = || tree.cgroups().stats(Path::new(C)).unwrap();
        for unlimited in ["9223372036854771712\n", "9223372036854710272\n", "18446744073709551615\n"] {
            tree.put("memory/pod/c/memory.limit_in_bytes", unlimited);
            assert_eq!(stats().memory_limit, None, "{unlimited}");
        }
        // Read one after the other, so they need not fit together.
        tree.put("memory/pod/c/memory.memsw.usage_in_bytes", "9000\n");
        tree.put("memory/pod/c/memory.stat", "total_inactive_file 99999\ntotal_rss -4096\n");
        assert_eq!((stats().swap_usage, stats().memory_working_set, stats().memory_rss), (Some(0), 0, 0));
        std::fs::remove_file(tree.root().join("memory/pod/c/memory.memsw.usage_in_bytes")).unwrap();
        assert_eq!(stats().swap_usage, None, "swap is not accounted");
    }

    #[test]
    fn version_2() {
        let tree = Tree::v2();
        tree.put("pod/c/cpu.stat", "usage_usec 123456\nuser_usec 1\nsystem_usec 2\n");
        let stats = || tree.cgroups().stats(Path::new(C)).unwrap();
        let bare = Stats { cpu_usage_ns: 123_456_000, ..Stats::default() };
        assert_eq!(stats(), bare, "no controller is handed down");
        assert_eq!(tree.cgroups().oom_kills(Path::new(C)).unwrap(), None);

        tree.put("pod/c/memory.current", "10000\n");
        tree.put("pod/c/memory.max", "max\n");
        tree.put("pod/c/memory.swap.current", "42\n");
        let stat = "anon 4000\nfile 5\ninactive_anon 1\ninactive_file 2500\npgfault 70\npgmajfault 3\n";
        tree.put("pod/c/memory.stat", stat);
        tree.put("pod/c/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n");
        tree.put("pod/c/pids.current", "5\n");
        let all = Stats { cpu_usage_ns: 123_456_000, memory_limit: None, swap_usage: Some(42), ..V1_STATS };
        assert_eq!(stats(), all);
        tree.put("pod/c/memory.max", "65536\n");
        assert_eq!(stats().memory_limit, Some(65_536));
        assert_eq!(tree.cgroups().oom_kills(Path::new(C)).unwrap(), Some(2));
    }

    #[test]
    fn a_missing_cgroup_is_not_found_and_a_missing_controller_is_zero() {
        for tree in [Tree::v1(), Tree::v2(), Tree::hybrid()] {
            let error = tree.cgroups().stats(Path::new("/none")).unwrap_err();
            assert!(matches!(&error, Error::NotFound { path } if path == Path::new("/none")), "{error}");
        }
        let tree = Tree::v1();
        tree.put("pids/only/pids.current", "1\n");
        let stats = tree.cgroups().stats(Path::new("/only")).unwrap();
        assert_eq!(stats, Stats { pids: Some(1), ..Stats::default() });
    }

    #[test]
    fn nonsense_names_the_file() {
        let tree = v1_tree(Tree::v1());
        tree.put("pids/pod/c/pids.current", "many\n");
        let error = tree.cgroups().stats(Path::new(C)).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("pids/pod/c/pids.current")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_is_read_or_refused_without_panic(stat in "[a-z_ 0-9\n-]{0,80}", number in "[ 0-9a-z\n-]{0,24}") {
            let tree = v1_tree(Tree::v1());
            tree.put("memory/pod/c/memory.stat", &stat);
            tree.put("memory/pod/c/memory.usage_in_bytes", &number);
            let _ = tree.cgroups().stats(Path::new(C));
        }

        #[test]
        fn numbers_round_trip(cpu: u64, usage: u64, inactive: u64) {
            let tree = v1_tree(Tree::v1());
            tree.put("cpuacct/pod/c/cpuacct.usage", &format!("{cpu}\n"));
            tree.put("memory/pod/c/memory.usage_in_bytes", &format!("{usage}\n"));
            tree.put("memory/pod/c/memory.stat", &format!("total_inactive_file {inactive}\n"));
            let stats = tree.cgroups().stats(Path::new(C)).unwrap();
            prop_assert_eq!((stats.cpu_usage_ns, stats.memory_usage), (cpu, usage));
            prop_assert_eq!(stats.memory_working_set, usage.saturating_sub(inactive));
        }
    }
}
