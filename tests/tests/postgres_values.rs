//! Every type of a stock PostgreSQL: read by a query and by RETURNING, exact, and bound back to the same bytes.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
use std::collections::BTreeSet;
use windlass_engine::{
    machine::{Machine, NodeState},
    run::Ended,
    value::Value,
};
use windlass_tests::{
    House, output,
    servers::{
        pgbouncer::{PgBouncer, PoolMode},
        postgres::Postgres,
    },
};

/// Types, what the server is given, and the value in its exact JSON form; `None`: the server's own text.
const TYPES: &[(&str, &str, Option<&str>)] = &[
    ("boolean", "true", Some("true")),
    ("smallint", "-32768", Some("-32768")),
    ("integer", "2147483647", Some("2147483647")),
    (
        "bigint",
        "-9223372036854775808",
        Some("-9223372036854775808"),
    ),
    ("numeric", "1.5000", Some(r#"{"$decimal":"1.5000"}"#)),
    (
        "numeric",
        "123456789012345678901234567890.000000000000000000001",
        Some(r#"{"$decimal":"123456789012345678901234567890.000000000000000000001"}"#),
    ),
    ("numeric(10,2)", "7", Some(r#"{"$decimal":"7.00"}"#)),
    ("numeric", "NaN", Some(r#""NaN""#)),
    ("numeric", "-Infinity", Some(r#""-Infinity""#)),
    ("real", "0.1", Some("0.1")),
    ("real", "Infinity", Some(r#""Infinity""#)),
    (
        "double precision",
        "0.30000000000000004",
        Some("0.30000000000000004"),
    ),
    ("double precision", "NaN", Some(r#""NaN""#)),
    ("money", "-1234.56", None),
    ("text", "a 'b' \"c\" \\ é", None),
    ("character varying", "", None),
    ("character(3)", "ab", Some(r#""ab ""#)),
    ("\"char\"", "x", None),
    ("name", "pg_class", None),
    ("bytea", "\\x00ff", Some(r#"{"$bytes":"AP8="}"#)),
    (
        "json",
        r#"{"n": 1.10, "n2": 12345678901234567890, "a": [null, true, "x"]}"#,
        Some(
            r#"{"n":{"$decimal":"1.10"},"n2":{"$decimal":"12345678901234567890"},"a":[null,true,"x"]}"#,
        ),
    ),
    (
        "jsonb",
        r#"{"b": 9007199254740993, "a": 0.1, "$c": {"$d": []}}"#,
        Some(r#"{"a":{"$decimal":"0.1"},"b":9007199254740993,"$c":{"$map":[["$d",[]]]}}"#),
    ),
    ("jsonb", "\"text\"", Some(r#""text""#)),
    ("jsonb", "[1]", Some("[1]")),
    ("date", "2026-11-21", None),
    ("date", "infinity", None),
    ("date", "0044-03-15 BC", None),
    ("time", "04:05:06.789", None),
    ("time with time zone", "12:00:00+02", None),
    ("timestamp", "2026-01-02 03:04:05.678", None),
    ("timestamp", "-infinity", None),
    (
        "timestamp with time zone",
        "2026-01-02 03:04:05.678901+05:30",
        Some(r#"{"$timestamp":"2026-01-01T21:34:05.678901Z"}"#),
    ),
    ("timestamp with time zone", "infinity", None),
    (
        "timestamp with time zone",
        "0044-03-15 12:00:00+00 BC",
        None,
    ),
    (
        "interval",
        "1 mon -2 days 03:00:00.5",
        Some(r#""1 mon -2 days +03:00:00.5""#),
    ),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None),
    ("inet", "10.0.0.1/8", None),
    ("cidr", "2001:db8::/32", None),
    ("macaddr", "08:00:2b:01:02:03", None),
    ("macaddr8", "08:00:2b:01:02:03:04:05", None),
    ("bit(3)", "101", None),
    ("bit varying", "10", None),
    ("xml", "<a b=\"c\">d</a>", None),
    ("point", "(1,2)", None),
    ("line", "{1,2,3}", None),
    ("lseg", "[(1,2),(3,4)]", None),
    ("box", "(3,4),(1,2)", None),
    ("path", "((1,2),(3,4))", None),
    ("polygon", "((1,2),(3,4))", None),
    ("circle", "<(1,2),3>", None),
    ("tsvector", "'a':1 'b'", None),
    ("tsquery", "'a' & !'b'", None),
    ("jsonpath", "$.\"a\"[*]", None),
    ("pg_lsn", "0/16B3748", None),
    ("txid_snapshot", "10:20:10,14", None),
    ("pg_snapshot", "10:20:10,14", None),
    ("oid", "4294967295", Some("4294967295")),
    ("xid", "7", None),
    ("xid8", "18446744073709551615", None),
    ("cid", "3", None),
    ("tid", "(1,2)", None),
    ("oidvector", "1 2", None),
    ("int2vector", "1 2", None),
    ("refcursor", "c", None),
    ("regclass", "pg_class", None),
    ("regtype", "integer", None),
    ("regproc", "pg_backend_pid", None),
    ("regprocedure", "pg_backend_pid()", None),
    ("regoper", "0", None),
    ("regoperator", "+(integer,integer)", None),
    ("regrole", "app", None),
    ("regnamespace", "pg_catalog", None),
    ("regcollation", "\"C\"", None),
    ("regconfig", "english", None),
    ("regdictionary", "simple", None),
    ("aclitem", "app=r/app", None),
    ("int4range", "[1,5)", None),
    ("int8range", "empty", None),
    ("numrange", "(,1.5]", None),
    ("tsrange", "[\"2026-01-01 00:00:00\",)", None),
    ("tstzrange", "[\"2026-01-01 00:00:00+00\",infinity)", None),
    ("daterange", "[2026-01-01,2026-02-01)", None),
    ("int4multirange", "{[1,2),[5,6)}", None),
    ("int8multirange", "{}", None),
    ("nummultirange", "{(,1.5]}", None),
    ("tsmultirange", "{[\"2026-01-01 00:00:00\",)}", None),
    ("tstzmultirange", "{[\"2026-01-01 00:00:00+00\",)}", None),
    ("datemultirange", "{[2026-01-01,2026-02-01)}", None),
    // Of the user's own.
    ("mood", "ok", None),
    ("positive", "5", Some("5")),
    ("pair", "(1,\"a b\")", None),
    // Arrays.
    ("character(3)[]", "{abc}", Some(r#"["abc"]"#)),
    ("bit(3)[]", "{101}", Some(r#"["101"]"#)),
    ("integer[]", "{1,NULL,3}", Some("[1,null,3]")),
    ("integer[]", "{{1,2},{3,4}}", Some("[[1,2],[3,4]]")),
    ("integer[]", "{}", Some("[]")),
    ("integer[]", "[0:1]={1,2}", None),
    (
        "text[]",
        r#"{"a b",NULL,"NULL","\"\\"}"#,
        Some(r#"["a b",null,"NULL","\"\\"]"#),
    ),
    (
        "numeric[]",
        "{1.10,NaN}",
        Some(r#"[{"$decimal":"1.10"},"NaN"]"#),
    ),
    ("boolean[]", "{t,f}", Some("[true,false]")),
    ("bytea[]", r#"{"\\x00"}"#, Some(r#"[{"$bytes":"AA=="}]"#)),
    (
        "jsonb[]",
        r#"{"{\"a\": [1.0]}"}"#,
        Some(r#"[{"a":[{"$decimal":"1.0"}]}]"#),
    ),
    (
        "uuid[]",
        "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        Some(r#"["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]"#),
    ),
    (
        "box[]",
        "{(3,4),(1,2);(1,1),(0,0)}",
        Some(r#"["(3,4),(1,2)","(1,1),(0,0)"]"#),
    ),
    ("point[]", r#"{"(1,2)"}"#, Some(r#"["(1,2)"]"#)),
    ("mood[]", "{ok,sad}", Some(r#"["ok","sad"]"#)),
    ("positive[]", "{1,NULL,3}", Some("[1,null,3]")),
    ("pair[]", r#"{"(1,x)",NULL}"#, Some(r#"["(1,x)",null]"#)),
    (
        "timestamp with time zone[]",
        "{\"2026-01-01 00:00:00+00\"}",
        Some(r#"[{"$timestamp":"2026-01-01T00:00:00Z"}]"#),
    ),
];

/// What holds no values of a user's: the server makes them itself and takes no text for them.
const INNER: &[&str] = &[
    "pg_node_tree",
    "pg_ndistinct",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "gtsvector",
];

fn columns(written: impl Fn(usize, &str) -> String) -> String {
    let all: Vec<String> = TYPES
        .iter()
        .enumerate()
        .map(|(at, (kind, _, _))| written(at, kind))
        .collect();
    all.join(", ")
}

fn texts(server: &Postgres, sql: &str) -> Vec<Option<String>> {
    serde_json::from_str(&server.ask(sql)).unwrap()
}

fn row<'m>(machine: &'m Machine, step: &str, list: &str) -> &'m Value {
    &output(machine, step).get(list).unwrap().as_list().unwrap()[0]
}

#[tokio::test]
async fn every_type_is_read_exactly_and_bound_back() {
    let server = Postgres::start(&["timezone=UTC"]);
    server.psql(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
         CREATE TYPE pair AS (a int, b text)",
    );
    // None is forgotten: what the server has is in the table, or is none that a user stores.
    let there: BTreeSet<String> = server
        .ask(
            "SELECT string_agg(format_type(oid, NULL), ',') FROM pg_type \
             WHERE typtype IN ('b', 'r', 'm') AND typnamespace = 'pg_catalog'::regnamespace AND typcategory <> 'A'",
        )
        .split(',')
        .map(str::to_owned)
        .collect();
    let names = columns(|_, kind| format!("'{kind}'::regtype::text"));
    let known: BTreeSet<String> = texts(&server, &format!("SELECT to_jsonb(ARRAY[{names}])"))
        .into_iter()
        .flatten()
        .chain(INNER.iter().map(|kind| (*kind).to_owned()))
        .collect();
    let forgotten: Vec<&String> = there.difference(&known).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");

    server.psql(&format!(
        "CREATE TABLE t (k int, {})",
        columns(|at, kind| format!("c{at} {kind}"))
    ));
    server.psql(&format!(
        "INSERT INTO t VALUES (1, {})",
        columns(|at, kind| format!("$q${}$q$::{kind}", TYPES[at].1))
    ));
    server.psql("INSERT INTO t VALUES (2)");
    let playbook = format!(
        r#"
playbook: types
targets: {{ db: {{ kind: postgres }} }}
steps:
  - id: read
    uses: sql.query
    with: {{ target: db, sql: "SELECT * FROM t WHERE k = :k", params: {{ k: 1 }} }}
  - id: nothing
    uses: sql.query
    with: {{ target: db, sql: "SELECT * FROM t WHERE k = :k", params: {{ k: 2 }} }}
  - id: returned
    uses: sql.execute
    undo: none
    with: {{ target: db, sql: "UPDATE t SET k = k WHERE k = :k RETURNING *", params: {{ k: 1 }} }}
  - id: returned_nothing
    uses: sql.execute
    undo: none
    with: {{ target: db, sql: "UPDATE t SET k = k WHERE k IN (:k) RETURNING *", params: {{ k: [2, 4] }} }}
  - id: back
    uses: sql.execute
    undo: none
    with:
      target: db
      sql: INSERT INTO t VALUES (3, {places})
      params:
        {params}
"#,
        // A text is taken for JSON text where the server takes JSON.
        places = columns(|at, _| match TYPES[at].1 {
            "\"text\"" => format!("to_jsonb(:c{at}::text)"),
            _ => format!(":c{at}"),
        }),
        params = TYPES
            .iter()
            .enumerate()
            .map(|(at, _)| format!("c{at}: ${{{{ steps.read.output.row.c{at} }}}}"))
            .collect::<Vec<_>>()
            .join("\n        "),
    );
    let house = House::new(&format!(
        "environments:\n  local:\n    targets:\n      db: {{ url: '{}', tls: off }}\n",
        server.url("postgres")
    ));
    let (_, ended, machine) = house.run(&playbook, &[]).await;
    assert!(matches!(ended, Ended::Finished(_)), "{ended:?}");
    assert_eq!(
        machine.instance("back").unwrap().state,
        NodeState::Succeeded,
        "{:?}",
        machine.instance("back").unwrap().forward.failure
    );
    let as_text = columns(|at, _| format!("c{at}::text"));
    let stored = |k: u8| {
        texts(
            &server,
            &format!("SELECT to_jsonb(ARRAY[{as_text}]) FROM t WHERE k = {k}"),
        )
    };
    let (given, back) = (stored(1), stored(3));
    for (step, list) in [("read", "rows"), ("returned", "rows")] {
        let row = row(&machine, step, list);
        for (at, (kind, sql, expected)) in TYPES.iter().enumerate() {
            let found = serde_json::to_string(row.get(&format!("c{at}")).unwrap()).unwrap();
            let text = serde_json::to_string(&given[at]).unwrap();
            assert_eq!(
                found,
                expected.map_or(text, str::to_owned),
                "{step}: {kind} {sql}"
            );
        }
    }
    for step in ["nothing", "returned_nothing"] {
        let row = row(&machine, step, "rows").as_map().unwrap();
        assert_eq!(row.len(), TYPES.len() + 1);
        assert!(
            row.iter().skip(1).all(|(_, value)| value.is_null()),
            "{row:?}"
        );
    }
    for (at, (kind, sql, _)) in TYPES.iter().enumerate() {
        // Blanks between the parts of a `json` are not kept; its values are.
        let before = given[at].as_ref().map(|text| match *kind {
            "json" => text.replace(", ", ",").replace(": ", ":"),
            _ => text.clone(),
        });
        assert_eq!(back[at], before, "{kind} {sql}");
    }
}

#[tokio::test]
async fn what_was_prepared_is_gone_also_after_a_failure_and_behind_a_pooler() {
    let server = Postgres::start(&[]);
    server.psql("CREATE TABLE t (a int, doc jsonb); INSERT INTO t VALUES (0, '{}')");
    let pooler = PgBouncer::start(&server, PoolMode::Transaction);
    let step = |id: &str, sql: &str| {
        format!(
            "  - id: {id}\n    uses: sql.execute\n    undo: none\n    on_failure: continue\n    with: {{ target: db, sql: \"{sql}\", params: {{ one: 1, doc: {{ n: [1, 2] }} }} }}\n"
        )
    };
    let fails = "UPDATE t SET a = :one / a, doc = :doc WHERE a = 0 RETURNING a";
    let playbook = format!(
        "playbook: pooled\ntargets: {{ db: {{ kind: postgres }} }}\nsteps:\n{}{}{}{}",
        step("first", fails),
        step("second", fails),
        step(
            "third",
            "UPDATE t SET a = :one, doc = :doc WHERE a = 0 /* kept */ RETURNING *"
        ),
        step(
            "unfit",
            "UPDATE t SET a = :doc, doc = NULL WHERE a = :one RETURNING a"
        ),
    );
    let house = House::new(&format!(
        "environments:\n  local:\n    targets:\n      db: {{ url: '{}', tls: off }}\n",
        pooler.url("postgres")
    ));
    let (_, ended, machine) = house.run(&playbook, &[]).await;
    assert!(matches!(ended, Ended::Finished(_)), "{ended:?}");
    let failed = |step: &str| {
        let failure = machine.instance(step).unwrap().forward.failure.clone();
        failure.unwrap().message
    };
    for step in ["first", "second"] {
        assert!(failed(step).contains("22012"), "{}", failed(step));
    }
    assert!(failed("unfit").contains("a map cannot be bound where the server takes integer"));
    let row = row(&machine, "third", "rows");
    assert_eq!(
        serde_json::to_string(row).unwrap(),
        r#"{"a":1,"doc":{"n":[1,2]}}"#
    );
    assert_eq!(server.ask("SELECT a, doc FROM t"), "1\t{\"n\": [1, 2]}");
}
