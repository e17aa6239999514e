// SPDX-License-Identifier: Apache-2.0
//! The commands, a file for each group.

mod completion;
pub(crate) mod containers;
mod exec;
mod images;
mod info;
mod inspect;
mod logs;
pub(crate) mod pods;
mod ps;
mod run;
mod stats;
mod url;

use crate::bench;
use crate::cli::{Cli, Command};
use crate::client::Client;
use crate::error::Failures;

/// Runs the command; gives the exit code of what succeeded.
pub(crate) async fn run(cli: Cli) -> Result<u8, Failures> {
    let client = Client::new(&cli);
    match cli.command {
        Command::Info(args) => info::info(&client, args.output).await?,
        Command::Version(args) => info::version(&client, args.output).await?,
        Command::Images(args) => images::list(&client, &args).await?,
        Command::Inspecti(args) => return inspect::images(&client, &args).await,
        Command::Rmi(args) => return images::remove(&client, args).await,
        Command::Pull(args) => images::pull(&client, args).await?,
        Command::Runp(args) => pods::run(&client, args).await?,
        Command::Pods(args) => pods::list(&client, args).await?,
        Command::Inspectp(args) => return inspect::pods(&client, &args).await,
        Command::Stopp(args) => return pods::stop(&client, args.ids).await,
        Command::Rmp(args) => return pods::remove(&client, args).await,
        Command::Create(args) => containers::create(&client, args).await?,
        Command::Start(args) => return containers::start(&client, args.ids).await,
        Command::Run(args) => return run::run(&client, args).await,
        Command::Ps(args) => ps::list(&client, args).await?,
        Command::Inspect(args) => return inspect::containers(&client, &args).await,
        Command::Stats(args) => stats::show(&client, args).await?,
        Command::Logs(args) => logs::print(&client, args).await?,
        Command::Exec(args) => return exec::exec(&client, args).await,
        Command::Url(args) => url::url(&client, args).await?,
        Command::Stop(args) => return containers::stop(&client, args).await,
        Command::Rm(args) => return containers::remove(&client, args).await,
        Command::Bench(args) => return bench::run(&client, &args).await,
        Command::Completion(args) => completion::print(args.shell)?,
        Command::ReopenLog(args) => containers::reopen_log(&client, &args.id).await?,
    }
    Ok(0)
}
