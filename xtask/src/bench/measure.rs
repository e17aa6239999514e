// SPDX-License-Identifier: Apache-2.0
//! One combination of runtime and network: recorded, then measured in the modes that were asked for.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::bare::{Bare, Pod};
use super::cgroup::Cgroup;
use super::daemon::{Daemon, Measured};
use super::figures::Times;
use super::files::Places;
use super::options::{Network, Options};
use super::plan::Plan;
use super::report::{Combination, Soak, Storm};
use super::{Programs, report, series, streams};

/// Pods of each side before those that count.
const WARM_UP: u32 = 3;
/// Pods between two counts of what there is; after the first of them begins what later counts and memory are held against.
const SOAK_STEP: u32 = 100;

/// What is to be measured, and where.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) programs: &'a Programs,
    pub(crate) dir: &'a Path,
    pub(crate) home: &'a Path,
    pub(crate) runtime: &'a str,
    pub(crate) network: Network,
}

impl Bench<'_> {
    /// `None`: this daemon has no such network; its words were shown.
    pub(crate) fn run(&self) -> Result<Option<Combination>> {
        let places = Places::new(self.dir, self.runtime)?;
        let Some(plan) = self.record(&places)? else { return Ok(None) };
        let has_plugins = !plan.add.is_empty();
        let mut combination = Combination::new(self.runtime, self.network, has_plugins, plan.besides.clone());
        let cgroup = Cgroup::new(self.dir)?;
        let bare = Bare {
            plan: &plan,
            dir: self.home.join("b"),
            image: self.dir.join("image"),
            cgroup: cgroup.name().to_owned(),
            made: 0.into(),
        };
        let home = self.home.join("h");
        places.configure(&home, self.network, false)?;
        let daemon = self.start(&home)?;
        self.one_by_one(&daemon, &bare, &mut combination)?;
        if self.options.storm {
            combination.storm = Some(self.storm(&daemon, &bare, &cgroup)?);
            report::print_storm(&combination);
        }
        if self.options.reads {
            let (pods, parallel) = (self.options.read_pods, self.options.parallel);
            combination.reads =
                Some(report::Reads { pods, parallel, hull: daemon.pods_and_reads(pods, parallel)? });
            report::print_reads(&combination);
        }
        if self.options.streams {
            let bytes = u64::from(self.options.stream_mib) << 20;
            combination.streams = Some(streams::measure(&daemon, &home, bytes)?);
        }
        daemon.stop()?;
        if self.options.soak {
            combination.soak = Some(self.soak(&places, cgroup.name())?);
            report::print_soak(&combination);
        }
        Ok(Some(combination))
    }

    /// Has a daemon run one pod through the recorders.
    fn record(&self, places: &Places) -> Result<Option<Plan>> {
        let home = self.home.join("r");
        places.configure(&home, self.network, true)?;
        let daemon = match self.start(&home) {
            Ok(daemon) => daemon,
            Err(error) if self.network == Network::Bridge => {
                println!("this daemon has no network backend \"bridge\": {error:#}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // What it called while it started is no pod's expense.
        let calls = Places::calls(&home);
        std::fs::remove_dir_all(&calls).with_context(|| format!("remove {}", calls.display()))?;
        std::fs::create_dir(&calls).with_context(|| format!("make {}", calls.display()))?;
        good(&daemon.pods(1, 1)?, "the recorded pod")?;
        daemon.stop()?;
        let recorders = places.recorders();
        let plugin = |name: &str| places.plugins.join(name);
        let programs = [
            ("conmon", places.conmon.clone()),
            (self.runtime, places.runtime.clone()),
            ("bridge", plugin("bridge")),
            ("portmap", plugin("portmap")),
            ("loopback", plugin("loopback")),
        ];
        Plan::read(&home, &recorders, &programs).map(Some)
    }

    fn start(&self, home: &Path) -> Result<Daemon> {
        let daemon = Daemon::start(&self.programs.hull, &self.programs.client, home)?;
        daemon.import(&self.dir.join("image.tar"))?;
        Ok(daemon)
    }

    /// Turn about; who begins changes from pod to pod. The warm-up is for the storm too.
    fn one_by_one(&self, daemon: &Daemon, bare: &Bare<'_>, combination: &mut Combination) -> Result<()> {
        good(&daemon.pods(WARM_UP, 1)?, "warming up")?;
        for _ in 0..WARM_UP {
            bare.pod()?;
        }
        if !self.options.one_by_one {
            return Ok(());
        }
        for pod in 0..self.options.pods {
            if pod % 2 == 0 {
                combination.take(daemon.pods(1, 1)?);
                combination.bare.extend(&bare.pod()?);
            } else {
                combination.bare.extend(&bare.pod()?);
                combination.take(daemon.pods(1, 1)?);
            }
        }
        report::print_steps(combination);
        Ok(())
    }

    /// First Hull's pods, then as many bare ones, and the CPU time of those: of the parts alone, without what
    /// prepares and removes them.
    fn storm(&self, daemon: &Daemon, bare: &Bare<'_>, cgroup: &Cgroup) -> Result<Storm> {
        let (count, parallel) = (self.options.storm_pods, self.options.parallel);
        let hull = daemon.pods(count, parallel)?;
        let pods = (0..count).map(|_| bare.prepare()).collect::<Result<Vec<_>>>()?;
        cgroup.enter(true)?;
        let (begun, before) = (Instant::now(), cgroup.cpu()?);
        let times = side_by_side(&pods, parallel)?;
        let (bare_wall, bare_cpu) = (begun.elapsed(), cgroup.cpu()?.saturating_sub(before));
        cgroup.enter(false)?;
        pods.iter().try_for_each(Pod::remove)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Storm { pods: count, parallel, hull, bare: times, bare_wall, bare_cpu, cores })
    }

    /// A daemon of its own, so that nothing before has had an influence.
    fn soak(&self, places: &Places, group: &str) -> Result<Soak> {
        let home = self.home.join("s");
        places.configure(&home, self.network, false)?;
        let daemon = self.start(&home)?;
        let begun = Instant::now();
        let mut soak = Soak { cycles: self.options.cycles, ..Soak::default() };
        let mut done = 0;
        while done < soak.cycles {
            let pods = SOAK_STEP.min(soak.cycles - done);
            let measured = daemon.pods_below(group, pods, self.options.parallel)?;
            done += pods;
            soak.errors += measured.errors;
            soak.failures.extend(measured.failures);
            soak.peak_kib = soak.peak_kib.max(measured.daemon_peak);
            soak.helper_kib = measured.helper_per_pod;
            soak.series.push(series::sample(done, daemon.pid(), &home, group)?);
            if done == pods || done == soak.cycles {
                soak.late_kib = daemon.memory_at_rest()?;
            }
            if done == pods {
                soak.early_kib = soak.late_kib;
            }
        }
        daemon.stop()?;
        soak.took = begun.elapsed();
        Ok(soak)
    }
}

/// The parts of all pods, so many at once.
fn side_by_side(pods: &[Pod<'_>], parallel: u32) -> Result<Times> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut times = Times::default();
        while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
            times.extend(&pod.parts()?);
        }
        Ok::<_, anyhow::Error>(times)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..parallel).map(|_| scope.spawn(worker)).collect();
        let mut all = Times::default();
        for worker in workers {
            match worker.join() {
                Ok(times) => all.extend(&times?),
                Err(_) => bail!("a thread with bare pods has panicked"),
            }
        }
        Ok(all)
    })
}

fn good(measured: &Measured, what: &str) -> Result<()> {
    if measured.errors > 0 {
        bail!("{what}: {}", measured.failures.join("; "));
    }
    Ok(())
}
