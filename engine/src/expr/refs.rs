//! Which names an expression reads, and which of its reads are guarded.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the walk looks for few shapes of tokens"
)]
use super::{
    Reference,
    lex::{Kind, Token},
};

/// The references of an expression, in the order of the source.
pub(super) fn references(tokens: &[Token<'_>]) -> Vec<Reference> {
    let mut walk = Walk {
        tokens,
        close: closing(tokens),
        locals: Vec::new(),
        found: Vec::new(),
    };
    walk.group(0, tokens.len(), &[]);
    walk.found.sort_by_key(|reference| reference.offset);
    walk.found
}

/// For each opening bracket the index of its closing one.
fn closing(tokens: &[Token<'_>]) -> Vec<usize> {
    let mut close = vec![0; tokens.len()];
    let mut open = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        if is_open(token) {
            open.push(i);
        } else if is_close(token)
            && let Some(from) = open.pop()
        {
            close[from] = i;
        }
    }
    for from in open {
        close[from] = tokens.len();
    }
    close
}

fn is_open(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Op("(" | "[" | "{" | "?[" | "#{"))
}

fn is_close(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Op(")" | "]" | "}"))
}

/// A test of a step's state: what holds of the step's output where the test is true, and where it is false.
struct Test<'a> {
    step: &'a str,
    when_true: bool,
    when_false: bool,
}

struct Walk<'t, 'a> {
    tokens: &'t [Token<'a>],
    close: Vec<usize>,
    /// Parameters of the closures around the place.
    locals: Vec<&'a str>,
    found: Vec<Reference>,
}

type Facts<'t> = [&'t str];

impl<'t, 'a> Walk<'t, 'a> {
    /// Indexes in `lo..hi` that are not inside brackets of that range.
    fn top(&self, lo: usize, hi: usize) -> Vec<usize> {
        let mut all = Vec::new();
        let mut i = lo;
        while i < hi {
            all.push(i);
            i = if is_open(&self.tokens[i]) {
                self.close[i].max(i) + 1
            } else {
                i + 1
            };
        }
        all
    }

    fn split(&self, lo: usize, hi: usize, op: &str) -> Vec<(usize, usize)> {
        let mut parts = Vec::new();
        let mut from = lo;
        for i in self.top(lo, hi) {
            if self.tokens[i].is(op) && i > lo && self.tokens[i - 1].ends_operand() {
                parts.push((from, i));
                from = i + 1;
            }
        }
        parts.push((from, hi));
        parts
    }

    /// Comma-separated parts; a closure's parameters hold no top-level comma that matters, since `|` opens first.
    fn group(&mut self, lo: usize, hi: usize, facts: &Facts<'t>) {
        let mut from = lo;
        let mut in_params = false;
        let mut cuts = Vec::new();
        for i in self.top(lo, hi) {
            let token = &self.tokens[i];
            if token.is("|") {
                in_params = !in_params;
            } else if token.is(",") && !in_params {
                cuts.push((from, i));
                from = i + 1;
            }
        }
        cuts.push((from, hi));
        for (lo, hi) in cuts {
            self.term(lo, hi, facts);
        }
    }

    fn term(&mut self, lo: usize, hi: usize, facts: &Facts<'t>) {
        let special = self.top(lo, hi).into_iter().find(|&i| {
            let token = &self.tokens[i];
            token.is("|")
                || token.is_word("if")
                || (token.is("||") && (i == lo || !self.tokens[i - 1].ends_operand()))
        });
        let Some(at) = special else {
            return self.or_chain(lo, hi, facts);
        };
        // What stands before in the same chain guards what stands in the closure or the branches.
        self.or_chain(lo, at, facts);
        if self.tokens[at].is_word("if") {
            return self.branch(at, hi, facts);
        }
        let known = self.locals.len();
        let mut body = at + 1;
        if self.tokens[at].is("|") {
            while body < hi && !self.tokens[body].is("|") {
                if let Kind::Word(name) = self.tokens[body].kind {
                    self.locals.push(name);
                }
                body += 1;
            }
            body += 1;
        }
        self.term(body.min(hi), hi, facts);
        self.locals.truncate(known);
    }

