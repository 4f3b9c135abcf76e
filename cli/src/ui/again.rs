//! The commands that are proposed work as they are copied: they name the environment file and the journal where
//! these were not simply found.
use std::{borrow::Cow, path::Path, sync::Mutex};

/// ` --env-file X`, ` --journal Y`, as this call learned them.
static OPTIONS: Mutex<String> = Mutex::new(String::new());

/// From now on, proposed commands name this file by this option.
pub(crate) fn remember(option: &str, path: &Path) {
    let text = quoted(path);
    if let Ok(mut options) = OPTIONS.lock()
        && !options.contains(option)
    {
        options.push_str(&format!(" {option} {text}"));
    }
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text
        .chars()
        .all(|c| c.is_alphanumeric() || "/._-+".contains(c));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn options() -> String {
    OPTIONS
        .lock()
        .map(|options| options.clone())
        .unwrap_or_default()
}

/// A command as it is typed: `windlass show RUN`, with what this call was told.
pub(crate) fn command(command: &str) -> String {
    let options = options();
    match command.strip_suffix(&options) {
        Some(_) if !options.is_empty() => command.to_owned(),
        Some(_) | None => format!("{command}{options}"),
    }
}

/// The commands in backticks of a text for people.
pub(crate) fn in_text(text: &str) -> Cow<'_, str> {
    let options = options();
    if options.is_empty() || !text.contains("`windlass ") {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("`windlass ") {
        let Some((command, tail)) = after.split_once('`') else {
            break;
        };
        out.push_str(&format!("{before}`windlass {command}{options}`"));
        rest = tail;
    }
    out.push_str(rest);
    Cow::Owned(out)
}
