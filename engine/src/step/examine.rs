//! What `windlass doctor` learns of a target. Reading only.
use super::{Failure, Identity};
use crate::value::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// Reads the time, so that an examination can say how long a server took.
pub type Now<'a> = &'a (dyn Fn() -> Timestamp + Send + Sync);

/// What a target looks like from here. What could not be learned is not there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Examination {
    /// Which server it is, where it could be reached.
    pub identity: Option<Identity>,
    /// How long it took to connect and to have a first answer.
    pub latency: Option<Duration>,
    /// How the connection is protected: `TLSv1.3, verified`, `off`. Not there where there is no network between.
    pub tls: Option<String>,
    /// As whom the connection acts, where the kind knows users.
    pub user: Option<String>,
    /// What it may do there: `reads and writes`, `reads only`.
    pub rights: Option<String>,
    /// Whether the ledger that the environment names stands.
    pub ledger: LedgerStanding,
    /// What is wrong, or will be.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// With a finding that makes the target unfit.
    pub fn problem(&mut self, failure: Failure) {
        self.findings.push(Finding {
            severity: Severity::Problem,
            failure,
        });
    }

    /// With a finding that a person should know.
    pub fn advice(&mut self, failure: Failure) {
        self.findings.push(Finding {
            severity: Severity::Advice,
            failure,
        });
    }

    /// Whether nothing makes the target unfit.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity == Severity::Advice)
    }
}

/// Whether a ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerStanding {
    /// The environment names none.
    #[default]
    NotNamed,
    /// It is not there yet.
    Missing,
    /// It is there, as this windlass writes it.
    Ready,
    /// Its name is taken by something that is no ledger.
    Wrong,
    /// The server could not be asked.
    Unknown,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Steps on this target would fail.
    Problem,
    /// Good to know.
    Advice,
}

/// Something that a person should know of a target, with what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is: its code, its sentence, its help.
    pub failure: Failure,
}

/// How a ledger would be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRecipe {
    /// The statements, as they would run in one transaction.
    pub ddl: String,
    /// The least rights that steps need on it, in words or statements; nothing of it is run.
    pub rights: String,
}
