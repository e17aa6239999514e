// SPDX-License-Identifier: Apache-2.0
//! The figures as tables, as JSON, and held against their targets.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::daemon::Measured;
use super::figures::{Figures, STEPS, Times, target};
use super::options::{Network, Options};
use super::series::{self, COUNTED, Sample};
use super::streams::Streams;
use crate::run;

/// The most that a storm may take, in terms of the bare parts' CPU time spread over the cores.
const STORM: f64 = 3.0;
/// The most that the daemon may hold after a soak, and grow between its first part and its end, in KiB.
const SOAK_SIZE: u64 = 15 * 1024;
const SOAK_GROWTH: u64 = 2 * 1024;
/// The most that a status or list call may take while pods come and go, in milliseconds.
const READ_MEDIAN: f64 = 5.0;
const READ_P99: f64 = 50.0;

/// All figures of one runtime on one network.
#[derive(Debug)]
pub(crate) struct Combination {
    runtime: String,
    network: &'static str,
    has_plugins: bool,
    besides: Vec<String>,
    hull: Times,
    pub(crate) bare: Times,
    errors: u64,
    failures: Vec<String>,
    pub(crate) storm: Option<Storm>,
    pub(crate) soak: Option<Soak>,
    pub(crate) reads: Option<Reads>,
    pub(crate) streams: Option<Streams>,
}

/// Status and list calls while pods come and go.
#[derive(Debug)]
pub(crate) struct Reads {
    pub(crate) pods: u32,
    pub(crate) parallel: u32,
    pub(crate) hull: Measured,
}

/// Many pods at once.
#[derive(Debug)]
pub(crate) struct Storm {
    pub(crate) pods: u32,
    pub(crate) parallel: u32,
    pub(crate) hull: Measured,
    pub(crate) bare: Times,
    pub(crate) bare_wall: Duration,
    pub(crate) bare_cpu: Duration,
    pub(crate) cores: usize,
}

/// Many pods in all.
#[derive(Debug, Default)]
pub(crate) struct Soak {
    pub(crate) cycles: u32,
    pub(crate) took: Duration,
    pub(crate) errors: u64,
    /// The first failures, in words.
    pub(crate) failures: Vec<String>,
    pub(crate) early_kib: u64,
    pub(crate) late_kib: u64,
    pub(crate) peak_kib: Option<u64>,
    pub(crate) helper_kib: Option<f64>,
    /// What there was after each hundred pods.
    pub(crate) series: Vec<Sample>,
}

/// One line of the table.
struct Line {
    name: &'static str,
    hull: Figures,
    bare: Figures,
    above: f64,
    target: f64,
}

impl Combination {
    pub(crate) fn new(runtime: &str, network: Network, has_plugins: bool, besides: Vec<String>) -> Self {
        Self {
            runtime: runtime.to_owned(),
            network: network.name(),
            has_plugins,
            besides,
            hull: Times::default(),
            bare: Times::default(),
            errors: 0,
            failures: Vec::new(),
            storm: None,
            soak: None,
            reads: None,
            streams: None,
        }
    }

    /// Takes the figures of pods that Hull ran.
    pub(crate) fn take(&mut self, measured: Measured) {
        self.hull.extend(&measured.times);
        self.errors += measured.errors;
        self.failures.extend(measured.failures);
    }

    pub(crate) fn errors(&self) -> u64 {
        let storm = self.storm.as_ref().map_or(0, |storm| storm.hull.errors);
        let reads = self.reads.as_ref().map_or(0, |reads| reads.hull.errors);
        self.errors + storm + reads + self.soak.as_ref().map_or(0, |soak| soak.errors)
    }

    fn lines(&self) -> Vec<Line> {
        lines(&self.hull, &self.bare, self.has_plugins)
    }

