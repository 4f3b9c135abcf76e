//! Diagnostics as a compiler prints them, with colour.
use super::Style;
use windlass_engine::diagnostic::Diagnostic;

/// All of them, and how many there are.
pub(crate) fn all<'t>(
    diagnostics: &[Diagnostic],
    text_of: impl Fn(&Diagnostic) -> &'t str,
    style: Style,
) -> String {
    let mut text = each(diagnostics, text_of, style);
    text.push_str(&count(diagnostics, style));
    text
}

/// All of them, each with a blank line after it.
pub(crate) fn each<'t>(
    diagnostics: &[Diagnostic],
    text_of: impl Fn(&Diagnostic) -> &'t str,
    style: Style,
) -> String {
    diagnostics
        .iter()
        .map(|diagnostic| {
            format!(
                "{}\n",
                paint(diagnostic, &diagnostic.render(text_of(diagnostic)), style)
            )
        })
        .collect()
}

/// `10 errors, 1 warning`; empty where there is nothing.
pub(crate) fn count(diagnostics: &[Diagnostic], style: Style) -> String {
    let errors = diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => String::new(),
        (0, n) => format!("{}\n", style.yellow(&plural(n, "warning"))),
        (n, 0) => format!("{}\n", style.red(&plural(n, "error"))),
        (n, m) => format!(
            "{}, {}\n",
            style.red(&plural(n, "error")),
            style.yellow(&plural(m, "warning"))
        ),
    }
}

fn paint(diagnostic: &Diagnostic, plain: &str, style: Style) -> String {
    if !style.is_on() {
        return plain.to_owned();
    }
    let strong = |text: &str| {
        if diagnostic.is_error() {
            style.red(text)
        } else {
            style.yellow(text)
        }
    };
    let mut painted = String::new();
    for (index, line) in plain.lines().enumerate() {
        let line = if index == 0 {
            match line.split_once(": ") {
                Some((head, message)) => format!("{}: {}", strong(head), style.bold(message)),
                None => strong(line),
            }
        } else if let Some((lead, place)) = line
            .split_once("--> ")
            .filter(|(lead, _)| lead.trim().is_empty())
        {
            format!("{lead}{} {place}", style.blue("-->"))
        } else if let Some((lead, help)) = line
            .split_once(" = help: ")
            .filter(|(lead, _)| lead.trim().is_empty())
        {
            format!("{lead} {} {}: {help}", style.blue("="), style.bold("help"))
        } else if let Some((gutter, rest)) = line.split_once(" |") {
            let is_mark = gutter.trim().is_empty() && rest.trim_start().starts_with('^');
            let rest = if is_mark {
                strong(rest)
            } else {
                rest.to_owned()
            };
            format!("{}{rest}", style.blue(&format!("{gutter} |")))
        } else {
            line.to_owned()
        };
        painted.push_str(&line);
        painted.push('\n');
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::ColorChoice;

    #[test]
    fn colour_changes_no_letter() {
        let diagnostic =
            Diagnostic::bare("WL0901", "unknown input `x`: y").help("did you mean `z`?");
        let plain = diagnostic.render("");
        let painted = paint(
            &diagnostic,
            &plain,
            Style::choose(ColorChoice::Always, false),
        );
        let mut bare = String::new();
        let mut inside = false;
        for c in painted.chars() {
            match c {
                '\x1b' => inside = true,
                'm' if inside => inside = false,
                _ if inside => {}
                _ => bare.push(c),
            }
        }
        assert_eq!(bare, plain);
        assert_ne!(painted, plain);
        assert_eq!(
            count(&[diagnostic.clone(), diagnostic], Style::PLAIN),
            "2 errors\n"
        );
    }
}
