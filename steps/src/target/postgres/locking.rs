//! Which table locks a statement takes, and what it does to the table meanwhile: read from its words, as the manual tells
//! it of each command.
use super::words::{Cursor, Word, words};

/// A table lock, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lock {
    AccessShare,
    RowShare,
    RowExclusive,
    ShareUpdateExclusive,
    Share,
    ShareRowExclusive,
    Exclusive,
    AccessExclusive,
}

impl Lock {
    const ALL: [Self; 8] = [
        Self::AccessShare,
        Self::RowShare,
        Self::RowExclusive,
        Self::ShareUpdateExclusive,
        Self::Share,
        Self::ShareRowExclusive,
        Self::Exclusive,
        Self::AccessExclusive,
    ];

    /// As SQL writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// What it holds up.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::AccessShare | Self::RowShare => "reads and writes continue",
            Self::RowExclusive => "reads and writes continue, but for the rows it changes",
            Self::ShareUpdateExclusive => "reads and writes continue; no other maintenance",
            Self::Share | Self::ShareRowExclusive | Self::Exclusive => {
                "reads continue, writes wait"
            }
            Self::AccessExclusive => "reads and writes wait",
        }
    }

    /// Its name in `pg_locks`.
    fn mode(self) -> &'static str {
        match self {
            Self::AccessShare => "AccessShareLock",
            Self::RowShare => "RowShareLock",
            Self::RowExclusive => "RowExclusiveLock",
            Self::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            Self::Share => "ShareLock",
            Self::ShareRowExclusive => "ShareRowExclusiveLock",
            Self::Exclusive => "ExclusiveLock",
            Self::AccessExclusive => "AccessExclusiveLock",
        }
    }

    /// The locks of `pg_locks` that it conflicts with.
    pub(super) fn conflicts(self) -> Vec<&'static str> {
        let weakest = match self {
            Self::AccessShare => Self::AccessExclusive,
            Self::RowShare => Self::Exclusive,
            Self::RowExclusive => Self::Share,
            Self::ShareUpdateExclusive => Self::ShareUpdateExclusive,
            Self::Share | Self::ShareRowExclusive => Self::RowExclusive,
            Self::Exclusive => Self::RowShare,
            Self::AccessExclusive => Self::AccessShare,
        };
        let all = Self::ALL.into_iter().filter(|other| *other >= weakest);
        // SHARE is the one that several can have.
        all.filter(|other| !(self == Self::Share && *other == Self::Share))
            .map(Self::mode)
            .collect()
    }
}

/// What a statement locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Locking {
    pub(super) lock: Lock,
    /// The table as it is written, or an index that stands for its table.
    pub(super) relation: String,
    /// What it does to the table meanwhile, where that takes long.
    pub(super) work: Option<&'static str>,
}

const READS: &str = "reads the whole table";
const READS_UNLESS_LATER: &str =
    "reads the whole table; NOT VALID and VALIDATE later do not hold it up";
const BUILDS: &str = "reads the whole table and builds an index; CREATE UNIQUE INDEX CONCURRENTLY and USING INDEX do not \
     hold it up";
const REWRITES: &str = "rewrites the whole table";
const REBUILDS: &str = "rebuilds indexes; nearly every query of the table waits for them; CONCURRENTLY does not hold it up";

/// The locks of a statement, as far as its words tell.
pub(super) fn locking(sql: &str) -> Vec<Locking> {
    let all = words(sql);
    let mut at = Cursor(&all);
    if at.is("WITH") {
        return changes(&all);
    }
    if at.takes(&["ALTER"]) {
        return altered(at);
    }
    if at.takes(&["CREATE"]) {
        return created(at);
    }
    if at.takes(&["DROP"]) {
        return dropped(at);
    }
    maintained(at)
}

fn one(lock: Lock, relation: Option<String>, work: Option<&'static str>) -> Vec<Locking> {
    each(lock, relation.into_iter().collect(), work)
}

fn each(lock: Lock, relations: Vec<String>, work: Option<&'static str>) -> Vec<Locking> {
    relations
        .into_iter()
        .map(|relation| Locking {
            lock,
            relation,
            work,
        })
        .collect()
}

