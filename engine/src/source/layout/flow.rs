//! Maps and lists in braces and brackets.
use super::{
    super::{Entry, Node, NodeKind, Range},
    STEP,
    write::Writer,
};

/// A part of a map or a list in braces.
enum Part<'n> {
    Entry(&'n Entry),
    Item(&'n Node),
}

impl Writer<'_> {
    /// In one line where it stands in one line, else a line for each part; `indent` is that of the line where it begins.
    pub(super) fn flow(&mut self, node: &Node, indent: usize) {
        let (parts, signs, pad): (Vec<Part<'_>>, [char; 2], &str) = match &node.kind {
            NodeKind::Map(map) => (
                map.entries.iter().map(Part::Entry).collect(),
                ['{', '}'],
                " ",
            ),
            NodeKind::List(items) => (items.iter().map(Part::Item).collect(), ['[', ']'], ""),
            NodeKind::Scalar(_) => return,
        };
        let is_wide = self.is_wide(node.range);
        let start = self.next_token();
        // A pair in a list may stand without braces.
        let braces = self.stands(start, signs[0]);
        if braces {
            self.at = start + 1;
        }
        self.out.push(signs[0]);
        for (index, part) in parts.iter().enumerate() {
            let start = self.next_token();
            if is_wide {
                self.comments_before(start, indent + STEP);
                self.start_line(start, indent + STEP);
            } else if index == 0 {
                self.out.push_str(pad);
            }
            match part {
                Part::Item(item) => self.part(item, indent + STEP),
                Part::Entry(entry) => self.entry(entry, indent + STEP),
            }
            if index + 1 < parts.len() {
                self.out.push_str(if is_wide { "," } else { ", " });
            }
            let comma = self.next_token();
            if braces && self.stands(comma, ',') {
                self.at = comma + 1;
            }
        }
        let end = self.next_token();
        if is_wide {
            self.comments_before(end, indent + STEP);
            // No empty line before the end.
            self.at = end;
            self.start_line(end, indent);
        } else if !parts.is_empty() {
            self.out.push_str(pad);
        }
        self.out.push(signs[1]);
        if braces {
            self.at = end + 1;
        }
    }

    fn is_wide(&self, range: Range) -> bool {
        self.text
            .get(range.bytes())
            .is_some_and(|text| text.contains('\n'))
    }

    fn entry(&mut self, entry: &Entry, indent: usize) {
        self.key(entry);
        if entry.value.range.bytes().is_empty() {
            // A colon that belongs to the key would be read as the one behind it.
            if self.out.ends_with(':') {
                self.out.push(':');
            }
            return;
        }
        self.out.push(':');
        let own_line = self.go_on(self.next_token(), indent + STEP);
        self.part(&entry.value, if own_line { indent + STEP } else { indent });
    }

    fn part(&mut self, node: &Node, indent: usize) {
        match &node.kind {
            NodeKind::Scalar(scalar) => self.scalar(node.range, scalar, indent + STEP),
            NodeKind::Map(_) | NodeKind::List(_) => self.flow(node, indent),
        }
    }
}
