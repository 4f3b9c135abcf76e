//! `windlass explain`: a page for each code, the expression language, the exit codes, the states.
use crate::{error::CliError, exit, exit::Exit, session::Session, ui::states};
use windlass_engine::{
    diagnostic::{self, CODES, codes},
    expr,
};

const EXPRESSIONS: &str = "expressions";
const EXIT_CODES: &str = "exit-codes";
const STATES: &str = "states";

/// What `explain` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// A code such as WL0203, `expressions`, `states`, `exit-codes`, one state such as `stuck`, or one exit code such as 5; by default all codes
    topic: Option<String>,
}

pub(crate) fn run(session: &Session, args: &ExplainArgs) -> Result<Exit, CliError> {
    let ui = &session.ui;
    let Some(topic) = args.topic.as_deref() else {
        for code in CODES {
            ui.line(&format!("{}  {}", ui.out.bold(code.code), code.title));
        }
        ui.line(&format!("{EXPRESSIONS}  the expression language"));
        ui.line(&format!("{EXIT_CODES}  what the numbers mean"));
        ui.line(&format!("{STATES}  what the words for runs and steps mean"));
        return Ok(Exit::Succeeded);
    };
    if let Some(code) = codes::find(topic) {
        ui.line(code.page.trim_end());
        return Ok(Exit::Succeeded);
    }
    if let Some(state) = states::one(topic) {
        ui.print(&state);
        return Ok(Exit::Succeeded);
    }
    if let Some(code) = exit::one(topic) {
        ui.line(&code);
        return Ok(Exit::Succeeded);
    }
    match topic {
        EXPRESSIONS => ui.line(expr::reference_page().trim_end()),
        EXIT_CODES => ui.line(exit::table().trim_end()),
        STATES => ui.line(states::page().trim_end()),
        _ => {
            let known = CODES
                .iter()
                .map(|code| code.code)
                .chain([EXPRESSIONS, EXIT_CODES, STATES]);
            let error = CliError::invalid(format!("unknown topic {topic:?}"));
            let upper = topic.to_ascii_uppercase();
            return Err(
                match diagnostic::nearest(&upper, known)
                    .or_else(|| diagnostic::nearest(topic, [EXPRESSIONS, EXIT_CODES, STATES]))
                {
                    Some(near) => error.help(format!("did you mean {near}?")),
                    None => error.help("`windlass explain` lists all that there is"),
                },
            );
        }
    }
    Ok(Exit::Succeeded)
}
