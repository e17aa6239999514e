// SPDX-License-Identifier: Apache-2.0
//! `hull check` and `hull wipe`: through the daemon that runs, else on its directories, under its locks.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hull_admin_api::v1::{CheckRequest, Finding, Outcome};
use hull_server::{Offline, Report};

use super::client;
use super::{say, say_json};
use crate::arguments::Where;

/// Nothing was found, or all of it was repaired.
const CLEAN: ExitCode = ExitCode::SUCCESS;

/// Prints what no record knows; the exit code is 1 when something is left.
pub(crate) fn check(place: &Where, repair: bool, json: bool) -> Result<ExitCode> {
    let reports = client::block_on(async {
        let socket = client::socket(place)?;
        match client::connect(&socket).await {
            Some(mut daemon) => {
                let answer = daemon.check(CheckRequest { repair }).await;
                let findings = answer.map_err(|status| client::said(&status))?.into_inner().findings;
                Ok(findings.into_iter().map(report).collect())
            }
            None if place.socket.is_some() => bail!("no daemon answers on {}", socket.display()),
            None => {
                let offline = Offline::open(client::config(place)?).await?;
                let reports = offline.check(repair).await;
                offline.close().await;
                Ok(reports?)
            }
        }
    })?;
    let left = reports.iter().filter(|report| !report.repaired).count();
    if json {
        say_json(&reports.iter().map(document).collect())?;
    } else {
        for report in &reports {
            say(&line(report, repair))?;
        }
        say(&summary(reports.len(), left, repair))?;
    }
    Ok(if left == 0 { CLEAN } else { ExitCode::FAILURE })
}

/// Takes everything away that is this Hull's.
pub(crate) fn wipe(place: &Where, force: bool) -> Result<ExitCode> {
    let config = client::config(place)?;
    let (root, run_root) = (config.root.clone(), config.run_root.clone());
    let kept: Vec<Report> = client::block_on(async {
        hull_process::reaper::install().context("become the reaper of orphaned processes")?;
        if client::connect(&config.listen).await.is_some() {
            bail!("a daemon answers on {}: stop it first", config.listen.display());
        }
        Ok(Offline::open(config).await?.wipe(force).await?)
    })?;
    for report in &kept {
        say(&line(report, true))?;
    }
    if kept.is_empty() {
        say(&format!("nothing of Hull is left in {} and {}", root.display(), run_root.display()))?;
        return Ok(CLEAN);
    }
    say(&format!("{} could not be taken away; directories and records are kept", kept.len()))?;
    Ok(ExitCode::FAILURE)
}

fn summary(found: usize, left: usize, repair: bool) -> String {
    match (found, left, repair) {
        (0, _, _) => "nothing is left over".to_owned(),
        (found, _, false) => format!("{found} left over; `hull check --repair` takes away what it can"),
        (found, 0, true) => format!("{found} left over, all taken away"),
        (found, left, true) => format!("{found} left over, {left} of them kept"),
    }
}

fn line(report: &Report, repair: bool) -> String {
    let end = match (report.repaired, repair) {
        (true, _) => "taken away".to_owned(),
        (false, true) => format!("kept: {}", report.kept),
        (false, false) => format!("repair: {}", report.repair),
    };
    format!("{} {}: {}; {end}", report.kind, report.what, report.reason)
}

fn report(finding: Finding) -> Report {
    Report {
        repaired: finding.outcome() == Outcome::Repaired,
        kind: finding.kind,
        what: finding.what,
        id: finding.id,
        reason: finding.reason,
        repair: finding.repair,
        kept: finding.kept,
    }
}

fn document(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "kind": report.kind,
        "what": report.what,
        "id": report.id,
        "reason": report.reason,
        "repair": report.repair,
        "repaired": report.repaired,
        "kept": report.kept,
    })
}
