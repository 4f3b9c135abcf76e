use crate::{
    step::{Cause, Examination, Failure, LedgerRecipe, LedgerStanding, Now},
    value::{Duration, Value},
};
use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// A target as the environment has it, ready for a connector. Secrets in it are still references.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The name in the playbook.
    pub name: String,
    /// `sqlite`, `postgres`, …
    pub kind: String,
    /// Where it is; text or a text with secrets in it.
    pub url: Value,
    /// `primary`, `standby`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Labels for `select`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
    /// The table that records which steps took effect, if the environment names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// All other keys of the environment (`connect_timeout`, `statement_timeout`, `tls`, …).
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub options: IndexMap<String, Value>,
    /// Where the server was when the run started, kept with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Targets that this one must never turn out to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
    /// Instances that this one must never turn out to be: those of [`Target::never`] as the run found them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<String>,
    /// Its name in the environment, if that is another: a member of a fleet is `fleet[2]` in the playbook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

impl Target {
    /// Whether two targets are written as one place. What a server says of itself when it is opened is compared too.
    #[must_use]
    pub fn is_written_as(&self, other: &Self) -> bool {
        let place = ["host", "port", "database"];
        self.url == other.url
            && place
                .iter()
                .all(|key| self.options.get(*key) == other.options.get(*key))
    }

    /// Its name, for people: `fleet[2] (us-1)`.
    #[must_use]
    pub fn called(&self) -> String {
        match &self.entry {
            Some(entry) => format!("{} ({entry})", self.name),
            None => self.name.clone(),
        }
    }

    /// Adds an instance to those that this one must never be, where it is known.
    pub(crate) fn avoid(&mut self, other: &Self) {
        if let Some(identity) = &other.identity {
            self.avoid.push(identity.instance.clone());
        }
    }
}

/// Which server a target really is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What tells this instance from every other (host and port, or the file's path); compared on resume.
    pub instance: String,
    /// What distinguishes this database cluster from every other (system identifier, device and inode), if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// `primary`, `standby`, if it has roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Which history of its cluster it is on, if known: each promotion begins the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// Server version, for people.
    pub version: String,
}

impl Identity {
    /// Why this is not the server that was known before; `None` if it is.
    #[must_use]
    pub fn differs(&self, target: &str, before: &Self) -> Option<Failure> {
        let system = |of: &Self| of.system.clone().unwrap_or_else(|| "unknown".to_owned());
        let what = if self.instance != before.instance {
            format!("it is {} now, and was {}", self.instance, before.instance)
        } else if self.system != before.system {
            format!(
                "{} has the system identifier {} now, and had {}",
                self.instance,
                system(self),
                system(before)
            )
        } else {
            return None;
        };
        Some(
            Failure::new(
                Self::CHANGED,
                format!("target {target} is another server than the one that the run knows: {what}; nothing was done there"),
            )
            .cause(Cause::Refused)
            .help("point the target back at the server that the run knows, then retry"),
        )
    }

    /// The code of a failure of a target that is another server now.
    pub const CHANGED: &'static str = "target.changed";

    /// The promotion between two sights of a target. A standby tells its timeline late, so only a primary is believed.
    #[must_use]
    pub fn promoted_since(&self, before: &Self) -> Option<(u32, u32)> {
        let is_primary = self.role.as_deref() == Some("primary");
        before
            .timeline
            .zip(self.timeline)
            .filter(|(from, to)| is_primary && from != to)
    }
}

/// What a server does for one step of a run at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// The step's path, as far as the server keeps it.
    pub node: String,
    /// Whether the path may be cut.
    pub is_cut: bool,
    /// The session: `backend 4711`.
    pub session: String,
    /// What the server calls its state.
    pub state: String,
    /// What it waits for, in the server's words.
    pub waits_for: Option<String>,
    /// For how long its statement runs.
    pub since: Duration,
    /// The statement, cut.
    pub statement: String,
    /// The sessions that hold it up.
    pub blockers: Vec<Blocker>,
}

/// A session that holds up another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// The session: `backend 4711`.
    pub session: String,
    /// User, application, and where it comes from.
    pub who: String,
    /// What the server calls its state.
    pub state: String,
    /// How old its transaction is.
    pub since: Duration,
    /// Its last statement, cut.
    pub statement: String,
    /// What would end it, said to the server.
    pub end: String,
}

/// The sessions that an earlier process of a run may have left on a target, by the steps that they ran.
#[derive(Debug, Clone, Copy)]
pub struct LeftSessions<'a> {
    /// The run.
    pub short_id: &'a str,
    /// The steps whose sessions end.
    pub ended: &'a [&'a str],
    /// The steps whose sessions are left alone, also where a server cannot tell them from one that ends.
    pub spared: &'a [&'a str],
}

/// A kind of target: how to ask a server who it is. Reads only.
pub trait TargetKind: Send + Sync + 'static {
    /// `sqlite`.
    fn name(&self) -> &'static str;
    /// Connects, asks, disconnects.
    ///
    /// # Errors
    /// Where the server cannot be reached; the text never holds a secret.
    fn identify<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
    ) -> BoxFuture<'a, Result<Identity, Failure>>;

    /// All that `windlass doctor` tells of a target: is it there, who is it, may it be used. Reads only, and what is
    /// wrong is a finding, never an error.
    fn examine<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        now: Now<'a>,
    ) -> BoxFuture<'a, Examination> {
        Box::pin(async move {
            let began = now();
            let mut seen = Examination {
                ledger: match target.ledger {
                    Some(_) => LedgerStanding::Unknown,
                    None => LedgerStanding::NotNamed,
                },
                ..Examination::default()
            };
            match self.identify(target, url).await {
                Ok(identity) => {
                    seen.latency = Some(Duration::between(began, now()));
                    seen.identity = Some(identity);
                }
                Err(failure) => seen.problem(failure),
            }
            seen
        })
    }

    /// What the server does for a run at this moment. Reads only. The `password` of a derived target comes revealed.
    ///
    /// # Errors
    /// Where the server does not answer.
    fn activity<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        short_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Activity>, Failure>> {
        let (_, _, _) = (target, url, short_id);
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Ends the sessions that an earlier process of the run left on a target, and waits until they are gone: a statement that
    /// outlives its client keeps its locks, and the next attempt would wait for them. Returns how many were asked to end. A kind
    /// whose sessions end with their client does nothing.
    ///
    /// # Errors
    /// If the server does not answer, or refuses.
    fn end_sessions<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
        left: LeftSessions<'a>,
    ) -> BoxFuture<'a, Result<usize, Failure>> {
        let (_, _, _) = (target, url, left);
        Box::pin(async { Ok(0) })
    }

    /// How the ledger that the target names would be made; `None` where this kind keeps none.
    fn ledger_recipe(&self, target: &Target) -> Option<LedgerRecipe> {
        let _ = target;
        None
    }

    /// Makes the ledger as [`TargetKind::ledger_recipe`] says. Where it stands already, nothing changes.
    ///
    /// # Errors
    /// Where the server refuses, or this kind keeps no ledger.
    fn make_ledger<'a>(
        &'a self,
        target: &'a Target,
        url: &'a str,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let _ = url;
        let failure = Failure::new(
            "target.no_ledger",
            format!("a {} target keeps no ledger", target.kind),
        );
        Box::pin(async move { Err(failure) })
    }
}
