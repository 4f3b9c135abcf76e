use super::{Diagnostic, Severity, Span};
use std::fmt;

impl Diagnostic {
    /// As a compiler prints it, without colour. `source_text` is the text of the file that the span names.
    #[must_use]
    pub fn render(&self, source_text: &str) -> String {
        Rendered(self, source_text).to_string()
    }
}

struct Rendered<'a>(&'a Diagnostic, &'a str);

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(diagnostic, text) = self;
        let word = match diagnostic.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        writeln!(f, "{word}[{}]: {}", diagnostic.code, diagnostic.message)?;
        let line = diagnostic.span.as_ref().map_or(1, |span| span.line);
        let pad = " ".repeat(line.to_string().len());
        if let Some(span) = &diagnostic.span {
            writeln!(f, "{pad}--> {}:{}:{}", span.file, span.line, span.column)?;
            if let Some(marked) = span.marked_line(text) {
                writeln!(f, "{pad} |")?;
                writeln!(f, "{line} | {}", marked.line)?;
                write!(f, "{pad} | {}{}", marked.indent, "^".repeat(marked.width))?;
                match &diagnostic.label {
                    Some(label) => writeln!(f, " {label}")?,
                    None => writeln!(f)?,
                }
            }
        }
        for (index, line) in diagnostic
            .help
            .iter()
            .flat_map(|help| help.lines().enumerate())
        {
            let lead = if index == 0 { " = help: " } else { "         " };
            writeln!(f, "{pad}{lead}{line}")?;
        }
        Ok(())
    }
}

/// The source line of a span, with the width of what is marked in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedLine<'a> {
    /// The line, without its end.
    pub line: &'a str,
    /// White space as wide as what stands before the mark.
    pub indent: String,
    /// How many characters are marked; at least 1.
    pub width: usize,
}

impl Span {
    /// The line in the text where the span starts, and what of it is marked.
    #[must_use]
    pub fn marked_line<'a>(&self, text: &'a str) -> Option<MarkedLine<'a>> {
        let before = text.get(..self.start)?;
        let from = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = text.get(from..)?;
        let line = rest.lines().next().unwrap_or("");
        let lead = text.get(from..self.start)?;
        let indent = lead
            .chars()
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let marked = text
            .get(self.start..self.start.saturating_add(self.len))
            .unwrap_or("");
        let width = marked.lines().next().unwrap_or("").chars().count().max(1);
        Some(MarkedLine {
            line,
            indent,
            width,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_the_place() {
        let text = "a: 1\nkeß: on\n";
        let diagnostic = Diagnostic::error(
            "WL0204",
            Span {
                file: "x.yaml".into(),
                start: 11,
                len: 2,
                line: 2,
                column: 6,
            },
            "`on` is not a boolean",
        )
        .label("expected true or false")
        .help("write true");
        assert_eq!(
            diagnostic.render(text),
            "error[WL0204]: `on` is not a boolean\n --> x.yaml:2:6\n  |\n2 | keß: on\n  |      ^^ expected true or false\n  = help: write true\n"
        );
        assert_eq!(
            Diagnostic::bare("WL0901", "unknown input").render(""),
            "error[WL0901]: unknown input\n"
        );
    }
}
