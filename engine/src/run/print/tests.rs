use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
}

fn who() -> Who {
    Who {
        node: "dump".into(),
        phase: Phase::Do,
        attempt: 1,
    }
}

/// A journal's table, as the batches leave it.
#[derive(Default)]
struct Table {
    rows: BTreeMap<u64, Printed>,
    next: u64,
}

impl Table {
    fn write(&mut self, kept: &mut Kept) {
        let mut prints = Prints::default();
        kept.write(&who(), &mut self.next, at(0), &mut prints);
        self.take(prints);
    }

    fn take(&mut self, prints: Prints) {
        for no in prints.forget {
            assert!(self.rows.remove(&no).is_some(), "{no} was never written");
        }
        for one in prints.keep {
            self.rows.insert(one.no, one);
        }
    }

    fn text(&self) -> String {
        self.rows.values().map(|one| one.text.as_str()).collect()
    }

    fn cut(&self) -> u64 {
        self.rows.values().map(|one| one.cut).sum()
    }
}

const SECRETS: [&str; 3] = [
    "hunter2-and-more",
    "p%40ss word/+9",
    "Zm9v-secret-of-two\nlines-of-it",
];

fn chunks() -> impl Strategy<Value = Vec<(Stream, String)>> {
    let text = prop_oneof![
        4 => "[a-z ]{0,30}",
        2 => "[a-z]{0,8}\n",
        1 => Just("\r".to_owned()),
        2 => prop::sample::select(SECRETS.to_vec()).prop_map(str::to_owned),
        1 => prop::sample::select(SECRETS.to_vec()).prop_map(|s| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(s)
        }),
    ];
    let stream = prop::sample::select(vec![Stream::Stdout, Stream::Stderr]);
    prop::collection::vec((stream, text), 0..30)
}

proptest! {
    /// However a text is parted by reads and by batches, no secret gets through, and nothing but secrets is changed.
    #[test]
    fn no_secret_gets_through(
        said in chunks(),
        sizes in prop::collection::vec(1_usize..40, 1..60),
        takes in prop::collection::vec(prop::bool::weighted(0.3), 1..60),
    ) {
        let redactor = Redactor::default();
        for (n, secret) in SECRETS.iter().enumerate() {
            redactor.learn(&format!("s{n}"), secret);
        }
        let mut source = Source::default();
        let mut by_stream: BTreeMap<Stream, String> = BTreeMap::new();
        let mut takes = takes.into_iter().cycle();
        let mut sizes = sizes.into_iter().cycle();
        for (stream, text) in said {
            by_stream.entry(stream).or_default().push_str(&text);
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let end = rest.ceil_char_boundary(sizes.next().unwrap().min(rest.len()));
                let (now, later) = rest.split_at(end);
                source.raw.push(stream, now, at(0), &redactor);
                rest = later;
                if takes.next().unwrap() {
                    source.clean(Take::Busy, &redactor, false);
                }
            }
        }
        source.clean(Take::End, &redactor, false);
        let mut table = Table::default();
        table.write(&mut source.kept);
        for (stream, whole) in by_stream {
            let kept: String = table.rows.values().filter(|one| one.stream == stream).map(|one| one.text.as_str()).collect();
            for secret in SECRETS {
                for line in secret.lines() {
                    prop_assert!(!kept.contains(line), "{kept:?} holds {line:?}");
                }
            }
            if redactor.text(&whole) == whole {
                prop_assert_eq!(kept, whole);
            }
        }
    }

    /// Of any sequence of pieces, written at any time, the journal holds the beginning and the end in their order, within the
    /// cap, and says exactly how much is missing.
    #[test]
    fn beginning_and_end_are_kept(
        sizes in prop::collection::vec((1_usize..=PIECE, prop::bool::weighted(0.4)), 0..120),
    ) {
        let mut kept = Kept::default();
        let mut table = Table::default();
        let mut whole = String::new();
        for (n, (size, write)) in sizes.into_iter().enumerate() {
            let line = format!("{n:>width$}", width = size);
            whole.push_str(&line);
            kept.push(Piece { stream: Stream::Stdout, at: at(0), text: line }, false);
            if write {
                table.write(&mut kept);
                prop_assert!(table.text().len() <= HEAD + TAIL);
            }
        }
        kept.end(false);
        table.write(&mut kept);
        let text = table.text();
        prop_assert_eq!(text.len() as u64 + table.cut(), whole.len() as u64);
        let cut_at: usize = table.rows.values().take_while(|one| one.cut == 0).map(|one| one.text.len()).sum();
        let (head, tail) = text.split_at(cut_at.min(text.len()));
        prop_assert!(whole.starts_with(head) && whole.ends_with(tail));
        if whole.len() <= HEAD + TAIL - PIECE {
            prop_assert_eq!(table.cut(), 0);
        }
    }
}

