//! A client that stays connected.
use std::{
    io::{BufRead, BufReader, PipeReader, Write},
    process::{Child, ChildStdin},
};

/// One open connection of `psql`: it can hold a transaction, and with it locks, while a test goes on.
#[derive(Debug)]
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<PipeReader>,
}

/// What ends the answer to one piece of SQL.
const MARK: &str = "--answered--";

impl Session {
    pub(super) fn new(mut child: Child, output: PipeReader) -> Self {
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(output),
            child,
        }
    }

    /// Sends SQL, and waits until it is through.
    ///
    /// # Panics
    /// Where the client has ended.
    pub fn run(&mut self, sql: &str) {
        drop(self.ask(sql));
    }

    /// Sends SQL, and waits for its answer: rows as lines, a tab between fields. Errors are in it.
    ///
    /// # Panics
    /// Where the client has ended.
    pub fn ask(&mut self, sql: &str) -> String {
        self.send(sql);
        self.answer()
    }

    /// Sends SQL, and does not wait.
    ///
    /// # Panics
    /// Where the client has ended.
    pub fn send(&mut self, sql: &str) {
        writeln!(self.input, "{sql};\n\\echo {MARK}").unwrap();
        self.input.flush().unwrap();
    }

    /// The answer to what was sent.
    ///
    /// # Panics
    /// Where the client has ended.
    pub fn answer(&mut self) -> String {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "psql has ended: {}", lines.join("\n"));
            match line.trim_end() {
                MARK => return lines.join("\n"),
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// The server's process for it.
    ///
    /// # Panics
    /// Where the client has ended.
    #[must_use]
    pub fn backend(&mut self) -> u32 {
        self.ask("SELECT pg_backend_pid()").parse().unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
