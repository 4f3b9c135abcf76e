//! Who acts: the account of the operating system, and the name that a person gives beside it.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An account of the operating system, as the process that acts found it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    /// Its name; `uid-1234` if the system has no name for it.
    pub name: String,
    /// Its number on its host.
    pub uid: u32,
    /// The host.
    pub host: String,
}

impl Account {
    /// Whether both are one user. A number means something only on its own host; between hosts the name decides.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        if self.host == other.host {
            self.uid == other.uid
        } else {
            self.name == other.name
        }
    }
}

/// A name as people read it: `root`, or `ana (account root)` if `ana` is only what the account root calls itself.
#[must_use]
pub fn shown(name: &str, account: Option<&Account>) -> String {
    match account {
        Some(account) if account.name != name => format!("{name} (account {})", account.name),
        Some(_) | None => name.to_owned(),
    }
}

/// The longest name that may be claimed, in characters.
const LONGEST: usize = 64;

/// Checks a name that a person claims. What is printed beside the account must not be able to look like one, so
/// brackets, control characters and characters without a width are refused.
///
/// # Errors
/// What is wrong with it.
pub fn check_claimed(name: &str) -> Result<(), String> {
    let count = name.chars().count();
    if name.trim() != name || name.is_empty() {
        return Err("a name does not begin or end with a space".to_owned());
    }
    if count > LONGEST {
        return Err(format!(
            "a name has at most {LONGEST} characters, this one has {count}"
        ));
    }
    let allowed = |c: char| c.is_alphanumeric() || " ._-@+/\\:'".contains(c);
    match name.chars().find(|c| !allowed(*c)) {
        Some(wrong) => Err(format!(
            "a name holds letters, digits, spaces and . _ - @ + / \\ : ' only, not {:?}",
            wrong
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, uid: u32, host: &str) -> Account {
        Account {
            name: name.to_owned(),
            uid,
            host: host.to_owned(),
        }
    }

    #[test]
    fn a_number_counts_on_its_own_host_and_a_name_between_hosts() {
        let ana = account("ana", 1000, "a");
        assert!(ana.is(&account("toor", 1000, "a")), "two names of one uid");
        assert!(!ana.is(&account("ana", 1001, "a")));
        assert!(!ana.is(&account("bruno", 1000, "b")), "another's uid 1000");
        assert!(ana.is(&account("ana", 2000, "b")), "a shared directory");
    }

    #[test]
    fn a_claimed_name_is_shown_with_its_account() {
        let root = account("root", 0, "a");
        assert_eq!(shown("root", Some(&root)), "root");
        assert_eq!(shown("ana", Some(&root)), "ana (account root)");
        assert_eq!(shown("ana", None), "ana");
    }

    #[test]
    fn a_claimed_name_cannot_look_like_an_account() {
        for good in [
            "ana",
            "Ana Lima",
            "ci/job-17",
            "CORP\\ana",
            "ana@example.org",
            "Zoë",
            "O'Brien",
        ] {
            assert_eq!(check_claimed(good), Ok(()), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "",
            " ",
            " ana",
            "ana ",
            "root (account root)",
            "a\nb",
            "a\u{1b}[31m",
            "a\u{202e}b",
            "a\u{200b}b",
            "\u{feff}a",
            "a\0",
            "a\u{a0}b",
            "a;b",
            "<b>",
            long.as_str(),
        ] {
            assert!(check_claimed(bad).is_err(), "{bad:?}");
        }
    }
}
