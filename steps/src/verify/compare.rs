//! Two databases, table by table.
use crate::target::{self, Access, Fingerprint, Until};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::step::{
    Failure, ParamError, StepContext,
    params::{TargetName, Text},
};

/// Two databases whose tables must be equal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Compare {
    /// One database.
    left: TargetName,
    /// The other.
    right: TargetName,
    /// The tables; all of either side where none are given.
    #[serde(default)]
    tables: Vec<Text>,
    /// Tables to leave out.
    #[serde(default)]
    exclude: Vec<Text>,
    /// Whether to compare how many rows there are.
    #[serde(default = "yes")]
    row_counts: bool,
    /// Whether to compare a SHA-256 over all rows in the order of the primary key.
    #[serde(default)]
    checksums: bool,
}

fn yes() -> bool {
    true
}

/// How one table compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Compared {
    /// The table.
    pub(crate) table: String,
    /// Whether it is equal on both sides, as far as was asked.
    pub(crate) equal: bool,
    /// Rows on the left; null where the table is missing.
    left_rows: Option<u64>,
    /// Rows on the right; null where the table is missing.
    right_rows: Option<u64>,
    /// SHA-256 on the left, with `checksums`.
    left_sha256: Option<String>,
    /// SHA-256 on the right, with `checksums`.
    right_sha256: Option<String>,
}

impl Compare {
    pub(super) fn check(&self, errors: &mut Vec<ParamError>) {
        if !self.row_counts && !self.checksums {
            errors.push(ParamError::new(
                "compare",
                "neither row_counts nor checksums is asked for",
            ));
        }
        for name in &self.exclude {
            if self.tables.contains(name) {
                errors.push(ParamError::new(
                    "compare.exclude",
                    format!("{} is both in tables and excluded", name.0),
                ));
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        let what = match (self.row_counts, self.checksums) {
            (true, true) => "row counts and checksums",
            (false, true) => "checksums",
            (_, false) => "row counts",
        };
        let names: Vec<&str> = self.tables.iter().map(|table| table.0.as_str()).collect();
        let tables = if names.is_empty() {
            "all tables".to_owned()
        } else {
            names.join(", ")
        };
        format!(
            "{what} of {tables} are equal in {} and {}",
            self.left, self.right
        )
    }

    /// Compares; what was compared so far stands in `tables` even where it fails.
    pub(super) async fn run(
        &self,
        cx: &StepContext,
        tables: &mut Vec<Compared>,
    ) -> Result<(), Failure> {
        let (left, right) = (cx.target(&self.left)?, cx.target(&self.right)?);
        let (left_until, mut right_until) =
            (Until::of(cx, &left, None)?, Until::of(cx, &right, None)?);
        right_until.counts = false;
        let host = cx.host.as_ref();
        // The engine's own table is no data, and is written by the run itself.
        let ledgers: Vec<String> = [&left, &right]
            .into_iter()
            .filter_map(|t| t.ledger.clone())
            .collect();
        let mut left = target::open(host, &left, Access::Read, &left_until).await?;
        let mut right = target::open(host, &right, Access::Read, &right_until).await?;
        let on_left = left.tables(&left_until).await?;
        let on_right = right.tables(&right_until).await?;
        let mut names: Vec<String> = if self.tables.is_empty() {
            let all = on_left.iter().chain(&on_right);
            all.filter(|name| !ledgers.contains(name))
                .cloned()
                .collect()
        } else {
            self.tables.iter().map(|table| table.0.clone()).collect()
        };
        names.sort();
        names.dedup();
        names.retain(|name| !self.exclude.iter().any(|excluded| excluded.0 == *name));
        for name in names {
            let mut sides = [None, None];
            if on_left.contains(&name) {
                sides[0] = Some(left.fingerprint(&name, self.checksums, &left_until).await?);
            }
            if on_right.contains(&name) {
                sides[1] = Some(
                    right
                        .fingerprint(&name, self.checksums, &right_until)
                        .await?,
                );
            }
            tables.push(self.compared(name, sides));
        }
        Ok(())
    }

    fn compared(&self, table: String, [left, right]: [Option<Fingerprint>; 2]) -> Compared {
        let equal = match (&left, &right) {
            (Some(left), Some(right)) => {
                (!self.row_counts || left.rows == right.rows)
                    && (!self.checksums || left.sha256 == right.sha256)
            }
            _ => false,
        };
        Compared {
            table,
            equal,
            left_rows: left.as_ref().map(|one| one.rows),
            right_rows: right.as_ref().map(|one| one.rows),
            left_sha256: left.and_then(|one| one.sha256),
            right_sha256: right.and_then(|one| one.sha256),
        }
    }
}
