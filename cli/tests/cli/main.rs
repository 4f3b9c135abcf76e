//! The real binary in a folder of its own: what it prints, with which code it ends, what it leaves behind.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails; how long a process takes is read from outside of it"
)]
mod approvals;
mod common;
mod crash;
mod doctor;
mod exits;
mod fmt;
mod http;
mod journal;
mod operator;
mod pages;
mod report;
mod run;
mod said;
mod secrets;
mod sharing;
mod shown;
mod terminal;
mod validate;
mod votes;
