//! `windlass audit`: proves that the journal is what was written.
use crate::{
    error::{CliError, short},
    exit::Exit,
    session::{self, Session},
};

/// What `audit` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    /// The run: its id, the beginning or end of it, or `last`; by default all runs
    run: Option<String>,
    /// The head that you kept elsewhere: a chain alone does not show that its tail was cut off
    #[arg(long, value_name = "HASH", requires = "run")]
    expect: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(session: &Session, args: &AuditArgs) -> Result<Exit, CliError> {
    let journal = session.reading()?;
    let mut runs = journal.runs().await?;
    if let Some(run) = &args.run {
        let id = session::find(journal.as_ref(), run).await?;
        runs.retain(|run| run.id == id);
    }
    let style = session.ui.out;
    let (mut all_hold, mut all_expected) = (true, true);
    let mut audits = Vec::new();
    for run in &runs {
        let audit = journal.audit(&run.id).await?;
        let expected = args.expect.as_deref().map(str::trim);
        let is_expected = expected.is_none_or(|hash| {
            [&audit.head, audit.reported()]
                .iter()
                .any(|head| hash.eq_ignore_ascii_case(&head.hash))
        });
        all_hold &= audit.broken.is_none();
        all_expected &= is_expected;
        if args.json {
            audits.push(audit);
            continue;
        }
        match &audit.broken {
            Some((seq, what)) => session.ui.line(&format!(
                "{} run {}, event {seq}: {what}",
                style.red("damaged"),
                audit.run
            )),
            None if !is_expected => {
                session.ui.line(&format!(
                    "{} run {}: the chain holds, but its head is not the one expected",
                    style.red("differs"),
                    audit.run
                ));
                session
                    .ui
                    .line(&format!("  expected  {}", expected.unwrap_or_default()));
                session.ui.line(&format!(
                    "  found     {} at event {}",
                    audit.head.hash, audit.head.seq
                ));
                session
                    .ui
                    .line("  = events were cut off, replaced, or added since that head was kept");
            }
            None => {
                let head = audit.reported();
                let after = match audit.head.seq - head.seq {
                    0 => String::new(),
                    n => format!(", and {n} after its end that changed nothing"),
                };
                session.ui.line(&format!(
                    "{} run {}, started by {}: {} events, head {}{after}",
                    style.green("holds"),
                    short(&audit.run),
                    run.starter(),
                    head.seq,
                    head.hash
                ));
            }
        }
    }
    if args.json {
        let text = serde_json::to_string_pretty(&audits).map_err(|error| {
            CliError::new(Exit::Broken, format!("cannot write the audit: {error}"))
        })?;
        session.ui.json(&text);
    }
    if !all_hold {
        return Err(CliError::new(Exit::Failed, "the journal is not what was written")
            .note("something other than windlass changed the file, or the disk is failing")
            .help("keep a copy of the file as it is; runs that hold can be resumed; a run with a damaged event cannot"));
    }
    let unlisted = match &args.run {
        None => journal.unlisted().await?,
        Some(_) => 0,
    };
    if unlisted > 0 {
        return Err(CliError::new(
            Exit::Failed,
            format!("the journal is not what was written: {unlisted} events belong to a run that its list of runs does not have"),
        )
        .note("something other than windlass changed the file, or the disk is failing")
        .help("keep a copy of the file as it is; a backup of it may still list that run"));
    }
    if !all_expected {
        return Err(CliError::new(
            Exit::Failed,
            "the run is not what it was when that head was kept",
        )
        .help("`windlass report RUN` lists each event and its time"));
    }
    if runs.is_empty() {
        session.ui.say("no runs: nothing to prove");
    }
    Ok(Exit::Succeeded)
}
