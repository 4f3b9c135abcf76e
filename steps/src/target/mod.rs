//! Connections; one file a database.
pub mod sqlite;
