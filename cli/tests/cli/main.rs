//! The real binary in a folder of its own: what it prints, with which code it ends, what it leaves behind.
mod approvals;
mod common;
mod crash;
mod operator;
mod pages;
mod run;
mod validate;
