use super::{
    super::{Entry, Map, Node, NodeKind, Range, Scalar, Style, quoted},
    Marks, STEP, is_mark, is_tame, says_nothing,
};

/// Writes a tree anew, token by token, with the comments where they stood among the tokens.
pub(super) struct Writer<'a> {
    pub(super) text: &'a str,
    marks: &'a Marks,
    /// The first comment that is not written yet.
    next: usize,
    /// Where what was written last ends in the text.
    pub(super) at: usize,
    pub(super) out: String,
    /// Whether the output stands at the start of a line.
    fresh: bool,
    /// Whether the line that is written ends in a comment.
    pub(super) commented: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(text: &'a str, marks: &'a Marks) -> Self {
        Self {
            text,
            marks,
            next: 0,
            at: 0,
            out: String::with_capacity(text.len()),
            fresh: true,
            commented: false,
        }
    }

    pub(super) fn document(mut self, root: &Node) -> String {
        if let Some(start) = self.marks.start {
            let head = self.text.get(..start.start as usize).unwrap_or("");
            let mut at = 0;
            for line in head.split_inclusive('\n') {
                if line.starts_with('%') {
                    let code = line.split(" #").next().unwrap_or(line).trim_end();
                    self.comments_before(at, 0);
                    self.start_line(at, 0);
                    self.out.push_str(code);
                    self.at = at + code.len();
                }
                at += line.len();
            }
            self.comments_before(start.start as usize, 0);
            self.start_line(start.start as usize, 0);
            self.out.push_str("---");
            self.at = start.end as usize;
        }
        let start = self.next_token();
        match &root.kind {
            NodeKind::Map(map) if !map.flow => self.map(map, 0, false),
            NodeKind::List(items) if !self.stands(start, '[') => self.list(items, 0, false, None),
            NodeKind::Map(_) | NodeKind::List(_) => {
                self.comments_before(start, 0);
                self.start_line(start, 0);
                self.flow(root, 0);
            }
            NodeKind::Scalar(_) if root.range.bytes().is_empty() => {}
            NodeKind::Scalar(scalar) => {
                self.comments_before(start, 0);
                self.start_line(start, 0);
                if is_mark(self.slice(root.range)) {
                    self.out.push_str(&quoted(&scalar.text));
                    self.at = root.range.end as usize;
                } else {
                    self.scalar(root.range, scalar, STEP);
                }
            }
        }
        self.comments_before(usize::MAX, 0);
        if !self.fresh {
            self.out.push('\n');
        }
        self.out
    }

    /// Where the next thing that is neither space nor comment stands.
    pub(super) fn next_token(&self) -> usize {
        let mut at = self.at;
        let mut next = self.next;
        loop {
            let rest = self.text.get(at..).unwrap_or("");
            at += rest.len() - rest.trim_start_matches([' ', '\t', '\n']).len();
            match self.marks.comments.get(next) {
                Some(comment) if comment.start as usize <= at => {
                    at = at.max(comment.end as usize);
                    next += 1;
                }
                Some(_) | None => return at,
            }
        }
    }

    pub(super) fn stands(&self, at: usize, sign: char) -> bool {
        self.text
            .get(at..)
            .is_some_and(|rest| rest.starts_with(sign))
    }

    fn slice(&self, range: Range) -> &'a str {
        self.text.get(range.bytes()).unwrap_or("")
    }

    /// The column of a byte, in characters from 0.
    fn column(&self, at: usize) -> usize {
        let lead = self.text.get(..at).unwrap_or("");
        lead.rsplit('\n').next().unwrap_or("").chars().count()
    }

    /// Begins a line for what stands there in the text; an empty line before it stays.
    pub(super) fn start_line(&mut self, at: usize, indent: usize) {
        if !self.fresh {
            self.out.push('\n');
        }
        let between = self.text.get(self.at..at).unwrap_or("");
        if !self.out.is_empty() && between.matches('\n').count() > 1 {
            self.out.push('\n');
        }
        self.indent(indent);
        self.fresh = false;
        self.commented = false;
    }

    fn indent(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    /// Goes on behind a key or a dash; in a line of its own where a comment stands between.
    /// Says whether it is one.
    pub(super) fn go_on(&mut self, at: usize, indent: usize) -> bool {
        self.comments_before(at, indent);
        if self.commented {
            self.start_line(at, indent);
            return true;
        }
        self.out.push(' ');
        false
    }

    pub(super) fn comments_before(&mut self, limit: usize, indent: usize) {
        while let Some(comment) = self.pending(limit) {
            self.comment(comment, indent);
        }
    }

    fn pending(&self, limit: usize) -> Option<Range> {
        let next = self.marks.comments.get(self.next).copied();
        next.filter(|comment| (comment.start as usize) < limit)
    }

    /// Whether it stands behind what was written last.
    fn is_beside(&self, comment: Range) -> bool {
        let between = self.text.get(self.at..comment.start as usize).unwrap_or("");
        !self.fresh && !self.commented && !between.contains('\n')
    }

    /// Whether the next comment stands in the column of the one in the line above it or below it.
    fn is_aligned(&self) -> bool {
        let at = |index: usize| self.marks.comments.get(index);
        let below = |upper: Option<&Range>, lower: Option<&Range>| {
            let (Some(upper), Some(lower)) = (upper, lower) else {
                return false;
            };
            let between = self.text.get(upper.end as usize..lower.start as usize);
            between.is_some_and(|text| text.matches('\n').count() == 1)
                && self.column(upper.start as usize) == self.column(lower.start as usize)
        };
        below(at(self.next.wrapping_sub(1)), at(self.next))
            || below(at(self.next), at(self.next + 1))
    }

    fn comment(&mut self, comment: Range, indent: usize) {
        let start = comment.start as usize;
        if self.is_beside(comment) {
            let lead = self.text.get(..start).unwrap_or("");
            let spaces = lead.len() - lead.trim_end_matches([' ', '\t']).len();
            // Comments that were put below one another stay so.
            let wide = if spaces > 1 && self.is_aligned() {
                let here = self.out.rsplit('\n').next().unwrap_or("").chars().count();
                self.column(start).saturating_sub(here)
            } else {
                spaces
            };
            self.indent(wide.max(1));
        } else {
            self.start_line(start, indent);
        }
        self.out.push_str(self.slice(comment).trim_end());
        self.at = self.at.max(comment.end as usize);
        self.next += 1;
        self.commented = true;
    }

    /// The comments that end a block: as deep as it is, and before what follows it.
    fn last_comments(&mut self, deep: usize, indent: usize) {
        let limit = self.next_token();
        while let Some(comment) = self.pending(limit) {
            if !self.is_beside(comment) && self.column(comment.start as usize) < deep {
                break;
            }
            self.comment(comment, indent);
        }
    }

    /// A block map; `beside` a dash, where nothing stands between.
    fn map(&mut self, map: &Map, indent: usize, beside: bool) {
        let old = self.column(self.next_token());
        for (index, entry) in map.entries.iter().enumerate() {
            let start = self.next_token();
            self.comments_before(start, indent);
            if index == 0 && beside && !self.commented {
                self.out.push(' ');
            } else {
                self.start_line(start, indent);
            }
            self.key(entry);
            self.out.push(':');
            self.value(&entry.value, indent, Some(old));
        }
        self.last_comments(old, indent);
    }

    /// A key, without its colon.
    pub(super) fn key(&mut self, entry: &Entry) {
        let raw = self.slice(entry.key_range);
        let mut start = self.next_token();
        if self.stands(start, '?') && start < entry.key_range.start as usize {
            self.at = start + 1;
            start = self.next_token();
        }
        let style = match raw.chars().next() {
            Some('"') => Style::DoubleQuoted,
            Some('\'') => Style::SingleQuoted,
            Some(_) | None => Style::Plain,
        };
        let scalar = Scalar {
            text: entry.key.clone(),
            style,
        };
        self.at = entry.key_range.end as usize;
        let block = self.stands(start, '|') || self.stands(start, '>');
        if block {
            self.at = self.at.max(start + self.head(start).len());
        }
        if says_nothing(&scalar) {
            self.out.push_str(&entry.key);
        } else if block || raw.contains('\n') || is_mark(raw) {
            // A key is one line, and no mark of a document.
            let plain = is_tame(&entry.key);
            let key = if plain {
                entry.key.to_string()
            } else {
                quoted(&entry.key)
            };
            self.out.push_str(&key);
        } else {
            self.out.push_str(raw);
        }
        let colon = self.next_token();
        if self.stands(colon, ':') {
            self.at = colon + 1;
        }
    }

    /// A block list; `above` is where the keys of the map stand that it is a value of.
    fn list(&mut self, items: &[Node], indent: usize, beside: bool, above: Option<usize>) {
        let old = self.column(self.next_token());
        for (index, item) in items.iter().enumerate() {
            let dash = self.next_token();
            self.comments_before(dash, indent);
            if index == 0 && beside && !self.commented {
                self.out.push(' ');
            } else {
                self.start_line(dash, indent);
            }
            self.out.push('-');
            self.at = dash + 1;
            self.value(item, indent, None);
        }
        // A list may stand below its key: what stands there too may be about the next key.
        self.last_comments(old + usize::from(above == Some(old)), indent);
    }

    /// What stands behind a key, where `above` says where the keys stand, or behind a dash.
    fn value(&mut self, node: &Node, indent: usize, above: Option<usize>) {
        let behind_dash = above.is_none();
        let start = self.next_token();
        match &node.kind {
            NodeKind::Scalar(scalar) if matches!(scalar.style, Style::Literal | Style::Folded) => {
                self.go_on(start, indent + STEP);
                self.block(scalar, indent);
            }
            NodeKind::Scalar(_) if node.range.bytes().is_empty() => {}
            NodeKind::Scalar(scalar) => {
                self.go_on(start, indent + STEP);
                self.scalar(node.range, scalar, indent + STEP);
            }
            NodeKind::Map(map) if !map.flow => self.map(map, indent + STEP, behind_dash),
            NodeKind::List(items) if !self.stands(start, '[') => {
                self.list(items, indent + STEP, behind_dash, above);
            }
            NodeKind::Map(_) | NodeKind::List(_) => {
                let own_line = self.go_on(start, indent + STEP);
                let deeper = own_line || behind_dash;
                self.flow(node, if deeper { indent + STEP } else { indent });
            }
        }
    }

    /// A text that may go over several lines.
    pub(super) fn scalar(&mut self, range: Range, scalar: &Scalar, indent: usize) {
        let raw = self.slice(range);
        self.at = range.end as usize;
        if says_nothing(scalar) {
            self.out.push_str(&scalar.text);
            return;
        }
        if raw == "?" {
            self.out.push_str(&quoted(raw));
            return;
        }
        for (index, line) in raw.split('\n').enumerate() {
            let line = if index == 0 {
                line
            } else {
                self.out.push('\n');
                line.trim_start_matches([' ', '\t'])
            };
            let mut kept = line.trim_end_matches([' ', '\t']);
            let escapes = kept.len() - kept.trim_end_matches('\\').len();
            if scalar.style == Style::DoubleQuoted && escapes % 2 == 1 && kept.len() < line.len() {
                // A space that is escaped.
                kept = line.get(..=kept.len()).unwrap_or(line);
            }
            if index > 0 && !kept.is_empty() {
                self.indent(indent);
            }
            self.out.push_str(kept);
        }
    }

    /// The head of a block text: `|-`.
    fn head(&self, start: usize) -> &'a str {
        let rest = self.text.get(start..).unwrap_or("");
        let end = rest.find(|c: char| !matches!(c, '|' | '>' | '+' | '-' | '0'..='9'));
        rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest)
    }

    /// A block text below a key or a dash in this column. Its lines stay as they are.
    fn block(&mut self, scalar: &Scalar, indent: usize) {
        let start = self.next_token();
        let head = self.head(start);
        self.at = start + head.len();
        let head = head.replace(|c: char| c.is_ascii_digit(), &STEP.to_string());
        self.out.push_str(&head);
        let first = self
            .text
            .get(self.at..)
            .and_then(|rest| rest.find('\n'))
            .map_or(self.text.len(), |end| self.at + end + 1);
        self.comments_before(first, indent + STEP);
        self.out.push('\n');
        self.fresh = true;
        self.commented = false;
        self.lines(scalar, first, indent + STEP, head.contains('+'));
    }

    /// The lines of a block text that begins there; `keep` those that are empty at its end.
    fn lines(&mut self, scalar: &Scalar, first: usize, indent: usize, keep: bool) {
        let spaces = |line: &str| line.len() - line.trim_start_matches(' ').len();
        let raw = self.text.get(first..).unwrap_or("");
        let lines = || {
            raw.split_inclusive('\n')
                .map(|line| line.trim_end_matches('\n'))
        };
        // How deep the text stands shows in its first line that is not empty.
        let written = scalar
            .text
            .split('\n')
            .enumerate()
            .find(|(_, line)| !line.is_empty());
        let old = written.and_then(|(index, line)| {
            let raw = lines().nth(index)?;
            spaces(raw).checked_sub(spaces(line))
        });
        let mut empty = 0;
        let mut at = first;
        for line in lines() {
            let end = at + line.len();
            let blank = line.chars().all(|c| c == ' ') && old.is_none_or(|old| line.len() <= old);
            if blank {
                if keep && old.is_none() && empty >= scalar.text.len() {
                    break;
                }
                empty += 1;
                if keep {
                    self.at = end;
                }
            } else {
                let Some(old) = old.filter(|old| spaces(line) >= *old) else {
                    break;
                };
                self.out.extend(std::iter::repeat_n('\n', empty));
                empty = 0;
                self.indent(indent);
                self.out.push_str(line.get(old..).unwrap_or(""));
                self.out.push('\n');
                self.at = end;
            }
            at = end + 1;
        }
        if keep {
            // As many as were read: spaces at the end of a file may be a line or none.
            let text = &*scalar.text;
            let ends = text.len() - text.trim_end_matches('\n').len();
            let own = usize::from(written.is_some());
            self.out
                .extend(std::iter::repeat_n('\n', ends.saturating_sub(own)));
        }
    }
}
