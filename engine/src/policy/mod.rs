//! What a run must respect before it starts. Locks live in the journal.
pub mod windows;
