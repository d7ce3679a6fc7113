use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{Errors, Reader};

/// What the command line of a service asks for.
pub enum Cli<C> {
    /// Run with this configuration. The list holds variables that look misspelt: log them when there is a log.
    Run(C, Vec<String>),
    /// All is said: end with this code.
    Exit(ExitCode),
}

/// Reads the settings of a service, which takes no arguments but `--help` and `--print-config`.
///
/// Problems go to stderr, all at once, and the exit code is 1. `--print-config` prints the values even then.
pub fn run_cli<C>(about: &str, read: fn(&mut Reader) -> Result<C, Errors>) -> Cli<C> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    decide(
        about,
        &arguments,
        Reader::from_env(),
        read,
        &mut io::stdout(),
        &mut io::stderr(),
    )
}

fn decide<C>(
    about: &str,
    arguments: &[String],
    mut reader: Reader,
    read: fn(&mut Reader) -> Result<C, Errors>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Cli<C> {
    let config = read(&mut reader);
    let description = reader.describe();
    // a closed stdout or stderr is no reason to fail: hence the ignored results
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["--help" | "-h"] => {
            let _ = write!(
                out,
                "{about}\n\nOptions: --help, --print-config\n\nEnvironment:\n{description}"
            );
            return Cli::Exit(ExitCode::SUCCESS);
        }
        ["--print-config"] => {
            let _ = write!(out, "{}", description.values());
            if config.is_ok() {
                return Cli::Exit(ExitCode::SUCCESS);
            }
        }
        [] => {}
        _ => {
            let _ = writeln!(
                err,
                "unknown arguments {arguments:?}; known are --help and --print-config"
            );
            return Cli::Exit(ExitCode::FAILURE);
        }
    }
    match config {
        Ok(config) => Cli::Run(config, description.unknown().to_vec()),
        Err(errors) => {
            let _ = writeln!(err, "{errors}");
            Cli::Exit(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(r: &mut Reader) -> Result<u16, Errors> {
        let port = r.or("KONTOR_PORT", "port to serve", 7000u16);
        let name = r.required::<String>("KONTOR_NAME", "its name");
        r.finish()?;
        name?;
        Ok(port?)
    }

    fn cli(arguments: &[&str], variables: &[(&str, &str)]) -> (Cli<u16>, String, String) {
        let variables: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let cli = decide(
            "a test",
            &arguments,
            Reader::from_map(variables),
            read,
            &mut out,
            &mut err,
        );
        (
            cli,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn help_lists_every_setting_even_when_they_are_wrong() {
        let (_, out, err) = cli(&["--help"], &[]);
        assert!(out.contains("KONTOR_PORT  port to serve (7000)\n"), "{out}");
        assert!(out.contains("KONTOR_NAME  its name (required)\n"), "{out}");
        assert_eq!(err, "");
    }

    #[test]
    fn print_config_shows_values_and_problems() {
        let (_, out, err) = cli(&["--print-config"], &[("KONTOR_PORT", "x")]);
        assert_eq!(out, "KONTOR_PORT=x\nKONTOR_NAME=\n");
        assert_eq!(err.lines().count(), 2, "{err}");
    }

    #[test]
    fn good_settings_run_and_bad_ones_exit() {
        let (good, _, _) = cli(&[], &[("KONTOR_NAME", "x"), ("KONTOR_NAM", "y")]);
        assert!(matches!(good, Cli::Run(7000, unknown) if unknown == ["KONTOR_NAM"]));
        let (bad, _, err) = cli(&[], &[]);
        assert!(matches!(bad, Cli::Exit(_)));
        assert_eq!(err, "KONTOR_NAME: is required\n");
        let (odd, _, err) = cli(&["--prot"], &[("KONTOR_NAME", "x")]);
        assert!(matches!(odd, Cli::Exit(_)) && err.contains("--prot"));
    }
}
