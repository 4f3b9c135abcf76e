//! What a statement would call and touch, as the server has planned it: views are expanded, defaults are filled in.
use super::functions;
use serde_json::Value as Json;
use sqlx::{PgConnection, Row};
use std::collections::BTreeSet;

/// What holds a name as it is, and no expression.
const NAMES: &[&str] = &[
    "Node Type",
    "Parent Relationship",
    "Relation Name",
    "Schema",
    "Alias",
    "Index Name",
    "CTE Name",
    "Subplan Name",
    "Tuplestore Name",
    "Function Name",
    "Trigger Name",
    "Constraint Name",
];

/// What a plan tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Functions that it calls, without those behind operators and casts.
    pub(super) calls: BTreeSet<String>,
    /// Whether there is an expression whose functions cannot be told.
    pub(super) is_unreadable: bool,
    /// Whether another server, or an extension's own code, takes part.
    pub(super) is_foreign: bool,
    /// Schemas and tables that it writes to, one for one.
    pub(super) schemas: Vec<String>,
    pub(super) tables: Vec<String>,
}

impl Plan {
    /// From the text of `EXPLAIN (VERBOSE, FORMAT JSON)`.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut plan = Self::default();
        plan.walk(&serde_json::from_str(text).ok()?);
        Some(plan)
    }

    fn walk(&mut self, json: &Json) {
        match json {
            Json::Array(all) => all.iter().for_each(|one| self.walk(one)),
            Json::Object(node) => {
                let text = |key: &str| node.get(key).and_then(Json::as_str);
                if matches!(text("Node Type"), Some("Foreign Scan" | "Custom Scan")) {
                    self.is_foreign = true;
                }
                if let Some(name) = text("Function Name") {
                    self.calls.insert(name.to_owned());
                }
                let writes = text("Node Type") == Some("ModifyTable");
                let targets = node.get("Target Tables").and_then(Json::as_array);
                let all = targets.into_iter().flatten().filter_map(Json::as_object);
                for target in writes.then_some(node).into_iter().chain(all) {
                    let text = |key: &str| target.get(key).and_then(Json::as_str);
                    if let (Some(schema), Some(table)) = (text("Schema"), text("Relation Name")) {
                        self.schemas.push(schema.to_owned());
                        self.tables.push(table.to_owned());
                    }
                }
                let expressions = node
                    .iter()
                    .filter(|(key, value)| !(value.is_string() && NAMES.contains(&key.as_str())));
                expressions.for_each(|(_, value)| self.walk(value));
            }
            Json::String(text) => self.expression(text),
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }

    fn expression(&mut self, text: &str) {
        match functions::called(text) {
            Some(names) => self.calls.extend(names),
            None => self.is_unreadable = true,
        }
    }

    /// Why the statement would leave a trace although it is taken back; `None` where it leaves none.
    pub(super) async fn trace(
        mut self,
        connection: &mut PgConnection,
    ) -> Result<Option<String>, sqlx::Error> {
        if self.is_unreadable {
            return Ok(Some("it cannot be told what it calls".to_owned()));
        }
        if self.is_foreign {
            return Ok(Some("another server takes part in it".to_owned()));
        }
        // Foreign keys that act pass a change on, and partitions take what their parent is given.
        let row = sqlx::query(
            "WITH RECURSIVE touched AS ( \
               SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               JOIN unnest($1::text[], $2::text[]) AS w (schema, name) ON w.schema = n.nspname AND w.name = c.relname \
             UNION \
               SELECT more.oid FROM touched t CROSS JOIN LATERAL ( \
                 SELECT f.conrelid AS oid FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.confrelid = t.oid \
                   AND (f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd')) \
                 UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = t.oid) more \
             ) SELECT \
               (SELECT string_agg(format('%I of %s', g.tgname, g.tgrelid::regclass), ', ' ORDER BY g.tgname) \
                  FROM pg_catalog.pg_trigger g WHERE g.tgrelid IN (SELECT oid FROM touched) \
                  AND NOT g.tgisinternal AND g.tgenabled <> 'D'), \
               (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_catalog.pg_class c \
                  WHERE c.oid IN (SELECT oid FROM touched) AND c.relkind = 'f'), \
               (SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_catalog.pg_constraint k \
                  WHERE k.contype = 'c' AND k.conrelid IN (SELECT oid FROM touched)), \
               (SELECT string_agg(k.conname, ', ') FROM pg_catalog.pg_constraint k \
                  WHERE k.contype = 'f' AND k.confrelid IN (SELECT oid FROM touched) AND 'd' IN (k.confdeltype, k.confupdtype))",
        )
        .bind(&self.schemas)
        .bind(&self.tables)
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
        let text = |at: usize| row.try_get::<Option<String>, _>(at);
        if let Some(checks) = text(2)? {
            self.expression(&checks);
        }
        if self.is_unreadable {
            return Ok(Some(
                "it cannot be told what its constraints call".to_owned(),
            ));
        }
        if let Some(names) = functions::acting(connection, &self.calls).await? {
            return Ok(Some(format!(
                "it calls {names}, and not all that this does is taken back"
            )));
        }
        for (what, found) in [
            ("it fires the trigger", text(0)?),
            ("another server holds", text(1)?),
            ("a default is filled in by the foreign key", text(3)?),
        ] {
            if let Some(found) = found {
                return Ok(Some(format!("{what} {found}")));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_tells_what_is_called_and_written() {
        let plan = Plan::of(
            r#"[{"Plan": {"Node Type": "ModifyTable", "Operation": "Insert", "Schema": "app", "Relation Name": "t",
                "Target Tables": [{"Schema": "app", "Relation Name": "t_1"}],
                "Plans": [{"Node Type": "Result", "Output": ["nextval('app.s'::regclass)", "'f(1)'::text"]},
                          {"Node Type": "Function Scan", "Function Name": "made", "Schema": "app"}]}}]"#,
        )
        .unwrap();
        assert_eq!(
            plan.calls.iter().map(String::as_str).collect::<Vec<_>>(),
            ["made", "nextval"]
        );
        assert_eq!(plan.tables, ["t", "t_1"]);
        assert!(!plan.is_foreign && !plan.is_unreadable);
        assert!(
            Plan::of(r#"[{"Plan": {"Node Type": "Foreign Scan"}}]"#)
                .unwrap()
                .is_foreign
        );
    }
}
