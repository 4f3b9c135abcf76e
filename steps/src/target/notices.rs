//! What a PostgreSQL server tells beside its answers. Its driver only passes it on as an event of `tracing`, in the task that
//! speaks to the server, which is the step's.
use std::{fmt, sync::Once};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};
use windlass_engine::step::{Stream, overheard};

/// The name under which the driver tells them.
const TARGET: &str = "sqlx::postgres::notice";

/// From now on notices are kept for `windlass logs`, unless the process listens to `tracing` in another way.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    // One who came first stays: then there are no notices, and nothing else is missing.
    ONCE.call_once(|| drop(tracing::subscriber::set_global_default(Notices)));
}

/// The driver's level for a severity of the server; its debug messages are not kept.
fn severity(level: Level) -> Option<&'static str> {
    match level {
        Level::ERROR => Some("ERROR"),
        Level::WARN => Some("WARNING"),
        Level::INFO => Some("NOTICE"),
        Level::TRACE => Some("INFO"),
        _ => None,
    }
}

struct Notices;

impl Subscriber for Notices {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && severity(*metadata.level()).is_some()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(severity) = severity(*event.metadata().level()) else {
            return;
        };
        let mut message = Message(String::new());
        event.record(&mut message);
        overheard(Stream::Notice, &format!("{severity}: {}\n", message.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
