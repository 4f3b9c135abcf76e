//! What keeps the content of secrets inside this process.
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::{Arc, LazyLock};
use windlass_engine::secret::Redactor;

/// Knows every secret that this process has fetched; all that it prints passes it.
static REDACTOR: LazyLock<Arc<Redactor>> = LazyLock::new(Arc::default);

/// The one redactor of this process.
pub(crate) fn redactor() -> &'static Arc<Redactor> {
    &REDACTOR
}

/// A crash leaves no core file, and no other process of the same user may read this one's memory or environment.
///
/// Where the system refuses, nothing is lost but the protection: it is no reason not to run.
pub(crate) fn close_memory() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        setrlimit(Resource::RLIMIT_CORE, 0, hard).ok();
    }
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false).ok();
}
