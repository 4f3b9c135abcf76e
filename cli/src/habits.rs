//! Words of other tools, and the command that does here what they do there.
use clap::error::{ContextKind, ContextValue, ErrorKind};

const HABITS: [(&[&str], &str); 13] = [
    (
        &["apply", "start", "exec", "execute", "launch"],
        "`windlass run PLAYBOOK` starts a run",
    ),
    (
        &["status", "describe", "get", "info", "inspect"],
        "`windlass show RUN` shows one run, `windlass runs` lists all",
    ),
    (
        &["list", "ls", "ps", "history"],
        "`windlass runs` lists the runs",
    ),
    (
        &["stop", "abort", "kill", "terminate"],
        "`windlass cancel RUN` ends a run, `windlass pause RUN` lets it start nothing new",
    ),
    (
        &["continue", "recover"],
        "`windlass resume RUN` continues a run",
    ),
    (
        &["rollback", "revert", "compensate"],
        "`windlass undo RUN` undoes what a run did",
    ),
    (
        &["restart", "rerun", "again"],
        "`windlass retry RUN STEP` tries a failed step again, `windlass run PLAYBOOK` starts a new run",
    ),
    (
        &["check", "lint", "verify"],
        "`windlass validate PLAYBOOK` checks a playbook",
    ),
    (
        &["dry-run", "dryrun", "preview", "diff"],
        "`windlass plan PLAYBOOK` shows what a run would do",
    ),
    (
        &["tail", "follow", "attach"],
        "`windlass watch RUN` follows a run",
    ),
    (
        &["deny", "decline", "vote"],
        "`windlass approve RUN STEP` and `windlass reject RUN STEP` vote",
    ),
    (
        &["log", "output"],
        "`windlass logs RUN` prints what its programs and servers printed",
    ),
    (
        &["kinds", "modules", "plugins"],
        "`windlass steps` lists the kinds of steps",
    ),
];

const FLAGS: [(&[&str], &str); 4] = [
    (
        &["--check", "--dry-run", "--dryrun", "--noop", "--diff"],
        "`windlass plan PLAYBOOK` shows what a run would do",
    ),
    (
        &["--tail", "--since", "-n"],
        "`windlass logs RUN --follow` prints what comes from now on",
    ),
    (
        &["--force", "--no-confirm", "--auto-approve"],
        "`--yes` does not ask, where a command asks",
    ),
    (
        &["--var", "--extra-vars", "--param", "-e"],
        "`--input NAME=VALUE` sets an input",
    ),
];

/// An option that is none of ours. That it could be passed as a value is no help: no value begins with a dash.
fn translate_option(error: &mut clap::Error) {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    let name = given.split('=').next().unwrap_or_default();
    let found = FLAGS.iter().find(|(words, _)| words.contains(&name));
    let tip = found.map(|(_, tip)| ContextValue::StyledStrs(vec![(*tip).into()]));
    error.remove(ContextKind::Suggested);
    if let Some(tip) = tip
        && error.get(ContextKind::SuggestedArg).is_none()
    {
        error.insert(ContextKind::Suggested, tip);
    }
}

/// A command that is none of ours, and is one elsewhere: what it is called here, in place of what is spelled alike.
pub(crate) fn translate(error: &mut clap::Error) {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {}
        ErrorKind::UnknownArgument => return translate_option(error),
        _ => return,
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand) else {
        return;
    };
    let given = given.clone();
    let found = HABITS
        .iter()
        .find(|(words, _)| words.contains(&given.as_str()));
    if let Some((_, tip)) = found {
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![(*tip).into()]),
        );
        return;
    }
    // A slip of the finger, and no word that only shares some letters: what acts on a run is not proposed for `destroy`.
    if let Some(ContextValue::Strings(alike)) = error.remove(ContextKind::SuggestedSubcommand) {
        let mut slips = alike;
        slips.retain(|ours| strsim::osa_distance(ours, &given) <= 2);
        if !slips.is_empty() {
            error.insert(
                ContextKind::SuggestedSubcommand,
                ContextValue::Strings(slips),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{CommandFactory, Parser};

    #[test]
    fn only_a_slip_of_the_finger_is_corrected() {
        for (given, tip) in [
            ("destroy", None),
            ("trace", None),
            ("reusme", Some("resume")),
            ("undoo", Some("undo")),
        ] {
            let Err(mut error) = Cli::try_parse_from(["windlass", given]) else {
                panic!("{given}");
            };
            translate(&mut error);
            let said = error.to_string();
            assert_eq!(said.contains("tip:"), tip.is_some(), "{said}");
            assert!(tip.is_none_or(|tip| said.contains(tip)), "{said}");
        }
    }

    #[test]
    fn options_of_other_tools_are_translated() {
        for (given, tip) in [
            (&["run", "--check", "x"][..], "`windlass plan PLAYBOOK`"),
            (&["run", "--dry-run=true", "x"], "`windlass plan PLAYBOOK`"),
            (
                &["logs", "last", "--tail", "5"],
                "`windlass logs RUN --follow`",
            ),
            (&["runs", "--limt", "5"], "'--limit'"),
            (&["run", "x", "--var", "a=1"], "`--input NAME=VALUE`"),
        ] {
            let Err(mut error) =
                Cli::try_parse_from(std::iter::once("windlass").chain(given.iter().copied()))
            else {
                panic!("{given:?}");
            };
            translate(&mut error);
            let said = error.to_string();
            assert!(said.contains(tip) && !said.contains("as a value"), "{said}");
        }
    }

    #[test]
    fn every_word_is_none_of_ours_and_every_tip_is() {
        let command = Cli::command();
        let ours: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        for (words, tip) in HABITS {
            let named: Vec<&str> = tip
                .split("`windlass ")
                .skip(1)
                .filter_map(|rest| rest.split([' ', '`']).next())
                .collect();
            assert!(
                !named.is_empty() && named.iter().all(|name| ours.contains(name)),
                "{tip}"
            );
            for word in words {
                assert!(!ours.contains(word), "{word}");
                let Err(mut error) = Cli::try_parse_from(["windlass", word]) else {
                    panic!("{word}");
                };
                translate(&mut error);
                let said = error.to_string();
                assert!(said.contains(tip) && !said.contains("similar"), "{said}");
            }
        }
    }
}
