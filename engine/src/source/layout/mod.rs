//! One way to lay out a file: two spaces a level, one empty line at most, `{ a: b }` and `[a, b]`. What it says,
//! its comments and its quotes stay.
use super::{Map, Node, NodeKind, Range, SourceFile, Style, parse};

/// Why a file was not laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It is not YAML that playbooks use.
    #[error("the file has mistakes that must be mended first")]
    Mistakes,
    /// A defect: laid out, it would say something else.
    #[error("laid out, the file would say something else; it was left as it is")]
    Meaning,
}

/// Spaces a level.
const STEP: usize = 2;
/// How often a file is laid out at most.
const MAX_ROUNDS: usize = 5;

/// Lays a file out.
///
/// # Errors
/// Where it cannot be read, or would not say the same.
pub fn laid_out(text: &str) -> Result<String, LayoutError> {
    let text = text.trim_start_matches(['\u{feff}', '\n', '\r']);
    let mut text = text.replace("\r\n", "\n").replace('\r', "\n");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let before = read(&text).ok_or(LayoutError::Mistakes)?;
    // Once is enough but for texts that nobody writes; what does not come to rest is left alone.
    for _ in 0..MAX_ROUNDS {
        let tree = read(&text).ok_or(LayoutError::Meaning)?;
        if !same(&before, &tree) {
            return Err(LayoutError::Meaning);
        }
        let mut layout = Layout::new(SourceFile::new("", &text));
        layout.node(&tree, Column { old: 0, new: 0 });
        let laid = layout.finish();
        if laid == text {
            return Ok(laid);
        }
        text = laid;
    }
    Err(LayoutError::Meaning)
}

fn read(text: &str) -> Option<Node> {
    let parsed = parse("", text);
    parsed.root.filter(|_| parsed.diagnostics.is_empty())
}

/// Whether two trees say the same, wherever it stands.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.kind, &b.kind) {
        (NodeKind::Scalar(a), NodeKind::Scalar(b)) => a == b,
        (NodeKind::List(a), NodeKind::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (NodeKind::Map(a), NodeKind::Map(b)) => {
            let pairs = a.entries.iter().zip(&b.entries);
            a.entries.len() == b.entries.len()
                && pairs
                    .into_iter()
                    .all(|(a, b)| a.key == b.key && same(&a.value, &b.value))
        }
        (NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_), _) => false,
    }
}

/// Where a collection stands, and where it will.
#[derive(Clone, Copy)]
struct Column {
    old: usize,
    new: usize,
}

/// What becomes of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Not inside anything: a comment, an empty line.
    Free,
    /// It begins with a key, a dash or a value.
    Starts(usize),
    /// It goes on with a text or a collection in braces: moved, and otherwise left.
    GoesOn(isize),
    /// In a block text: this many columns go, that many come.
    Block { old: usize, new: usize },
}

struct Layout {
    file: SourceFile,
    /// First byte of each line, and of the line that would follow.
    starts: Vec<usize>,
    lines: Vec<Line>,
    /// What is replaced within lines.
    edits: Vec<(Range, &'static str)>,
}

impl Layout {
    fn new(file: SourceFile) -> Self {
        let text = file.text();
        let mut starts = vec![0];
        starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        if starts.last() != Some(&text.len()) {
            starts.push(text.len());
        }
        let lines = vec![Line::Free; starts.len().saturating_sub(1)];
        Self {
            file,
            starts,
            lines,
            edits: Vec::new(),
        }
    }

    fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).max(1) - 1
    }

    fn text_of(&self, line: usize) -> &str {
        let range = self.starts.get(line).copied().unwrap_or_default()
            ..self.starts.get(line + 1).copied().unwrap_or_default();
        let text = self.file.text().get(range).unwrap_or("");
        text.strip_suffix('\n').unwrap_or(text)
    }

    fn indent_of(&self, line: usize) -> usize {
        let text = self.text_of(line);
        text.len() - text.trim_start_matches(' ').len()
    }

    fn set(&mut self, line: usize, what: Line) {
        if let Some(old) = self.lines.get_mut(line)
            && *old == Line::Free
        {
            *old = what;
        }
    }

    /// The column of a byte.
    fn column(&self, at: usize) -> usize {
        at - self.starts.get(self.line_of(at)).copied().unwrap_or(at)
    }

    /// Whether nothing but spaces stands before it in its line.
    fn begins_line(&self, at: usize) -> bool {
        self.indent_of(self.line_of(at)) == self.column(at)
    }

    /// A node whose first byte will stand in this column, where it begins a line.
    fn node(&mut self, node: &Node, at: Column) {
        match &node.kind {
            NodeKind::Map(map) if map.flow => self.flow(node, at),
            NodeKind::Map(map) => self.map(map, at.new),
            NodeKind::List(_) if self.file.slice(node.range).starts_with('[') => {
                self.flow(node, at);
            }
            NodeKind::List(items) => self.list(items, at.new),
            NodeKind::Scalar(scalar) => match scalar.style {
                Style::Literal | Style::Folded => self.block(node, at),
                Style::Plain | Style::SingleQuoted | Style::DoubleQuoted => {
                    self.goes_on(node.range, at);
                }
            },
        }
    }

    fn map(&mut self, map: &Map, new: usize) {
        for entry in &map.entries {
            let start = entry.key_range.start as usize;
            let old = self.column(start);
            if self.begins_line(start) {
                self.set(self.line_of(start), Line::Starts(new));
            }
            self.goes_on(entry.key_range, Column { old, new });
            self.below(&entry.value, Column { old, new });
        }
    }

    /// A value below its key or dash, or beside it.
    fn below(&mut self, value: &Node, around: Column) {
        let start = value.range.start as usize;
        let empty = value.range.bytes().is_empty();
        let own_line = !empty && self.begins_line(start);
        match &value.kind {
            NodeKind::Scalar(scalar) if matches!(scalar.style, Style::Literal | Style::Folded) => {
                self.block(value, around);
            }
            NodeKind::Map(map) if !map.flow => self.map(map, around.new + STEP),
            NodeKind::List(items) if !self.file.slice(value.range).starts_with('[') => {
                self.list(items, around.new + STEP);
            }
            NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
                if own_line {
                    let line = self.line_of(start);
                    self.set(line, Line::Starts(around.new + STEP));
                    let old = self.column(start);
                    let new = around.new + STEP;
                    self.node(value, Column { old, new });
                } else if !empty {
                    self.node(value, around);
                }
            }
        }
    }

    fn list(&mut self, items: &[Node], new: usize) {
        let mut from = 0;
        for item in items {
            let start = item.range.start as usize;
            let Some(dash) = self.dash(from, start) else {
                continue;
            };
            from = item.range.end as usize;
            let old = self.column(dash);
            if self.begins_line(dash) {
                self.set(self.line_of(dash), Line::Starts(new));
            }
            let beside = self.line_of(dash) == self.line_of(start);
            if beside && start > dash + 1 && !item.range.bytes().is_empty() {
                self.edits.push((Range::new(dash + 1, start), " "));
            }
            match &item.kind {
                NodeKind::Map(map) if !map.flow => self.map(map, new + STEP),
                NodeKind::List(inner) if !self.file.slice(item.range).starts_with('[') => {
                    self.list(inner, new + STEP);
                }
                NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
                    self.below(item, Column { old, new });
                }
            }
        }
    }

    /// The dash before an item: the last one that only spaces, line ends and comments follow.
    fn dash(&self, from: usize, item: usize) -> Option<usize> {
        let mut line = self.line_of(item);
        let mut end = item;
        loop {
            let start = self.starts.get(line).copied()?;
            let lead = self.file.text().get(start..end)?;
            let code = lead
                .find(" #")
                .map_or(lead, |at| lead.get(..at).unwrap_or(lead));
            // The head of a block text stands behind the dash: `- |-`.
            let head = code
                .trim_end()
                .trim_end_matches(['+', '-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
            let code = head.strip_suffix(['|', '>']).unwrap_or(code);
            if !lead.trim_start().starts_with('#')
                && let Some(at) = code.rfind('-')
                && code.get(at + 1..)?.trim().is_empty()
                && start + at >= from
            {
                return Some(start + at);
            }
            end = start.checked_sub(1)?;
            line = line.checked_sub(1)?;
            if start <= from {
                return None;
            }
        }
    }

    /// The lines after the first of what goes over several.
    fn goes_on(&mut self, range: Range, at: Column) {
        let range = range.bytes();
        if range.is_empty() {
            return;
        }
        let shift = isize::try_from(at.new).unwrap_or(0) - isize::try_from(at.old).unwrap_or(0);
        let last = self.line_of(range.end.saturating_sub(1));
        for line in self.line_of(range.start) + 1..=last {
            self.set(line, Line::GoesOn(shift));
        }
    }

    /// A block text, whose range is its content up to whatever follows.
    fn block(&mut self, node: &Node, at: Column) {
        let range = node.range.bytes();
        let blank = |line: &usize| self.text_of(*line).trim().is_empty();
        let first = self.line_of(range.start);
        let above = (0..first).rev().find(|line| !blank(line));
        let head = above.map_or("", |line| self.text_of(line));
        let head = head.split(" #").next().unwrap_or("");
        let head = head.rsplit(['|', '>']).next().unwrap_or("");
        let mut end = self.line_of(range.end);
        if range.end >= self.file.text().len() {
            end = self.lines.len();
        }
        if !head.contains('+') {
            // Empty lines at the end say nothing.
            while end > first && blank(&(end - 1)) {
                end -= 1;
            }
        }
        let (old, new) = if head.contains(|c: char| c.is_ascii_digit()) {
            (at.old, at.new)
        } else {
            (self.indent_of(first), at.new + STEP)
        };
        for line in above.map_or(first, |line| line + 1)..end {
            self.set(line, Line::Block { old, new });
        }
    }

    /// Spaces inside braces and brackets, where it all stands in one line.
    fn flow(&mut self, node: &Node, at: Column) {
        self.goes_on(node.range, at);
        let range = node.range.bytes();
        if self.file.slice(node.range).contains('\n') {
            return;
        }
        let (parts, pad): (Vec<(usize, usize)>, &'static str) = match &node.kind {
            NodeKind::Map(map) => {
                for entry in &map.entries {
                    self.flow_inside(&entry.value, at);
                }
                let ends = map.entries.iter().map(|entry| {
                    let key = entry.key_range;
                    // A value that is not there has its place behind the spaces.
                    let end = match entry.value.range.bytes().is_empty() {
                        true => key.end,
                        false => entry.value.range.end,
                    };
                    (key.start as usize, end as usize)
                });
                (ends.collect(), " ")
            }
            NodeKind::List(items) => {
                for item in items {
                    self.flow_inside(item, at);
                }
                let ends = items
                    .iter()
                    .map(|item| (item.range.start as usize, item.range.end as usize));
                (ends.collect(), "")
            }
            NodeKind::Scalar(_) => return,
        };
        let (Some((first, _)), Some((_, last))) = (parts.first(), parts.last()) else {
            self.gap(range.start + 1, range.end.saturating_sub(1), "", "");
            return;
        };
        self.gap(range.start + 1, *first, "", pad);
        self.gap(*last, range.end.saturating_sub(1), "", pad);
        for pair in parts.windows(2) {
            if let [(_, end), (start, _)] = pair {
                self.gap(*end, *start, ",", ", ");
            }
        }
    }

    fn flow_inside(&mut self, node: &Node, at: Column) {
        match &node.kind {
            NodeKind::Map(_) | NodeKind::List(_) => self.flow(node, at),
            NodeKind::Scalar(_) => {}
        }
    }

    /// Replaces a gap that holds nothing but this sign and spaces.
    fn gap(&mut self, from: usize, to: usize, sign: &str, by: &'static str) {
        if let Some(text) = self.file.text().get(from..to)
            && text.trim() == sign
            && text != by
        {
            self.edits.push((Range::new(from, to), by));
        }
    }

    /// The lines, moved; comments go with what follows them, or with the block that they end.
    fn finish(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut out: Vec<String> = Vec::with_capacity(self.lines.len());
        let neighbours = self.neighbours();
        for (line, sides) in neighbours.into_iter().enumerate() {
            let text = self.edited(line);
            let bare = text.trim_start_matches(' ');
            match self.lines.get(line).copied().unwrap_or(Line::Free) {
                Line::Starts(indent) => out.push(format!("{}{}", pad(indent), bare.trim_end())),
                Line::GoesOn(shift) => {
                    let indent = self.indent_of(line).saturating_add_signed(shift);
                    let body = format!("{}{}", pad(indent), bare);
                    out.push(if bare.is_empty() { String::new() } else { body });
                }
                Line::Block { old, new } => {
                    let kept = text.get(old..).unwrap_or("");
                    let body = format!("{}{kept}", pad(new));
                    out.push(if kept.is_empty() { String::new() } else { body });
                }
                Line::Free if bare.trim_end().is_empty() => {
                    // One empty line at most, and none at the start.
                    if out.last().is_some_and(|last| !last.is_empty()) {
                        out.push(String::new());
                    }
                }
                Line::Free => out.push(format!(
                    "{}{}",
                    pad(self.beside(line, sides)),
                    bare.trim_end()
                )),
            }
        }
        while out.last().is_some_and(String::is_empty)
            && !matches!(self.lines.last(), Some(Line::Block { .. }))
        {
            out.pop();
        }
        let mut text = out.join("\n");
        text.push('\n');
        text
    }

    /// For each line, where the nearest line that begins something stands and will stand: before it and after it.
    fn neighbours(&self) -> Vec<[Option<Column>; 2]> {
        let fixed = |line: usize| match self.lines.get(line) {
            Some(Line::Starts(new)) => Some(Column {
                old: self.indent_of(line),
                new: *new,
            }),
            Some(Line::Free | Line::GoesOn(_) | Line::Block { .. }) | None => None,
        };
        let mut all = vec![[None, None]; self.lines.len()];
        let mut before = None;
        for (line, sides) in all.iter_mut().enumerate() {
            sides[0] = before;
            before = fixed(line).or(before);
        }
        let mut after = None;
        for (line, sides) in all.iter_mut().enumerate().rev() {
            sides[1] = after;
            after = fixed(line).or(after);
        }
        all
    }

    /// Where a comment will stand.
    fn beside(&self, line: usize, sides: [Option<Column>; 2]) -> usize {
        let own = self.indent_of(line);
        let moved = |by: Column| (own + by.new).saturating_sub(by.old);
        match sides {
            // Deeper than what follows: it ends the block before.
            [Some(before), Some(next)] if own > next.old => moved(before),
            [_, Some(next)] => moved(next),
            [Some(before), None] if own > 0 => moved(before),
            [Some(_) | None, None] => 0,
        }
    }

    fn edited(&self, line: usize) -> String {
        let (Some(start), Some(end)) = (self.starts.get(line), self.starts.get(line + 1)) else {
            return String::new();
        };
        let mut out = String::new();
        let mut at = *start;
        let first = self
            .edits
            .partition_point(|(range, _)| (range.start as usize) < *start);
        for (range, by) in self.edits.iter().skip(first) {
            let bytes = range.bytes();
            if bytes.start >= *end {
                break;
            }
            if bytes.start >= at && bytes.end <= *end {
                out.push_str(self.file.text().get(at..bytes.start).unwrap_or(""));
                out.push_str(by);
                at = bytes.end;
            }
        }
        out.push_str(self.file.text().get(at..*end).unwrap_or(""));
        if out.ends_with('\n') {
            out.pop();
        }
        out
    }
}

fn pad(indent: usize) -> String {
    " ".repeat(indent)
}

#[cfg(test)]
mod tests;
