// SPDX-License-Identifier: Apache-2.0
//! `completion`: what the build made for each shell.

use crate::cli::Shell;
use crate::error::Error;

macro_rules! made {
    ($file:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/completions/", $file))
    };
}

/// Prints a shell's completions.
pub(crate) fn print(shell: Shell) -> Result<(), Error> {
    let text = match shell {
        Shell::Bash => made!("crictl-lite.bash"),
        Shell::Zsh => made!("_crictl-lite"),
        Shell::Fish => made!("crictl-lite.fish"),
    };
    crate::output::print(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use crate::cli::Cli;

    #[test]
    fn every_command_has_its_page_and_is_completed() {
        let out = Path::new(env!("OUT_DIR"));
        let read = |file: String| std::fs::read_to_string(out.join(&file)).expect(&file);
        let bash = read("completions/crictl-lite.bash".into());
        let commands = Cli::command();
        let names: Vec<&str> = commands.get_subcommands().map(|command| command.get_name()).collect();
        assert!(names.contains(&"completion") && names.len() > 20, "{names:?}");
        for name in names {
            let page = read(format!("man/crictl-lite-{name}.1"));
            assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
            assert!(bash.contains(&format!("crictl__lite,{name})")), "{name}");
        }
    }
}
