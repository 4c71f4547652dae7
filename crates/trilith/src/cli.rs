//! The command line: one flag per row of the settings table, a few subcommands.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::Flags;
use crate::config::settings::{Kind, SETTINGS};

/// What the user asked for.
#[derive(Debug)]
pub enum Action {
    Serve,
    CheckConfig { file: PathBuf },
    ConfigReference,
    Blocks(BlocksAction),
}

#[derive(Debug)]
pub enum BlocksAction {
    List {
        signal: Option<String>,
        tenant: Option<String>,
    },
    Show {
        id: String,
    },
    Verify {
        id: Option<String>,
    },
}

#[derive(Debug)]
pub struct Invocation {
    pub action: Action,
    pub config_file: Option<PathBuf>,
    pub flags: Flags,
}

pub fn command() -> Command {
    let mut cmd = Command::new("trilith")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Metrics, logs and traces in one program, on one bucket, behind the APIs of Prometheus, Loki and Tempo.")
        .after_help("Without a subcommand the server starts. The same settings, in YAML: docs/configuration.md.")
        .subcommand_help_heading("Commands")
        .subcommand_negates_reqs(true)
        .arg(
            Arg::new("config")
                .long("config")
                .global(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help_heading("General")
                .help("YAML file with settings; flags win over it."),
        );
    for s in SETTINGS {
        let mut arg = Arg::new(s.key)
            .long(s.key)
            .global(true)
            .help_heading(s.group)
            .action(ArgAction::Set);
        arg = match s.kind {
            Kind::Bool => arg
                .num_args(0..=1)
                .default_missing_value("true")
                .value_name("true|false"),
            Kind::Text => arg.value_name("TEXT"),
            Kind::Path => arg.value_name("PATH"),
            Kind::Count => arg.value_name("N"),
            Kind::Bytes => arg.value_name("SIZE"),
            Kind::Duration => arg.value_name("DURATION"),
            Kind::Listen => arg.value_name("PORT|HOST:PORT"),
        };
        let default = if s.default.is_empty() {
            String::new()
        } else {
            format!(" [default: {}]", s.default)
        };
        cmd = cmd.arg(arg.help(format!("{}{default}", s.help)));
    }
    let id = || Arg::new("id").value_name("ID");
    cmd.subcommand(
        Command::new("check-config")
            .about("Check a settings file and exit: 0 when it is fine, 1 with one line per mistake.")
            .arg(
                Arg::new("file")
                    .required(true)
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf)),
            ),
    )
    .subcommand(Command::new("config-reference").about("Print the reference page of all settings (Markdown)."))
    .subcommand(
        Command::new("blocks")
            .about("Look at the blocks in the store; the server may be running.")
            .subcommand_required(true)
            .subcommand(
                Command::new("ls")
                    .about("List blocks: id, signal, tenant, level, time range, items, bytes.")
                    .arg(
                        Arg::new("signal")
                            .long("signal")
                            .value_name("metrics|logs|traces")
                            .value_parser(["metrics", "logs", "traces"]),
                    )
                    .arg(Arg::new("tenant").long("tenant").value_name("TENANT")),
            )
            .subcommand(
                Command::new("show")
                    .about("Everything the manifest and the footers know of one block.")
                    .arg(id().required(true)),
            )
            .subcommand(
                Command::new("verify")
                    .about("Read one block, or all, and check every checksum and record.")
                    .arg(id()),
            ),
    )
}

/// Prints help, version or usage errors and ends the process for those, as clap does.
pub fn parse() -> Invocation {
    from_matches(&command().get_matches())
}

fn from_matches(m: &ArgMatches) -> Invocation {
    let (action, deepest) = match m.subcommand() {
        Some(("check-config", sub)) => (
            Action::CheckConfig {
                file: sub.get_one::<PathBuf>("file").cloned().unwrap_or_default(),
            },
            sub,
        ),
        Some(("config-reference", sub)) => (Action::ConfigReference, sub),
        Some(("blocks", sub)) => {
            let text = |m: &ArgMatches, id: &str| m.get_one::<String>(id).cloned();
            match sub.subcommand() {
                Some(("show", s)) => (
                    Action::Blocks(BlocksAction::Show {
                        id: text(s, "id").unwrap_or_default(),
                    }),
                    s,
                ),
                Some(("verify", s)) => (Action::Blocks(BlocksAction::Verify { id: text(s, "id") }), s),
                Some((_, s)) => (
                    Action::Blocks(BlocksAction::List {
                        signal: text(s, "signal"),
                        tenant: text(s, "tenant"),
                    }),
                    s,
                ),
                None => (
                    Action::Blocks(BlocksAction::List {
                        signal: None,
                        tenant: None,
                    }),
                    sub,
                ),
            }
        }
        _ => (Action::Serve, m),
    };
    let flags = SETTINGS
        .iter()
        .filter_map(|s| deepest.get_one::<String>(s.key).map(|v| (s.key, v.clone())))
        .collect();
    Invocation {
        action,
        config_file: deepest.get_one::<PathBuf>("config").cloned(),
        flags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Invocation {
        let argv = std::iter::once("trilith").chain(args.iter().copied());
        from_matches(&command().try_get_matches_from(argv).expect("valid arguments"))
    }

    #[test]
    fn the_table_makes_a_valid_command() {
        command().debug_assert();
    }

    #[test]
    fn flags_by_key() {
        let i = parse(&[
            "--listen.metrics",
            "0",
            "--multi-tenancy",
            "--self-observe",
            "false",
            "--config",
            "x.yaml",
        ]);
        assert_eq!(i.flags["listen.metrics"], "0");
        assert_eq!(i.flags["multi-tenancy"], "true");
        assert_eq!(i.flags["self-observe"], "false");
        assert_eq!(i.config_file, Some(PathBuf::from("x.yaml")));
        assert!(matches!(i.action, Action::Serve));
    }

    #[test]
    fn subcommands_take_the_same_flags_on_either_side() {
        for args in [["--data-dir", "d", "blocks", "ls"], ["blocks", "ls", "--data-dir", "d"]] {
            let i = parse(&args);
            assert_eq!(i.flags["data-dir"], "d");
            assert!(matches!(i.action, Action::Blocks(BlocksAction::List { .. })));
        }
    }
}
