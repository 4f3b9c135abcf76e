//! What a run leaves for those who were not there: its events as a report.
//!
//! [`Report::new`] gathers it from the events; it is written as JSON, as Markdown for a ticket, and as one page that
//! needs nothing else. Instants and events in words are shared with whoever shows a run while it goes on.
pub mod figures;
mod gather;
mod graph;
mod html;
pub mod human;
mod markdown;
mod masks;
mod model;
pub mod output;
mod page;
pub mod progress;
pub mod standing;
mod teller;
pub mod words;

pub use model::*;
pub use teller::Aside;

/// JSON Schema of a report in JSON (`schemas/report.schema.json`).
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::generate::SchemaSettings::default()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Report>()
        .to_value()
}
