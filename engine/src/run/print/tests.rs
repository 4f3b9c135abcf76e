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