    /// `if condition { … } else { … }`, and what follows it.
    fn branch(&mut self, at: usize, hi: usize, facts: &Facts<'t>) {
        let Some(open) = self
            .top(at + 1, hi)
            .into_iter()
            .find(|&i| self.tokens[i].is("{"))
        else {
            return self.or_chain(at + 1, hi, facts);
        };
        self.term(at + 1, open, facts);
        let tests = self.tests(at + 1, open);
        let sole = self.split(at + 1, open, "&&").len() == 1;
        let end = self.close[open].min(hi);
        let with = |when: fn(&Test<'t>) -> bool| -> Vec<&'t str> {
            facts
                .iter()
                .copied()
                .chain(tests.iter().filter(|test| when(test)).map(|test| test.step))
                .collect()
        };
        self.group(open + 1, end, &with(|test| test.when_true));
        let otherwise = if sole {
            with(|test| test.when_false)
        } else {
            facts.to_vec()
        };
        let mut next = end + 1;
        if next < hi && self.tokens[next].is_word("else") {
            next += 1;
            if next < hi && self.tokens[next].is_word("if") {
                return self.branch(next, hi, &otherwise);
            }
            if next < hi && self.tokens[next].is("{") {
                let end = self.close[next].min(hi);
                self.group(next + 1, end, &otherwise);
                next = end + 1;
            }
        }
        if next < hi {
            self.term(next, hi, facts);
        }
    }

    fn or_chain(&mut self, lo: usize, hi: usize, facts: &Facts<'t>) {
        let mut known = facts.to_vec();
        for (lo, hi) in self.split(lo, hi, "||") {
            let factors = self.split(lo, hi, "&&");
            let sole = factors.len() == 1;
            let mut inner = known.clone();
            for (lo, hi) in factors {
                self.factor(lo, hi, &inner);
                for test in self.tests(lo, hi) {
                    if test.when_true {
                        inner.push(test.step);
                    }
                    if sole && test.when_false {
                        known.push(test.step);
                    }
                }
            }
        }
    }

    fn factor(&mut self, lo: usize, hi: usize, facts: &Facts<'t>) {
        for i in self.top(lo, hi) {
            let token = &self.tokens[i];
            if is_open(token) {
                self.group(i + 1, self.close[i].min(hi), facts);
            } else if let Kind::Word(word) = token.kind {
                self.word(i, word, facts);
            }
        }
    }

    fn word(&mut self, i: usize, word: &'a str, facts: &Facts<'t>) {
        let after_dot = i > 0 && (self.tokens[i - 1].is(".") || self.tokens[i - 1].is("?."));
        let next = self.tokens.get(i + 1);
        let called = next.is_some_and(|token| token.is("("));
        let key = next.is_some_and(|token| token.is(":"));
        let keyword = matches!(word, "true" | "false" | "null" | "if" | "else" | "in");
        if after_dot || called || key || keyword || self.locals.contains(&word) {
            return;
        }
        let mut reference = Reference {
            root: word.to_owned(),
            path: Vec::new(),
            dynamic: false,
            guarded: false,
            offset: self.tokens[i].start,
        };
        let steps = word == "steps";
        let mut at = i + 1;
        while let Some((member, optional, next)) = self.member(at) {
            // `?.` before the step's id guards nothing: the step is there, its output may not be.
            reference.guarded |= optional && (!steps || !reference.path.is_empty());
            match member {
                Some(member) => reference.path.push(member),
                None => {
                    reference.dynamic = true;
                    break;
                }
            }
            at = next;
        }
        if steps && let Some(step) = reference.path.first() {
            reference.guarded |= facts.contains(&step.as_str());
        }
        self.found.push(reference);
    }

    /// The member read at `at`: its name (`None` where it is computed), whether by `?`, and what follows.
    fn member(&self, at: usize) -> Option<(Option<String>, bool, usize)> {
        let token = self.tokens.get(at)?;
        match token.kind {
            Kind::Op(op @ ("." | "?.")) => match self.tokens.get(at + 1)?.kind {
                Kind::Word(name) if !self.tokens.get(at + 2).is_some_and(|t| t.is("(")) => {
                    Some((Some(name.to_owned()), op == "?.", at + 2))
                }
                _ => None,
            },
            Kind::Op(op @ ("[" | "?[")) => {
                let end = self.close[at];
                let name = match (&self.tokens.get(at + 1)?.kind, end == at + 2) {
                    (Kind::Text(text), true) => Some(text.clone()),
                    (Kind::Number(number), true) => Some((*number).to_owned()),
                    _ => None,
                };
                Some((name, op == "?[", end + 1))
            }
            _ => None,
        }
    }

    /// Tests of step states in a factor; none where an `||` or a `!` makes their truth unclear.
    fn tests(&self, lo: usize, hi: usize) -> Vec<Test<'t>> {
        let range = &self.tokens[lo.min(hi)..hi];
        if range
            .iter()
            .any(|token| token.is("||") || token.is("!") || token.is("|") || token.is_word("if"))
        {
            return Vec::new();
        }
        let mut all = Vec::new();
        for i in lo..hi {
            if !self.tokens[i].is_word("steps") {
                continue;
            }
            let Some((step, after)) = self.state_read(i) else {
                continue;
            };
            let compared = |op: usize, value: usize| -> Option<(bool, bool)> {
                let equal = match self.tokens.get(op)?.kind {
                    Kind::Op("==") => true,
                    Kind::Op("!=") => false,
                    _ => return None,
                };
                match &self.tokens.get(value)?.kind {
                    Kind::Text(state) => Some((equal, state == "succeeded")),
                    _ => None,
                }
            };
            let backwards = || i.checked_sub(2).and_then(|value| compared(i - 1, value));
            if let Some((equal, succeeded)) = compared(after, after + 1).or_else(backwards) {
                let skipped_named = equal && self.names_skipped(i, after);
                all.push(Test {
                    step,
                    when_true: if equal { !skipped_named } else { !succeeded },
                    when_false: equal != succeeded,
                });
            }
        }
        all
    }

    fn names_skipped(&self, i: usize, after: usize) -> bool {
        [Some(after + 1), i.checked_sub(2)]
            .into_iter()
            .flatten()
            .filter_map(|at| self.tokens.get(at))
            .any(|token| matches!(&token.kind, Kind::Text(state) if state == "skipped"))
    }

    /// The step of `steps.ID.state` at `i`, and what follows it.
    fn state_read(&self, i: usize) -> Option<(&'t str, usize)> {
        let (at, step): (usize, &'t str) =
            match (&self.tokens.get(i + 1)?.kind, &self.tokens.get(i + 2)?.kind) {
                (Kind::Op("." | "?."), Kind::Word(step)) => (i + 3, step),
                (Kind::Op("[" | "?["), Kind::Text(step)) => (i + 4, step.as_str()),
                _ => return None,
            };
        let dot = self.tokens.get(at)?;
        ((dot.is(".") || dot.is("?.")) && self.tokens.get(at + 1)?.is_word("state"))
            .then_some((step, at + 2))
    }
}