    /// Runtime and network.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.runtime, self.network)
    }

    /// A line for each target that was missed.
    pub(crate) fn missed(&self) -> Vec<String> {
        let label = self.label();
        let mut missed: Vec<String> = self
            .lines()
            .iter()
            .filter(|line| line.above > line.target)
            .map(|line| {
                format!("{label}: {} {:.1} ms above, target {:.0}", line.name, line.above, line.target)
            })
            .collect();
        if let Some(storm) = &self.storm
            && storm.times_cpu() > STORM
        {
            missed.push(format!(
                "{label}: storm {:.2} times the bare CPU time, target {STORM:.0}",
                storm.times_cpu()
            ));
        }
        if let Some(streams) = &self.streams {
            missed.extend(streams.missed().map(|line| format!("{label}: {line}")));
        }
        if let Some(reads) = &self.reads {
            let figures = Figures::of(&reads.hull.reads);
            for (name, value, target) in
                [("median", figures.median, READ_MEDIAN), ("p99", figures.p99, READ_P99)]
            {
                if value > target {
                    missed.push(format!("{label}: reads {name} {value:.1} ms, target {target:.0}"));
                }
            }
        }
        if let Some(soak) = &self.soak {
            if soak.late_kib > SOAK_SIZE {
                missed.push(format!("{label}: {} after the soak, target 15 MiB", mib(soak.late_kib)));
            }
            if soak.late_kib.saturating_sub(soak.early_kib) > SOAK_GROWTH {
                let (early, late) = (mib(soak.early_kib), mib(soak.late_kib));
                missed.push(format!("{label}: the soak grew from {early} to {late}, target 2 MiB"));
            }
            missed.extend(series::grown(&soak.series).into_iter().map(|line| format!("{label}: {line}")));
        }
        missed
    }
}

impl Storm {
    /// Wall time in terms of the time that the cores need at least for the bare parts.
    fn times_cpu(&self) -> f64 {
        let least = self.bare_cpu.as_secs_f64() / self.cores as f64;
        if least > 0.0 { self.hull.wall_ms / 1000.0 / least } else { 0.0 }
    }
}

