//! Who runs this process: the account of the operating system, and the name that it claims.
use nix::unistd::{Uid, User, gethostname};
use std::sync::OnceLock;
use windlass_engine::step::Account;

/// The account of the operating system, asked once: a directory service may be slow.
pub(crate) fn ours() -> &'static Account {
    static OURS: OnceLock<Account> = OnceLock::new();
    OURS.get_or_init(account)
}

/// The name that is claimed, or that of the account.
pub(crate) fn name(claimed: Option<&str>) -> &str {
    claimed
        .filter(|name| !name.is_empty())
        .unwrap_or(&ours().name)
}

fn account() -> Account {
    let uid = Uid::current();
    let name = match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid-{uid}"),
    };
    let host = gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".to_owned());
    Account {
        name,
        uid: uid.as_raw(),
        host,
    }
}