/// INSERT, UPDATE, DELETE and MERGE behind WITH, and inside of it.
fn changes(all: &[Word]) -> Vec<Locking> {
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for (at, word) in all.iter().enumerate() {
        match word.text.as_str() {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let begins = depth == 0
            || at
                .checked_sub(1)
                .is_some_and(|before| all.get(before).is_some_and(|word| word.is("(")));
        if begins {
            found.extend(change(Cursor(all.get(at..).unwrap_or_default())));
        }
    }
    found
}

fn change(mut at: Cursor<'_>) -> Vec<Locking> {
    let writes = at.takes(&["UPDATE"])
        || at.takes(&["INSERT", "INTO"])
        || at.takes(&["DELETE", "FROM"])
        || at.takes(&["MERGE", "INTO"]);
    if writes {
        one(Lock::RowExclusive, at.name(), None)
    } else {
        Vec::new()
    }
}

fn altered(mut at: Cursor<'_>) -> Vec<Locking> {
    if at.takes(&["TABLE"]) {
        if at.takes(&["ALL", "IN", "TABLESPACE"]) {
            return Vec::new();
        }
        let Some(table) = at.name() else {
            return Vec::new();
        };
        return table_altered(&table, at);
    }
    if at.takes(&["INDEX"]) {
        let index = at.name();
        // Whatever else is done to an index holds up nobody who uses its table.
        let moves = at.has(&["SET", "TABLESPACE"]);
        let work = "copies the index";
        return one(Lock::AccessExclusive, index.filter(|_| moves), Some(work));
    }
    if at.takes(&["SEQUENCE"]) {
        return one(Lock::ShareRowExclusive, at.name(), None);
    }
    if at.takes(&["VIEW"]) || at.takes(&["MATERIALIZED", "VIEW"]) || at.takes(&["FOREIGN", "TABLE"])
    {
        return one(Lock::AccessExclusive, at.name(), None);
    }
    if at.is("POLICY") || at.is("TRIGGER") || at.is("RULE") {
        let table = at.behind(&["ON"]).and_then(|mut at| at.name());
        return one(Lock::AccessExclusive, table, None);
    }
    Vec::new()
}

/// The strongest lock of all that is done to a table, and each thing that takes long.
fn table_altered(table: &str, rest: Cursor<'_>) -> Vec<Locking> {
    let mut strongest = Lock::ShareUpdateExclusive;
    let mut works = Vec::new();
    let mut others = Vec::new();
    for part in rest.parts() {
        let (lock, work) = part_altered(part, &mut others);
        strongest = strongest.max(lock);
        works.extend(work);
    }
    let first = Locking {
        lock: strongest,
        relation: table.to_owned(),
        work: works.first().copied(),
    };
    let more = works.iter().skip(1).map(|work| Locking {
        work: Some(work),
        ..first.clone()
    });
    let mut all = vec![first.clone()];
    all.extend(more.filter(|other| other.work != first.work));
    all.extend(others);
    all
}

/// One of the things that ALTER TABLE does. `others` are locks on other tables.
fn part_altered(mut at: Cursor<'_>, others: &mut Vec<Locking>) -> (Lock, Option<&'static str>) {
    use Lock::{AccessExclusive, ShareRowExclusive, ShareUpdateExclusive};
    if at.takes(&["ADD"]) {
        return added(at, others);
    }
    if at.takes(&["ALTER"]) {
        if at.takes(&["CONSTRAINT"]) {
            return (AccessExclusive, None);
        }
        at.skips(&["COLUMN"]);
        at.name();
        return column_altered(at);
    }
    if at.takes(&["VALIDATE", "CONSTRAINT"]) {
        return (ShareUpdateExclusive, Some(READS));
    }
    if at.takes(&["ATTACH", "PARTITION"]) {
        let work = "reads the partition, unless a valid CHECK proves its bounds";
        others.extend(one(AccessExclusive, at.name(), Some(work)));
        return (ShareUpdateExclusive, None);
    }
    if at.takes(&["DETACH", "PARTITION"]) {
        let partition = at.name();
        let lock = if at.has(&["CONCURRENTLY"]) || at.has(&["FINALIZE"]) {
            ShareUpdateExclusive
        } else {
            AccessExclusive
        };
        others.extend(one(AccessExclusive, partition, None));
        return (
            lock,
            Some("so is the default partition, where there is one"),
        );
    }
    if at.is("ENABLE") || at.is("DISABLE") {
        let lock = if at.has(&["TRIGGER"]) {
            ShareRowExclusive
        } else {
            AccessExclusive
        };
        return (lock, None);
    }
    if at.is("CLUSTER") || at.takes(&["SET", "WITHOUT", "CLUSTER"]) {
        return (ShareUpdateExclusive, None);
    }
    if at.takes(&["SET", "("]) || at.takes(&["RESET", "("]) {
        let lock = if at.has(&["user_catalog_table"]) {
            AccessExclusive
        } else {
            ShareUpdateExclusive
        };
        return (lock, None);
    }
    if at.takes(&["SET", "TABLESPACE"])
        || at.takes(&["SET", "LOGGED"])
        || at.takes(&["SET", "UNLOGGED"])
        || at.takes(&["SET", "ACCESS", "METHOD"])
    {
        return (AccessExclusive, Some(REWRITES));
    }
    if at.takes(&["DROP"]) {
        let work = "so is the table that a foreign key leads to, where one goes with it";
        return (AccessExclusive, Some(work));
    }
    if at.takes(&["INHERIT"]) {
        others.extend(one(ShareUpdateExclusive, at.name(), None));
    }
    (AccessExclusive, None)
}

fn added(mut at: Cursor<'_>, others: &mut Vec<Locking>) -> (Lock, Option<&'static str>) {
    let is_column = at.takes(&["COLUMN"]);
    if !is_column && at.takes(&["CONSTRAINT"]) {
        at.name();
    }
    let referenced = at.behind(&["REFERENCES"]).and_then(|mut at| at.name());
    let later = at.has(&["NOT", "VALID"]);
    if !is_column && at.takes(&["FOREIGN", "KEY"]) {
        let work = (!later).then_some(READS_UNLESS_LATER);
        others.extend(one(Lock::ShareRowExclusive, referenced, None));
        return (Lock::ShareRowExclusive, work);
    }
    others.extend(one(Lock::ShareRowExclusive, referenced, None));
    let is_index = at.has(&["UNIQUE"]) || at.has(&["PRIMARY", "KEY"]) || at.is("EXCLUDE");
    let is_check = !is_column && at.is("CHECK");
    let is_not_null = !is_column && at.takes(&["NOT", "NULL"]);
    let work = if is_index {
        (!at.has(&["USING", "INDEX"])).then_some(BUILDS)
    } else if is_check || is_not_null {
        (!later).then_some(READS_UNLESS_LATER)
    } else if at.has(&["STORED"])
        || at.has(&["IDENTITY"])
        || [
            "smallserial",
            "serial",
            "bigserial",
            "serial2",
            "serial4",
            "serial8",
        ]
        .iter()
        .any(|serial| at.has(&[serial]))
    {
        Some(REWRITES)
    } else if at.has(&["DEFAULT"]) {
        Some("rewrites the whole table where the default is volatile")
    } else if at.has(&["CHECK"]) {
        Some(READS)
    } else {
        None
    };
    (Lock::AccessExclusive, work)
}

fn column_altered(mut at: Cursor<'_>) -> (Lock, Option<&'static str>) {
    if at.takes(&["TYPE"]) || at.takes(&["SET", "DATA", "TYPE"]) {
        let work = "may rewrite the whole table and its indexes";
        return (Lock::AccessExclusive, Some(work));
    }
    if at.takes(&["SET", "NOT", "NULL"]) {
        let work = "reads the whole table, unless a valid CHECK (… IS NOT NULL) proves it";
        return (Lock::AccessExclusive, Some(work));
    }
    if at.takes(&["SET", "EXPRESSION"]) {
        return (Lock::AccessExclusive, Some(REWRITES));
    }
    if at.takes(&["SET", "STATISTICS"]) || at.takes(&["SET", "("]) || at.takes(&["RESET", "("]) {
        return (Lock::ShareUpdateExclusive, None);
    }
    (Lock::AccessExclusive, None)
}

fn created(mut at: Cursor<'_>) -> Vec<Locking> {
    at.takes(&["OR", "REPLACE"]);
    at.skips(&["UNIQUE", "CONSTRAINT"]);
    let on = |at: Cursor<'_>| at.behind(&["ON"]).and_then(|mut at| at.name());
    if at.takes(&["INDEX"]) {
        return if at.takes(&["CONCURRENTLY"]) {
            let work = "reads the whole table twice, and waits for transactions that are older";
            one(Lock::ShareUpdateExclusive, on(at), Some(work))
        } else {
            let work = "reads the whole table; CONCURRENTLY lets writes continue";
            one(Lock::Share, on(at), Some(work))
        };
    }
    if at.takes(&["TRIGGER"]) {
        return one(Lock::ShareRowExclusive, on(at), None);
    }
    if at.takes(&["POLICY"]) {
        return one(Lock::AccessExclusive, on(at), None);
    }
    if at.takes(&["RULE"]) {
        let table = at.behind(&["TO"]).and_then(|mut at| at.name());
        return one(Lock::AccessExclusive, table, None);
    }
    if at.takes(&["STATISTICS"]) {
        let table = at.behind(&["FROM"]).and_then(|mut at| at.name());
        return one(Lock::ShareUpdateExclusive, table, None);
    }
    at.skips(&[
        "GLOBAL",
        "LOCAL",
        "TEMPORARY",
        "TEMP",
        "UNLOGGED",
        "FOREIGN",
    ]);
    if at.takes(&["TABLE"]) {
        let parent = at.behind(&["PARTITION", "OF"]).and_then(|mut at| at.name());
        let mut all = one(Lock::AccessExclusive, parent, None);
        while let Some(mut referring) = at.behind(&["REFERENCES"]) {
            all.extend(one(Lock::ShareRowExclusive, referring.name(), None));
            at = referring;
        }
        return all;
    }
    Vec::new()
}

fn dropped(mut at: Cursor<'_>) -> Vec<Locking> {
    if at.takes(&["INDEX"]) {
        return if at.takes(&["CONCURRENTLY"]) {
            let work = "waits for transactions that are older";
            each(Lock::ShareUpdateExclusive, at.names(), Some(work))
        } else {
            each(Lock::AccessExclusive, at.names(), None)
        };
    }
    if at.is("TRIGGER") || at.is("RULE") || at.is("POLICY") {
        let table = at.behind(&["ON"]).and_then(|mut at| at.name());
        return one(Lock::AccessExclusive, table, None);
    }
    let is_relation = at.takes(&["TABLE"])
        || at.takes(&["FOREIGN", "TABLE"])
        || at.takes(&["VIEW"])
        || at.takes(&["MATERIALIZED", "VIEW"])
        || at.takes(&["SEQUENCE"]);
    if is_relation {
        let work = "so are the tables that its foreign keys lead to, and of a partition its parent and the default one";
        each(Lock::AccessExclusive, at.names(), Some(work))
    } else {
        Vec::new()
    }
}

fn maintained(mut at: Cursor<'_>) -> Vec<Locking> {
    if at.takes(&["TRUNCATE"]) {
        at.skips(&["TABLE"]);
        let work = at
            .has(&["CASCADE"])
            .then_some("and every table that refers to it");
        return each(Lock::AccessExclusive, at.names(), work);
    }
    if at.takes(&["VACUUM"]) {
        let is_full = at.is("FULL")
            || at.is("(")
                && at
                    .parts()
                    .first()
                    .is_some_and(|options| options.has(&["FULL"]));
        at.skips_parentheses();
        at.skips(&["FULL", "FREEZE", "VERBOSE", "ANALYZE"]);
        return if is_full {
            each(Lock::AccessExclusive, at.names(), Some(REWRITES))
        } else {
            each(Lock::ShareUpdateExclusive, at.names(), None)
        };
    }
    if at.takes(&["ANALYZE"]) {
        at.skips_parentheses();
        at.skips(&["VERBOSE"]);
        return each(Lock::ShareUpdateExclusive, at.names(), None);
    }
    if at.takes(&["REINDEX"]) {
        at.skips_parentheses();
        if !at.takes(&["TABLE"]) && !at.takes(&["INDEX"]) {
            return Vec::new();
        }
        return if at.takes(&["CONCURRENTLY"]) {
            let work = "rebuilds indexes, and waits for transactions that are older";
            one(Lock::ShareUpdateExclusive, at.name(), Some(work))
        } else {
            one(Lock::Share, at.name(), Some(REBUILDS))
        };
    }
    if at.takes(&["CLUSTER"]) {
        at.skips_parentheses();
        at.skips(&["VERBOSE"]);
        return one(Lock::AccessExclusive, at.name(), Some(REWRITES));
    }
    if at.takes(&["REFRESH", "MATERIALIZED", "VIEW"]) {
        return if at.takes(&["CONCURRENTLY"]) {
            one(Lock::Exclusive, at.name(), Some("runs its query"))
        } else {
            one(Lock::AccessExclusive, at.name(), Some("runs its query"))
        };
    }
    if at.takes(&["LOCK"]) {
        at.skips(&["TABLE"]);
        let tables = at.names();
        let mode = at.behind(&["IN"]).unwrap_or(Cursor(&[]));
        let named = |lock: &Lock| {
            let keywords: Vec<&str> = lock.name().split(' ').chain(["MODE"]).collect();
            let mut mode = mode;
            mode.takes(&keywords)
        };
        let lock = Lock::ALL.into_iter().find(named);
        return each(lock.unwrap_or(Lock::AccessExclusive), tables, None);
    }
    if at.takes(&["COMMENT", "ON", "TABLE"]) {
        return one(Lock::ShareUpdateExclusive, at.name(), None);
    }
    if at.takes(&["COPY"]) {
        let table = at.name();
        at.skips_parentheses();
        return if at.is("FROM") {
            one(Lock::RowExclusive, table, None)
        } else {
            Vec::new()
        };
    }
    change(at)
}