fn lines(hull: &Times, bare: &Times, has_plugins: bool) -> Vec<Line> {
    let line = |(step, (name, _)): (usize, &(&'static str, &str))| {
        let (hull, bare) = (hull.figures(step), bare.figures(step));
        let above = hull.median - bare.median;
        (hull.count > 0).then_some(Line { name, hull, bare, above, target: target(step, has_plugins) })
    };
    STEPS.iter().enumerate().filter_map(line).collect()
}

/// The table of pods one by one.
pub(crate) fn print_steps(combination: &Combination) {
    println!("{:<17}{:>24}{:>24}", "", "Hull ms", "bare parts ms");
    println!(
        "{:<17}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>9}{:>8}",
        "operation", "median", "p90", "p99", "median", "p90", "p99", "above", "target"
    );
    for line in combination.lines() {
        let (hull, bare) = (line.hull, line.bare);
        println!(
            "{:<17}{:>8.1}{:>8.1}{:>8.1}{:>8.1}{:>8.1}{:>8.1}{:>9.1}{:>8.0}  {}",
            line.name,
            hull.median,
            hull.p90,
            hull.p99,
            bare.median,
            bare.p90,
            bare.p99,
            line.above,
            line.target,
            if line.above > line.target { "MISSED" } else { "met" }
        );
    }
    if !combination.besides.is_empty() {
        println!("besides the bare parts, Hull called for each pod: {}", combination.besides.join(", "));
    }
    combination.failures.iter().for_each(|failure| println!("failed: {failure}"));
}

pub(crate) fn print_storm(combination: &Combination) {
    let Some(storm) = &combination.storm else { return };
    println!(
        "\n{} pods, {} at once: Hull {:.2} s, {} operations failed; bare parts {:.2} s, {:.2} s of CPU, on {} \
         cores at least {:.2} s; Hull takes {:.2} times that (target {STORM:.0})",
        storm.pods,
        storm.parallel,
        storm.hull.wall_ms / 1000.0,
        storm.hull.errors,
        storm.bare_wall.as_secs_f64(),
        storm.bare_cpu.as_secs_f64(),
        storm.cores,
        storm.bare_cpu.as_secs_f64() / storm.cores as f64,
        storm.times_cpu(),
    );
    for line in lines(&storm.hull.times, &storm.bare, combination.has_plugins) {
        println!(
            "{:<17} Hull {:>8.1} p90 {:>8.1}   bare parts {:>8.1} p90 {:>8.1}",
            line.name, line.hull.median, line.hull.p90, line.bare.median, line.bare.p90
        );
    }
    storm.hull.failures.iter().for_each(|failure| println!("failed: {failure}"));
}

pub(crate) fn print_reads(combination: &Combination) {
    let Some(reads) = &combination.reads else { return };
    let figures = Figures::of(&reads.hull.reads);
    println!(
        "\n{} status and list calls while {} pods came and went, {} at once, {} operations failed: median {:.1} ms \
         (target {READ_MEDIAN:.0}), p90 {:.1}, p99 {:.1} (target {READ_P99:.0}), most {:.1}",
        figures.count,
        reads.pods,
        reads.parallel,
        reads.hull.errors,
        figures.median,
        figures.p90,
        figures.p99,
        reads.hull.reads.iter().copied().fold(0.0, f64::max),
    );
    reads.hull.failures.iter().for_each(|failure| println!("failed: {failure}"));
}

pub(crate) fn print_soak(combination: &Combination) {
    let Some(soak) = &combination.soak else { return };
    println!(
        "\n{} pods in {:.0} s, {} operations failed; the daemon at rest holds {} after 100 pods, {} at the end \
         (targets: growth 2 MiB, size 15 MiB), {} at most; a monitor {}",
        soak.cycles,
        soak.took.as_secs_f64(),
        soak.errors,
        mib(soak.early_kib),
        mib(soak.late_kib),
        soak.peak_kib.map_or_else(|| "?".to_owned(), mib),
        soak.helper_kib.map_or_else(|| "?".to_owned(), |kib| format!("{:.2} MiB", kib / 1024.0)),
    );
    if let (Some(first), Some(last)) = (soak.series.first(), soak.series.last()) {
        for (name, (was, is)) in COUNTED.iter().zip(first.counts.iter().zip(&last.counts)) {
            println!("  {name:<15} {was:>6} after {} pods, {is:>6} at the end", first.pods);
        }
    }
    soak.failures.iter().take(5).for_each(|failure| println!("failed: {failure}"));
}

fn mib(kib: u64) -> String {
    format!("{:.2} MiB", kib as f64 / 1024.0)
}

/// What was measured on.
pub(crate) fn machine() -> Result<Value> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("read {path}"));
    let info = read("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let version = |name: &str| {
        let said = run::which(name).and_then(|path| run::capture(Command::new(path).arg("--version")).ok());
        said.and_then(|text| text.lines().next().map(str::to_owned))
    };
    Ok(json!({
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "cpu": model,
        "kernel": read("/proc/sys/kernel/osrelease")?.trim(),
        "load": read("/proc/loadavg")?.split(' ').next(),
        "runc": version("runc"),
        "crun": version("crun"),
        "conmon": version("conmon"),
    }))
}

/// The same in a line.
pub(crate) fn machine_text(machine: &Value) -> String {
    let word = |key: &str| machine[key].as_str().unwrap_or("?").to_owned();
    format!(
        "{} cores ({}), Linux {}, load {}, {}, {}, {}",
        machine["cores"],
        word("cpu"),
        word("kernel"),
        word("load"),
        word("runc"),
        word("crun"),
        word("conmon")
    )
}

/// Everything. Members are added, never changed, as long as `version` stays; times are milliseconds.
pub(crate) fn json(options: &Options, machine: &Value, combinations: &[Combination]) -> Value {
    json!({
        "version": 1,
        "machine": machine,
        "pods": options.pods,
        "combinations": combinations.iter().map(combination_json).collect::<Vec<_>>(),
    })
}