/// Beyond the run's cap nothing is kept of what succeeds, and the last lines of what fails.
#[test]
fn a_full_run_keeps_the_last_lines_of_failures() {
    for failed in [false, true] {
        let mut kept = Kept::default();
        for n in 0..1_000 {
            let text = format!("line {n}\n");
            let stream = Stream::Stderr;
            kept.push(
                Piece {
                    stream,
                    at: at(n),
                    text,
                },
                true,
            );
        }
        kept.end(failed);
        let mut table = Table::default();
        table.write(&mut kept);
        assert_eq!(table.text().contains("line 999\n"), failed);
        assert!(table.text().len() <= LAST);
        let all: u64 = (0..1_000).map(|n| format!("line {n}\n").len() as u64).sum();
        assert_eq!(table.cut() + table.text().len() as u64, all);
    }
}

const LONG: &str = "k3Jx9/Qz7+PwLm2vB8nYt5RcHd4sGf6aEu1iOo0TqWjXyZbNrMlKpVhC\
     gFeDdSsAa-2q3w4e5r6t7y8u9i0o_PzXcVbNm.LkJhGfDsAqWeRtYuIoP0123456";

/// A secret that a program wraps is found however its lines come: with pauses, between lines of another stream, the last without
/// its end.
#[test]
fn a_wrapped_secret_does_not_get_through() {
    let redactor = Redactor::default();
    redactor.learn("pw", LONG);
    for width in [16, 40, 64, 76, 119] {
        for end in ["\n", "\r\n"] {
            for take in [Take::Busy, Take::Quiet] {
                for (before, last) in [
                    ("", ""),
                    ("", end),
                    ("pw: ", ""),
                    ("the password is: ", end),
                ] {
                    let said = format!("{before}{LONG}");
                    let lines: Vec<String> = said
                        .as_bytes()
                        .chunks(width)
                        .map(|line| String::from_utf8_lossy(line).into_owned())
                        .collect();
                    let mut source = Source::default();
                    for (n, line) in lines.iter().enumerate() {
                        let end = if n + 1 < lines.len() { end } else { last };
                        source
                            .raw
                            .push(Stream::Stdout, &format!("{line}{end}"), at(0), &redactor);
                        source
                            .raw
                            .push(Stream::Stderr, "another\n", at(0), &redactor);
                        source.clean(take, &redactor, false);
                    }
                    source.clean(Take::End, &redactor, false);
                    let mut table = Table::default();
                    table.write(&mut source.kept);
                    let text = table.text().replace("another\n", "");
                    for line in LONG.as_bytes().windows(8) {
                        let line = std::str::from_utf8(line).unwrap();
                        assert!(!text.contains(line), "{width} {take:?}: {text:?}");
                    }
                    assert_eq!(table.text().matches("another\n").count(), lines.len());
                }
            }
        }
    }
}

/// What is held back comes once nothing more does.
#[test]
fn what_only_looks_like_a_secret_is_held_for_a_while() {
    let redactor = Redactor::default();
    redactor.learn("pw", LONG);
    let mut source = Source::default();
    let said = format!("begun\n{}\n", LONG.get(..10).unwrap());
    source.raw.push(Stream::Stdout, &said, at(0), &redactor);
    let mut table = Table::default();
    for (ms, kept) in [(10, ""), (1_000, "begun\n"), (20_000, said.as_str())] {
        source.clean(source.raw.due(at(ms)), &redactor, false);
        table.write(&mut source.kept);
        assert_eq!(table.text(), kept, "after {ms} ms");
    }
    assert!(source.raw.is_empty());
}

/// A program that prints for hours uses of the run's cap what is kept of it, also for a process that takes the run over.
#[test]
fn the_cap_of_a_run_counts_what_is_kept() {
    let redactor = Redactor::default();
    let mut sources = HashMap::from([(who(), Source::default())]);
    let mut writing = Writing::default();
    let mut table = Table::default();
    let line = format!("{}\n", "x".repeat(999));
    let mut round = |sources: &mut HashMap<Who, Source>, ended: Option<(&Who, bool)>| {
        let Batch {
            prints,
            added,
            freed,
        } = writing.gather(sources, ended, at(0), &redactor);
        table.take(prints);
        writing.wrote(added, freed);
        assert_eq!(writing.bytes, table.text().len() as u64);
        assert!(table.text().len() <= HEAD + TAIL + 15);
        table.text()
    };
    for _ in 0..1_000 {
        for _ in 0..250 {
            let source = sources.get_mut(&who()).unwrap();
            source
                .raw
                .push(Stream::Stdout, &line, at(-60_000), &redactor);
        }
        round(&mut sources, None);
    }
    round(&mut sources, Some((&who(), false)));
    let later = Who {
        node: "later".into(),
        ..who()
    };
    let mut source = Source::default();
    source
        .raw
        .push(Stream::Stdout, "fifteen bytes.\n", at(0), &redactor);
    sources.insert(later.clone(), source);
    assert!(round(&mut sources, Some((&later, false))).ends_with("fifteen bytes.\n"));
}
