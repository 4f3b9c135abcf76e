//! The engine of Windlass: the language and the machine. It knows no target database and no cloud.
//!
//! Modules import downward only; this is the order, lowest first.
//!
//! | module | what lives there |
//! |---|---|
//! | [`value`] | values, decimals, durations, sizes; their exact JSON form |
//! | [`diagnostic`] | what is wrong, where, what to do; a page for each code |
//! | [`source`] | YAML text → a tree with a span for every key and value |
//! | [`expr`] | rhai: parse, references, evaluate; templates |
//! | [`step`] | the contract with step kinds |
//! | [`graph`] | the compiled playbook |
//! | [`environment`] | `windlass.yaml`, and targets found in it |
//! | [`playbook`] | the document model of playbooks |
//! | [`policy`] | locks, windows |
//! | [`compile`] | document → graph and diagnostics |
//! | [`secret`] | references, providers, redaction |
//! | [`machine`] | events, state, apply, decide: pure |
//! | [`journal`] | where runs are written down |
//! | [`plan`] | the dry run |
//! | [`run`] | the driver: the only place that spawns and reads the clock |
//! | [`report`] | events → timeline |
pub mod compile;
pub mod diagnostic;
pub mod environment;
pub mod expr;
pub mod graph;
pub mod journal;
pub mod machine;
pub mod plan;
pub mod playbook;
pub mod policy;
pub mod report;
pub mod run;
pub mod secret;
pub mod source;
pub mod step;
pub mod value;
