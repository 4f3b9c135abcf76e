//! What people ask: what a page would propose, and anything else.
use super::{
    Random, adapter,
    adapter::Engine,
    oracle::{Oracle, Stand},
    world,
};
use indexmap::IndexMap;
use windlass_engine::{machine::Command, step::Question, value::Value};

/// What would lead on from here, as a person would think of it; not all of it is accepted.
pub(super) fn proposals(oracle: &Oracle) -> Vec<Command> {
    let mut all = Vec::new();
    for (path, forward, undo) in oracle.known() {
        let node = path.to_string();
        for exec in [forward, undo] {
            match exec.stand {
                Stand::Doubt => {
                    all.push(Command::Retry { node: node.clone() });
                    for done in [true, false] {
                        all.push(resolve(&node, done));
                    }
                }
                Stand::Failed => {
                    all.push(Command::Retry { node: node.clone() });
                    all.push(skip(&node, Value::Null));
                    all.push(resolve(&node, true));
                }
                Stand::Asking => {
                    for approve in [true, false] {
                        all.push(vote(&node, approve));
                    }
                }
                Stand::Asleep => {
                    all.push(signal());
                    all.push(skip(&node, Value::Int(7)));
                }
                // The inputs of a call stay as they were when it began.
                Stand::Gated if oracle.inputs_open => all.push(skip(&node, Value::Int(7))),
                Stand::Gated => all.push(set("open", "true")),
                Stand::Pending | Stand::Ordered | Stand::Backoff | Stand::Shut | Stand::Ended => {
                    all.push(skip(&node, Value::Int(7)));
                }
                Stand::Running | Stand::Succeeded | Stand::Skipped => {}
            }
        }
    }
    if oracle.paused {
        all.push(Command::Unpause);
    }
    all.extend(adapter::close());
    all.push(cancel(true, false));
    all.push(cancel(false, false));
    all.push(Command::Undo);
    all
}

pub(super) fn resolve(node: &str, done: bool) -> Command {
    Command::Resolve {
        node: node.to_owned(),
        done,
        output: Value::Null,
        because: "looked".to_owned(),
    }
}

pub(super) fn skip(node: &str, output: Value) -> Command {
    Command::Skip {
        node: node.to_owned(),
        output,
        because: "not needed".to_owned(),
    }
}

pub(super) fn set(name: &str, value: &str) -> Command {
    Command::SetInput {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

pub(super) fn signal() -> Command {
    Command::Signal {
        name: "go".to_owned(),
        payload: Value::Int(1),
    }
}

pub(super) fn cancel(undo: bool, force: bool) -> Command {
    Command::Cancel {
        undo,
        force,
        because: None,
    }
}

pub(super) fn vote(node: &str, approve: bool) -> Command {
    let answers: IndexMap<String, String> = world::request(node)
        .ask
        .iter()
        .map(|(name, question)| {
            let answer = match question {
                Question::Choose { .. } => "1",
                Question::Value { .. } => "x",
            };
            (name.clone(), answer.to_owned())
        })
        .collect();
    Command::Vote {
        node: node.to_owned(),
        approve,
        answers: if approve { answers } else { IndexMap::new() },
        reason: None,
        digest: adapter::DIGEST.to_owned(),
        shown_hash: "h".to_owned(),
    }
}

/// Anything at all, of any node.
pub(super) fn arbitrary(engine: &Engine, random: &mut Random) -> Command {
    let paths = engine.paths();
    let node = if random.percent(3) {
        "nothing".to_owned()
    } else {
        random
            .pick(&paths)
            .map_or_else(String::new, ToString::to_string)
    };
    let output = if random.percent(50) {
        Value::Int(7)
    } else {
        Value::Null
    };
    match random.below(100) {
        0..=19 => Command::Retry { node },
        20..=41 => skip(&node, output),
        42..=53 => Command::Resolve {
            node,
            done: random.percent(70),
            output,
            because: "looked".to_owned(),
        },
        54..=58 => Command::Pause { because: None },
        59..=62 => Command::Unpause,
        63..=72 => cancel(random.percent(60), random.percent(30)),
        73..=75 => Command::Undo,
        76..=82 => signal(),
        83..=88 => set(
            if random.percent(80) { "open" } else { "flag" },
            ["true", "false", "maybe"][random.below(3)],
        ),
        89..=90 => adapter::close().unwrap_or(Command::Unpause),
        91 => {
            let mut wrong = vote(&node, true);
            if let Command::Vote {
                digest, answers, ..
            } = &mut wrong
            {
                if random.percent(50) {
                    *digest = "another".to_owned();
                } else {
                    answers.insert("which".to_owned(), "9".to_owned());
                }
            }
            wrong
        }
        _ => vote(&node, random.percent(75)),
    }
}

/// The name of a command, for the table.
pub(super) fn name(command: &Command) -> &'static str {
    match command {
        Command::Vote { approve: true, .. } => "vote for",
        Command::Vote { approve: false, .. } => "vote against",
        Command::Signal { .. } => "signal",
        Command::Pause { .. } => "pause",
        Command::Unpause => "unpause",
        Command::Cancel {
            undo: true,
            force: true,
            ..
        } => "cancel --undo --force",
        Command::Cancel {
            undo: true,
            force: false,
            ..
        } => "cancel --undo",
        Command::Cancel {
            undo: false,
            force: true,
            ..
        } => "cancel --leave --force",
        Command::Cancel {
            undo: false,
            force: false,
            ..
        } => "cancel --leave",
        Command::Resolve { done: true, .. } => "resolve --done",
        Command::Resolve { done: false, .. } => "resolve --not-done",
        Command::Retry { .. } => "retry",
        Command::Skip { .. } => "skip",
        Command::SetInput { .. } => "set",
        _ if adapter::is_close(command) => "close",
        _ => "undo",
    }
}
