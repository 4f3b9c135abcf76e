//! What reaches the machine passes the redactor first, so that live equals replay.
use crate::{
    machine::{Command, Report, Submitted},
    secret::Redactor,
    step::{Evidence, Failure, Identity, Mark, Probed, Question, Wait, WaitOn},
    value::Value,
};

pub(super) fn failure(redactor: &Redactor, failure: Failure) -> Failure {
    Failure {
        message: redactor.string(failure.message),
        help: failure.help.map(|help| redactor.string(help)),
        output: redactor.value(failure.output),
        ..failure
    }
}

pub(super) fn identity(redactor: &Redactor, identity: Identity) -> Identity {
    Identity {
        instance: redactor.string(identity.instance),
        timeline: identity.timeline,
        system: identity.system.map(|system| redactor.string(system)),
        role: identity.role.map(|role| redactor.string(role)),
        version: redactor.string(identity.version),
    }
}

fn evidence(redactor: &Redactor, evidence: Evidence) -> Evidence {
    Evidence {
        name: redactor.string(evidence.name),
        content: redactor.value(evidence.content),
        ..evidence
    }
}

/// What undo needs may not hold a secret: it would put the name of the secret where its content was.
pub(super) fn capture(redactor: &Redactor, capture: &Value) -> Result<(), Failure> {
    if redactor.finds(capture) {
        return Err(Failure::new(
            "secret.in_capture",
            "what would be kept for the undo holds a secret, which the journal may not",
        )
        .help(
            "nothing was done; write an `undo` of your own that takes the secret by `secret(\"…\")`, or `undo: none`",
        ));
    }
    Ok(())
}

pub(super) fn mark(redactor: &Redactor, mark: Mark) -> Result<Mark, Failure> {
    if let Some(kept) = &mark.capture {
        capture(redactor, kept)?;
    }
    Ok(Mark {
        token: redactor.value(mark.token),
        capture: mark.capture,
        output: redactor.value(mark.output),
    })
}

fn question(redactor: &Redactor, question: Question) -> Question {
    match question {
        Question::Choose {
            mut from,
            min,
            max,
            many,
        } => {
            for choice in &mut from {
                choice.label = redactor.string(std::mem::take(&mut choice.label));
                choice.value = redactor.value(std::mem::take(&mut choice.value));
            }
            Question::Choose {
                from,
                min,
                max,
                many,
            }
        }
        value @ Question::Value { .. } => value,
    }
}

fn wait(redactor: &Redactor, wait: Wait) -> Wait {
    let on = match wait.on {
        WaitOn::Approval(mut request) => {
            request.prompt = redactor.string(std::mem::take(&mut request.prompt));
            request.show = redactor.value(std::mem::take(&mut request.show));
            request.ask = std::mem::take(&mut request.ask)
                .into_iter()
                .map(|(name, asked)| (name, question(redactor, asked)))
                .collect();
            WaitOn::Approval(request)
        }
        on @ (WaitOn::Timer(_) | WaitOn::Signal(_)) => on,
    };
    Wait { on, ..wait }
}

/// What a step says. Captures and marks were checked before.
pub(super) fn report(redactor: &Redactor, report: Report) -> Report {
    let all = |kept: Vec<Evidence>| {
        kept.into_iter()
            .map(|one| evidence(redactor, one))
            .collect()
    };
    match report {
        Report::Captured(capture) => Report::Captured(redactor.value(capture)),
        Report::Marked(mark) => Report::Marked(Mark {
            token: redactor.value(mark.token),
            capture: mark.capture.map(|capture| redactor.value(capture)),
            output: redactor.value(mark.output),
        }),
        Report::Progressed(state) => Report::Progressed(redactor.value(state)),
        Report::Suspended { state, wait: on } => Report::Suspended {
            state: redactor.value(state),
            wait: wait(redactor, on),
        },
        Report::Done { output, evidence } => Report::Done {
            output: redactor.value(output),
            evidence: all(evidence),
        },
        Report::Failed {
            failure: why,
            evidence,
        } => Report::Failed {
            failure: failure(redactor, why),
            evidence: all(evidence),
        },
        Report::Probed(Probed::Done(output)) => {
            Report::Probed(Probed::Done(output.map(|output| redactor.value(output))))
        }
        Report::Probed(Probed::InDoubt(why)) => {
            Report::Probed(Probed::InDoubt(redactor.string(why)))
        }
        Report::Probed(Probed::Unexplained(why)) => {
            Report::Probed(Probed::Unexplained(redactor.string(why)))
        }
        Report::Probed(Probed::NotDone) => Report::Probed(Probed::NotDone),
    }
}

/// What a person says. An input that is set to the content of a secret becomes its name, and is seen to be so: inputs
/// are kept with the run.
pub(super) fn submitted(redactor: &Redactor, submitted: Submitted) -> Submitted {
    let why = |why: Option<String>| why.map(|why| redactor.string(why));
    let command = match submitted.command {
        Command::Vote {
            node,
            approve,
            answers,
            reason,
            digest,
            shown_hash,
        } => Command::Vote {
            node,
            approve,
            answers: answers
                .into_iter()
                .map(|(name, answer)| (name, redactor.string(answer)))
                .collect(),
            reason: why(reason),
            digest,
            shown_hash,
        },
        Command::Signal { name, payload } => Command::Signal {
            name,
            payload: redactor.value(payload),
        },
        Command::Pause { because } => Command::Pause {
            because: why(because),
        },
        Command::Cancel {
            undo,
            force,
            because,
        } => Command::Cancel {
            undo,
            force,
            because: why(because),
        },
        Command::Resolve {
            node,
            done,
            output,
            because,
        } => Command::Resolve {
            node,
            done,
            output: redactor.value(output),
            because: redactor.string(because),
        },
        Command::Skip {
            node,
            output,
            because,
        } => Command::Skip {
            node,
            output: redactor.value(output),
            because: redactor.string(because),
        },
        Command::SetInput { name, value } => Command::SetInput {
            name,
            value: redactor.string(value),
        },
        Command::Close { because } => Command::Close {
            because: redactor.string(because),
        },
        command @ (Command::Unpause | Command::Retry { .. } | Command::Undo) => command,
    };
    Submitted {
        command,
        ..submitted
    }
}