fn combination_json(combination: &Combination) -> Value {
    let storm = combination.storm.as_ref().map(|storm| {
        json!({
            "pods": storm.pods,
            "parallel": storm.parallel,
            "errors": storm.hull.errors,
            "wallMs": storm.hull.wall_ms,
            "bareWallMs": storm.bare_wall.as_secs_f64() * 1000.0,
            "bareCpuMs": storm.bare_cpu.as_secs_f64() * 1000.0,
            "cores": storm.cores,
            "timesBareCpu": storm.times_cpu(),
            "target": STORM,
            "operations": lines_json(&lines(&storm.hull.times, &storm.bare, combination.has_plugins), false),
        })
    });
    let soak = combination.soak.as_ref().map(|soak| {
        json!({
            "cycles": soak.cycles,
            "tookMs": soak.took.as_secs_f64() * 1000.0,
            "errors": soak.errors,
            "earlyKib": soak.early_kib,
            "lateKib": soak.late_kib,
            "peakKib": soak.peak_kib,
            "monitorKib": soak.helper_kib,
            "series": series::json(&soak.series),
        })
    });
    let reads = combination.reads.as_ref().map(|reads| {
        let figures = Figures::of(&reads.hull.reads);
        json!({
            "pods": reads.pods,
            "parallel": reads.parallel,
            "errors": reads.hull.errors,
            "count": figures.count,
            "median": figures.median,
            "p90": figures.p90,
            "p99": figures.p99,
            "targetMedian": READ_MEDIAN,
            "targetP99": READ_P99,
        })
    });
    json!({
        "runtime": combination.runtime,
        "network": combination.network,
        "errors": combination.errors(),
        "besides": combination.besides,
        "operations": lines_json(&combination.lines(), true),
        "storm": storm,
        "soak": soak,
        "reads": reads,
        "streams": combination.streams.as_ref().map(Streams::json),
        "missed": combination.missed(),
    })
}

fn lines_json(lines: &[Line], with_target: bool) -> Vec<Value> {
    let figures = |f: Figures| json!({ "count": f.count, "median": f.median, "p90": f.p90, "p99": f.p99 });
    let line = |line: &Line| {
        let mut value = json!({
            "name": line.name,
            "hull": figures(line.hull),
            "bare": figures(line.bare),
            "above": line.above,
        });
        if with_target {
            value["target"] = line.target.into();
            value["met"] = (line.above <= line.target).into();
        }
        value
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combination(hull: f64, bare: f64) -> Combination {
        let mut combination = Combination::new("runc", Network::Cni, true, vec![]);
        for step in 0..STEPS.len() {
            combination.hull.push(step, hull);
            combination.bare.push(step, bare);
        }
        combination
    }

    #[test]
    fn a_target_is_missed_by_what_is_above_it() {
        assert!(combination(14.0, 9.5).missed().is_empty());
        // 12 above: too much for all but CreateContainer.
        let missed = combination(20.0, 8.0).missed();
        assert_eq!(missed.len(), STEPS.len() - 1);
        assert!(missed.contains(&"runc cni: ExecSync 12.0 ms above, target 5".to_owned()), "{missed:?}");
    }

    #[test]
    fn a_soak_is_held_against_size_and_growth() {
        let mut combination = combination(1.0, 1.0);
        let soak =
            |early_kib, late_kib| Soak { cycles: 1000, errors: 2, early_kib, late_kib, ..Soak::default() };
        combination.soak = Some(soak(10_000, 12_000));
        assert!(combination.missed().is_empty());
        combination.soak = Some(soak(10_000, 16_000));
        assert_eq!(combination.missed().len(), 2);
        assert_eq!(combination.errors(), 2);
    }

    #[test]
    fn reads_are_held_against_median_and_p99() {
        let mut combination = combination(1.0, 1.0);
        let reads = |mut reads: Vec<f64>, slow: f64| {
            reads.extend([slow, slow]);
            Reads { pods: 50, parallel: 10, hull: Measured { reads, errors: 1, ..Measured::default() } }
        };
        combination.reads = Some(reads(vec![4.0; 98], 49.0));
        assert_eq!((combination.missed(), combination.errors()), (vec![], 1));
        combination.reads = Some(reads(vec![6.0; 98], 51.0));
        let missed = combination.missed();
        assert_eq!(
            missed,
            ["runc cni: reads median 6.0 ms, target 5", "runc cni: reads p99 51.0 ms, target 50"]
        );
    }

    #[test]
    fn the_document_says_for_each_operation_whether_it_met_its_target() {
        let value = json(&Options::default(), &Value::Null, &[combination(20.0, 8.0)]);
        let operations = value.pointer("/combinations/0/operations").unwrap();
        assert_eq!(operations[1]["name"], "CreateContainer");
        assert_eq!((&operations[1]["met"], &operations[0]["met"]), (&true.into(), &false.into()));
        assert_eq!(operations[0]["above"], 12.0);
    }
}
