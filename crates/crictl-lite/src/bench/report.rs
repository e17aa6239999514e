// SPDX-License-Identifier: Apache-2.0
//! The results as JSON (its form is in the documentation of [`super`]) and as tables.

use serde_json::{Value, json};

use super::args::Bench;
use super::memory::Sample;
use super::pod::{Shared, Target};
use super::results::{Op, Results};
use super::summary::millis;
use crate::output::table::Table;

/// Changes when a member changes its meaning or goes; not when one is added.
const VERSION: u32 = 1;

/// Everything.
pub(crate) fn value(args: &Bench, shared: &Shared<'_>, targets: &[Target], interrupted: bool) -> Value {
    let first = targets.first();
    json!({
        "version": VERSION,
        "run": shared.recipe.run,
        "interrupted": interrupted,
        "options": {
            "pods": args.pods,
            "parallel": args.parallel,
            "warmup": args.warmup,
            "image": args.image,
            "runtimeHandler": args.runtime,
            "command": shared.recipe.command,
            "exec": shared.recipe.exec,
            "restMs": args.rest,
            "stopTimeout": args.stop_timeout,
            "hostNetwork": args.host_network,
            "reads": args.reads,
        },
        "endpoints": targets.iter().map(|target| endpoint(target, first)).collect::<Vec<_>>(),
    })
}

fn endpoint(target: &Target, first: Option<&Target>) -> Value {
    let results = target.results.borrow();
    let operations = Op::ALL
        .into_iter()
        .filter(|op| happened(&results, *op))
        .map(|op| operation(op, &results, ratio(target, first, op)));
    let failures = results.failures.iter().map(
        |failure| json!({ "operation": failure.op.name(), "pod": failure.pod, "message": failure.message }),
    );
    json!({
        "name": target.name,
        "socket": target.socket,
        "runtimeName": target.version.0,
        "runtimeVersion": target.version.1,
        "wallMs": rounded(millis(results.wall)),
        "pods": { "good": results.pods_good, "failed": results.pods_bad },
        "operations": operations.collect::<Vec<_>>(),
        "errors": results.all_errors(),
        "failures": failures.collect::<Vec<_>>(),
        "memory": memory(target, &results),
    })
}

fn operation(op: Op, results: &Results, ratio: Option<f64>) -> Value {
    let samples: Vec<f64> = results.samples(op).iter().map(|time| rounded(millis(*time))).collect();
    let figure = |of: fn(&super::summary::Summary) -> std::time::Duration| {
        results.summary(op).map(|summary| rounded(millis(of(&summary))))
    };
    json!({
        "name": op.name(),
        "count": samples.len(),
        "errors": results.errors(op),
        "minMs": figure(|s| s.min),
        "meanMs": figure(|s| s.mean),
        "medianMs": figure(|s| s.median),
        "p90Ms": figure(|s| s.p90),
        "p99Ms": figure(|s| s.p99),
        "maxMs": figure(|s| s.max),
        "ratio": ratio.map(rounded),
        "samplesMs": samples,
    })
}

fn memory(target: &Target, results: &Results) -> Value {
    let kib = |of: fn(&Sample) -> u64| {
        json!({
            "before": results.before.as_ref().map(of),
            "peak": results.peak.as_ref().map(of),
            "after": results.after.as_ref().map(of),
        })
    };
    let peak = results.peak.filter(|peak| peak.pods > 0);
    json!({
        "pid": target.pid,
        "problem": results.memory_problem,
        "daemonKib": kib(|sample| sample.daemon),
        "helpersKib": kib(|sample| sample.helpers),
        "podsAtPeak": results.peak.map(|peak| peak.pods),
        "helpersKibPerPod": peak.map(|peak| rounded(peak.helpers as f64 / peak.pods as f64)),
    })
}

fn happened(results: &Results, op: Op) -> bool {
    !results.samples(op).is_empty() || results.errors(op) > 0
}

/// The median in terms of the first endpoint's.
fn ratio(target: &Target, first: Option<&Target>, op: Op) -> Option<f64> {
    let first = first?.results.borrow().summary(op)?.median.as_secs_f64();
    let own = target.results.borrow().summary(op)?.median.as_secs_f64();
    (first > 0.0).then(|| own / first)
}

/// To three decimals: no clock here is better, and files stay readable.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Tables: times, then a line for each endpoint, then what failed.
pub(crate) fn tables(targets: &[Target]) -> String {
    let mut text = times(targets);
    text.push('\n');
    text.push_str(&endpoints(targets));
    for target in targets {
        let results = target.results.borrow();
        let more = results.all_errors().saturating_sub(results.failures.len() as u64);
        for failure in &results.failures {
            text.push_str(&format!(
                "\n{} {} {}: {}",
                target.name,
                failure.pod,
                failure.op.name(),
                hull_escape::escape(&failure.message)
            ));
        }
        match (results.failures.len(), more) {
            (0, _) => {}
            (_, 0) => text.push('\n'),
            (_, more) => text.push_str(&format!("\n{}: {more} more\n", target.name)),
        }
    }
    text
}

fn times(targets: &[Target]) -> String {
    let mut table = Table::new([
        "OPERATION",
        "ENDPOINT",
        "COUNT",
        "ERRORS",
        "MEDIAN ms",
        "P90 ms",
        "P99 ms",
        "MAX ms",
        "RATIO",
    ]);
    let first = targets.first();
    for op in Op::ALL {
        for target in targets {
            let results = target.results.borrow();
            if !happened(&results, op) {
                continue;
            }
            let summary = results.summary(op);
            let cell = |of: fn(&super::summary::Summary) -> std::time::Duration| {
                summary.map_or_else(|| "-".to_owned(), |summary| format!("{:.1}", millis(of(&summary))))
            };
            table.row([
                op.name().to_owned(),
                target.name.clone(),
                results.samples(op).len().to_string(),
                results.errors(op).to_string(),
                cell(|s| s.median),
                cell(|s| s.p90),
                cell(|s| s.p99),
                cell(|s| s.max),
                ratio(target, first, op).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            ]);
        }
    }
    table.render()
}

fn endpoints(targets: &[Target]) -> String {
    let mut table = Table::new([
        "ENDPOINT",
        "RUNTIME",
        "PODS",
        "WALL s",
        "DAEMON PSS MiB: BEFORE",
        "PEAK",
        "AFTER",
        "HELPERS PER POD",
    ]);
    for target in targets {
        let results = target.results.borrow();
        let mib = |sample: Option<Sample>| {
            sample.map_or_else(|| "-".to_owned(), |sample| format!("{:.2}", sample.daemon as f64 / 1024.0))
        };
        let helpers = results.peak.filter(|peak| peak.pods > 0);
        table.row([
            target.name.clone(),
            format!("{} {}", target.version.0, target.version.1),
            format!("{} of {}", results.pods_good, results.pods_good + results.pods_bad),
            format!("{:.2}", results.wall.as_secs_f64()),
            mib(results.before),
            mib(results.peak),
            mib(results.after),
            helpers.map_or_else(
                || "-".to_owned(),
                |peak| format!("{:.2}", peak.helpers as f64 / 1024.0 / peak.pods as f64),
            ),
        ]);
    }
    let mut text = table.render();
    for target in targets {
        if let Some(problem) = &target.results.borrow().memory_problem {
            text.push_str(&format!("{}: no figures for memory: {problem}\n", target.name));
        }
    }
    text
}
