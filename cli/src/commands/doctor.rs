//! `windlass doctor`: is each target of an environment there, is it the right one, may it be used; and the journal.
mod journal;

use crate::{
    clock,
    error::CliError,
    exit::Exit,
    playbook,
    session::Session,
    ui::{Style, cut},
};
use futures_util::future::join_all;
use indexmap::IndexMap;
use serde_json::{Value as Json, json};
use std::{io::IsTerminal, path::PathBuf};
use windlass_engine::{
    diagnostic::suggest,
    environment,
    secret::RunSecrets,
    step::{Cause, Examination, Failure, Finding, LedgerStanding, Revealed, Severity, Target},
    value::{Duration, Value},
};

/// What `doctor` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0: the journal and every target are fit. 1: one of them is not, and the page says why and what to do. 2: the command line, the \
environment file or the playbook is wrong. Nothing is written, but for the ledger that --init-ledger makes after asking.")]
pub(crate) struct DoctorArgs {
    /// Only these targets of the environment
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// The environment of windlass.yaml
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    /// The targets of this playbook, with the roles that it wants
    #[arg(long, value_name = "PATH")]
    playbook: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    /// How long one target may take
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    timeout: Duration,
    /// Make the ledgers that are missing, after showing how and asking
    #[arg(long)]
    init_ledger: bool,
    /// With --init-ledger: do not ask
    #[arg(long, requires = "init_ledger")]
    yes: bool,
}

/// A target and what was found.
struct Examined {
    target: Target,
    url: Option<Revealed>,
    /// Each secret that the target names, and whether its content can be had.
    secrets: IndexMap<String, bool>,
    seen: Examination,
}

pub(crate) async fn run(session: &Session, args: &DoctorArgs) -> Result<Exit, CliError> {
    if args.timeout <= Duration::ZERO {
        return Err(CliError::invalid("--timeout must be longer than nothing"));
    }
    let (environment, targets) = chosen(session, args)?;
    let secrets = session.secrets()?.of_run(&environment);
    session.environment()?.warn(session);
    let checks = targets
        .into_values()
        .map(|target| examine(session, &secrets, target, args.timeout));
    let mut examined = join_all(checks).await;
    let journal = journal::examine(session)?;
    if args.json {
        session.ui.json(&page(&environment, &journal, &examined)?);
    } else {
        table(session, &environment, &journal, &examined);
    }
    if args.init_ledger {
        init_ledgers(session, args, &mut examined).await?;
    }
    Ok(
        if journal.seen.is_fit() && examined.iter().all(|one| one.seen.is_fit()) {
            Exit::Succeeded
        } else {
            Exit::Failed
        },
    )
}

/// The targets to look at, with the environment's name.
fn chosen(
    session: &Session,
    args: &DoctorArgs,
) -> Result<(String, IndexMap<String, Target>), CliError> {
    let loaded = session.environment()?;
    let (name, environment) = loaded.choose(session, args.env.as_deref())?;
    let bound = match &args.playbook {
        None => environment::every(&environment, &loaded.base),
        Some(path) => {
            let graph = playbook::graph(session, path)?;
            environment::bind(&graph, &environment, &[], &loaded.base)
        }
    };
    let mut targets = bound.map_err(|mistakes| {
        session.ui.diagnose(&mistakes, |_| "");
        CliError::said(Exit::Invalid)
    })?;
    for wanted in &args.targets {
        if !targets.contains_key(wanted) {
            let known = targets.keys().map(String::as_str);
            let help = suggest(wanted, known).unwrap_or_else(|| {
                let known: Vec<&str> = targets.keys().map(String::as_str).collect();
                format!("it has: {}", known.join(", "))
            });
            return Err(
                CliError::invalid(format!("environment {name} has no target {wanted:?}"))
                    .help(help),
            );
        }
    }
    if !args.targets.is_empty() {
        targets.retain(|name, _| args.targets.contains(name));
    }
    if targets.is_empty() {
        return Err(
            CliError::invalid(format!("environment {name} has no targets"))
                .help("`windlass init` writes a windlass.yaml with one"),
        );
    }
    Ok((name, targets))
}

async fn examine(
    session: &Session,
    secrets: &RunSecrets,
    target: Target,
    timeout: Duration,
) -> Examined {
    let mut one = Examined {
        url: None,
        secrets: IndexMap::new(),
        seen: Examination {
            ledger: match target.ledger {
                Some(_) => LedgerStanding::Unknown,
                None => LedgerStanding::NotNamed,
            },
            ..Examination::default()
        },
        target,
    };
    let mut target = one.target.clone();
    for (place, value) in std::iter::once(("url", &mut target.url)).chain(
        target
            .options
            .iter_mut()
            .map(|(key, value)| (key.as_str(), value)),
    ) {
        let Value::Secret(secret) = value else {
            continue;
        };
        let revealed = secrets.reveal(secret, clock::now()).await;
        let names: Vec<String> = secret.names().map(str::to_owned).collect();
        for name in names {
            let known = one.secrets.entry(name).or_insert(true);
            *known &= revealed.is_ok();
        }
        if let Err(mut failure) = revealed {
            failure.message = format!("{place} of target {}: {}", one.target.name, failure.message);
            one.seen.problem(failure);
        }
    }
    if !one.seen.is_fit() {
        return one;
    }
    let url = match &one.target.url {
        Value::Secret(secret) => match secrets.reveal(secret, clock::now()).await {
            Ok(url) => url,
            Err(failure) => {
                one.seen.problem(failure);
                return one;
            }
        },
        plain => Revealed::new(plain.to_string()),
    };
    let Some(kind) = session.registry().target(&one.target.kind) else {
        let kinds: Vec<&str> = session.registry().target_kinds().collect();
        one.seen.problem(
            Failure::new(
                "target.kind",
                format!(
                    "target {}: this windlass cannot reach a {:?}",
                    one.target.name, one.target.kind
                ),
            )
            .help(format!(
                "it reaches: {}; the kind is what the url begins with, or `kind` in the environment",
                kinds.join(", ")
            )),
        );
        return one;
    };
    let looking = kind.examine(&one.target, url.expose(), &clock::now);
    match tokio::time::timeout(timeout.to_std(), looking).await {
        Ok(seen) => one.seen = seen,
        Err(_) => one.seen.problem(
            Failure::new(
                "target.no_answer",
                format!("target {}: no answer within {timeout}", one.target.name),
            )
            .cause(Cause::ConnectionLost)
            .help("is the server overloaded or a firewall in between? --timeout waits longer"),
        ),
    }
    one.url = Some(url);
    role(&mut one);
    one
}

/// The role that a playbook wants, against the one that the server has.
fn role(one: &mut Examined) {
    let has = one
        .seen
        .identity
        .as_ref()
        .and_then(|identity| identity.role.as_deref());
    if let (Some(wanted), Some(has)) = (one.target.role.as_deref(), has)
        && wanted != has
        && !one
            .seen
            .findings
            .iter()
            .any(|finding| finding.failure.code.contains("role"))
    {
        let failure = Failure::new(
            "target.role",
            format!(
                "target {} is a {has}, and the playbook wants a {wanted}",
                one.target.name
            ),
        )
        .help("was there a switchover? Let the environment's url name the other server");
        one.seen.problem(failure);
    }
}

/// One word for a target.
fn state(seen: &Examination) -> &'static str {
    if !seen.is_fit() {
        "problem"
    } else if seen.identity.is_some() {
        "ok"
    } else {
        "unknown"
    }
}

fn ledger(one: &Examined) -> String {
    let name = one.target.ledger.as_deref().unwrap_or("-");
    match one.seen.ledger {
        LedgerStanding::NotNamed => "-".to_owned(),
        LedgerStanding::Ready => name.to_owned(),
        LedgerStanding::Missing => format!("{name} (missing)"),
        LedgerStanding::Wrong => format!("{name} (no ledger)"),
        LedgerStanding::Unknown => format!("{name} (?)"),
    }
}

fn secrets(one: &Examined) -> String {
    let all: Vec<String> = one
        .secrets
        .iter()
        .map(|(name, found)| {
            if *found {
                name.clone()
            } else {
                format!("{name} (missing)")
            }
        })
        .collect();
    if all.is_empty() {
        "-".to_owned()
    } else {
        all.join(" ")
    }
}

const HEADINGS: [&str; 11] = [
    "TARGET", "STATE", "LATENCY", "VERSION", "ROLE", "TLS", "USER", "RIGHTS", "LEDGER", "SECRETS",
    "INSTANCE",
];

fn cells(one: &Examined) -> [String; 11] {
    let seen = &one.seen;
    let identity = seen.identity.as_ref();
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    [
        one.target.name.clone(),
        state(seen).to_owned(),
        seen.latency
            .map_or_else(|| "-".to_owned(), |latency| latency.to_string()),
        identity.map_or_else(
            || one.target.kind.clone(),
            |identity| cut(&identity.version, 28),
        ),
        or_dash(identity.and_then(|identity| identity.role.as_deref())),
        or_dash(seen.tls.as_deref()),
        or_dash(seen.user.as_deref()),
        or_dash(seen.rights.as_deref()),
        ledger(one),
        secrets(one),
        or_dash(identity.map(|identity| identity.instance.as_str())),
    ]
}

fn table(session: &Session, environment: &str, journal: &journal::Journal, examined: &[Examined]) {
    let style = session.ui.out;
    let rows: Vec<[String; 11]> = examined.iter().map(cells).collect();
    // A column in which nobody has anything to say is left out.
    let shown: Vec<usize> = (0..HEADINGS.len())
        .filter(|at| {
            *at < 2
                || rows
                    .iter()
                    .any(|row| row.get(*at).is_some_and(|c| c != "-"))
        })
        .collect();
    let text = |row: &[String; 11], at: usize| row.get(at).cloned().unwrap_or_default();
    let width = |at: usize| {
        let heading = HEADINGS.get(at).map_or(0, |heading| heading.len());
        rows.iter()
            .map(|row| text(row, at).chars().count())
            .max()
            .unwrap_or(0)
            .max(heading)
    };
    let headings = HEADINGS.map(str::to_owned);
    let line = |row: &[String; 11]| {
        shown
            .iter()
            .map(|at| format!("{:<1$}", text(row, *at), width(*at)))
            .collect::<Vec<_>>()
            .join("  ")
            .trim_end()
            .to_owned()
    };
    session
        .ui
        .line(&format!("environment {}\n", style.bold(environment)));
    session.ui.line(&style.bold(&line(&headings)));
    for (row, one) in rows.iter().zip(examined) {
        let word = state(&one.seen);
        let painted = match word {
            "ok" => style.green(word),
            "problem" => style.red(word),
            _ => style.yellow(word),
        };
        session.ui.line(&line(row).replacen(word, &painted, 1));
    }
    let word = journal.state();
    let painted = match word {
        "ok" => style.green(word),
        "problem" => style.red(word),
        _ => style.yellow(word),
    };
    session
        .ui
        .line(&format!("\njournal {}: {painted}", journal.name()));
    let of_journal = journal.seen.findings.iter().map(|f| ("journal", "", f));
    let of_targets = examined.iter().flat_map(|one| {
        let name = one.target.name.as_str();
        one.seen.findings.iter().map(move |f| ("target ", name, f))
    });
    let findings: Vec<String> = of_journal
        .chain(of_targets)
        .map(|(what, name, finding)| told(&format!("{what}{name}"), finding, style))
        .collect();
    if !findings.is_empty() {
        session.ui.line("");
        session.ui.print(&findings.concat());
    }
}

/// The finding about something, such as `target orders`.
fn told(what: &str, finding: &Finding, style: Style) -> String {
    let lead = match finding.severity {
        Severity::Problem => style.red("problem"),
        Severity::Advice => style.yellow("note"),
    };
    let message = &finding.failure.message;
    let about = if message.starts_with(what) {
        String::new()
    } else {
        format!("{what}: ")
    };
    let mut text = format!("{lead}: {about}{message}\n");
    if let Some(help) = &finding.failure.help {
        text.push_str(&format!(
            "  {} {}: {help}\n",
            style.blue("="),
            style.bold("help")
        ));
    }
    text
}

fn findings(seen: &Examination) -> Vec<Json> {
    let told = |finding: &Finding| {
        json!({
            "severity": finding.severity,
            "code": finding.failure.code,
            "message": finding.failure.message,
            "help": finding.failure.help,
        })
    };
    seen.findings.iter().map(told).collect()
}

fn page(
    environment: &str,
    journal: &journal::Journal,
    examined: &[Examined],
) -> Result<String, CliError> {
    let targets: Vec<Json> = examined
        .iter()
        .map(|one| {
            let seen = &one.seen;
            let identity = seen.identity.as_ref();
            json!({
                "name": one.target.name,
                "kind": one.target.kind,
                "url": one.target.url.to_string(),
                "state": state(seen),
                "latency_ms": seen.latency.map(Duration::as_millis),
                "version": identity.map(|identity| &identity.version),
                "instance": identity.map(|identity| &identity.instance),
                "system": identity.and_then(|identity| identity.system.as_ref()),
                "role": identity.and_then(|identity| identity.role.as_ref()),
                "timeline": identity.and_then(|identity| identity.timeline),
                "tls": seen.tls,
                "user": seen.user,
                "rights": seen.rights,
                "ledger": { "name": one.target.ledger, "state": seen.ledger },
                "secrets": one.secrets.iter().map(|(name, found)| json!({
                    "name": name, "resolves": found,
                })).collect::<Vec<_>>(),
                "findings": findings(seen),
            })
        })
        .collect();
    let fit = journal.seen.is_fit() && examined.iter().all(|one| one.seen.is_fit());
    serde_json::to_string_pretty(&json!({
        "environment": environment, "fit": fit, "journal": journal.as_json(), "targets": targets,
    }))
    .map_err(|error| CliError::new(Exit::Broken, format!("cannot write the page: {error}")))
}

/// Makes what is missing, each after a yes.
async fn init_ledgers(
    session: &Session,
    args: &DoctorArgs,
    examined: &mut [Examined],
) -> Result<(), CliError> {
    let mut any = false;
    for one in examined.iter_mut() {
        let name = one.target.name.clone();
        match (&one.target.ledger, one.seen.ledger) {
            (None, _) => {
                session.ui.say(&format!(
                    "{name}: no ledger is named; add `ledger: windlass_ledger` to it in the environment to have one"
                ));
                continue;
            }
            (Some(table), LedgerStanding::Ready) => {
                session
                    .ui
                    .say(&format!("{name}: the ledger {table} exists"));
                continue;
            }
            (
                Some(table),
                LedgerStanding::Unknown | LedgerStanding::Wrong | LedgerStanding::NotNamed,
            ) => {
                session.ui.say(&format!(
                    "{name}: the ledger {table} is not made, since {}",
                    if one.seen.ledger == LedgerStanding::Wrong {
                        "another table has its name"
                    } else {
                        "the target could not be asked"
                    }
                ));
                continue;
            }
            (Some(_), LedgerStanding::Missing) => {}
        }
        let kind = session.registry().target(&one.target.kind);
        let (Some(kind), Some(url)) = (kind, &one.url) else {
            continue;
        };
        let Some(recipe) = kind.ledger_recipe(&one.target) else {
            session.ui.say(&format!(
                "{name}: a {} target keeps no ledger",
                one.target.kind
            ));
            continue;
        };
        any = true;
        let place = one
            .seen
            .identity
            .as_ref()
            .map(|identity| format!(" ({})", identity.instance))
            .unwrap_or_default();
        session.ui.complain(&format!(
            "\n{name}{place} would get:\n\n{}\n\nrights: {}\n",
            recipe.ddl, recipe.rights
        ));
        if !args.yes && !agreed(session, &format!("make it on {name}? [y/N] ")).await? {
            session.ui.complain(&format!("{name}: nothing was made"));
            continue;
        }
        let making = kind.make_ledger(&one.target, url.expose());
        let made = tokio::time::timeout(args.timeout.to_std(), making).await;
        let failure = match made {
            Ok(Ok(())) => {
                one.seen.ledger = LedgerStanding::Ready;
                one.seen
                    .findings
                    .retain(|finding| !finding.failure.code.contains("ledger_missing"));
                session.ui.complain(&format!("{name}: the ledger is made"));
                continue;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::new(
                "target.no_answer",
                format!("no answer within {}", args.timeout),
            ),
        };
        let mut error = CliError::new(
            Exit::Failed,
            format!(
                "the ledger of {name} could not be made: {}",
                failure.message
            ),
        );
        if let Some(help) = failure.help {
            error = error.help(help);
        }
        return Err(error);
    }
    if !any {
        session.ui.say("no ledger had to be made");
    }
    Ok(())
}

/// Asks a person; anything but yes is no.
async fn agreed(session: &Session, question: &str) -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new(
            Exit::Refused,
            "cannot ask for confirmation: the input is not a terminal",
        )
        .note("nothing was made")
        .help("run it in a terminal, or give --yes once the statements above were read"));
    }
    session.ui.confirm("", question).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_engine::step::Identity;

    fn examined(wanted: Option<&str>, has: Option<&str>) -> Examined {
        let identity = Identity {
            instance: "db1:5432".to_owned(),
            system: None,
            role: has.map(str::to_owned),
            timeline: None,
            version: "PostgreSQL 15.4".to_owned(),
        };
        Examined {
            target: Target {
                name: "orders".to_owned(),
                kind: "postgres".to_owned(),
                url: Value::from("postgres://db1/orders"),
                role: wanted.map(str::to_owned),
                labels: IndexMap::new(),
                ledger: None,
                options: IndexMap::new(),
                identity: None,
                never: Vec::new(),
                avoid: Vec::new(),
                entry: None,
            },
            url: None,
            secrets: IndexMap::new(),
            seen: Examination {
                identity: Some(identity),
                ..Examination::default()
            },
        }
    }

    #[test]
    fn a_wrong_role_is_a_problem() {
        for (wanted, has, fit) in [
            (Some("primary"), Some("standby"), false),
            (Some("primary"), Some("primary"), true),
            (None, Some("standby"), true),
            // A database without roles is not asked for one.
            (Some("primary"), None, true),
        ] {
            let mut one = examined(wanted, has);
            role(&mut one);
            assert_eq!(one.seen.is_fit(), fit, "{wanted:?} {has:?}");
            assert_eq!(state(&one.seen), if fit { "ok" } else { "problem" });
        }
        let mut one = examined(Some("primary"), Some("standby"));
        role(&mut one);
        let text = told("target orders", &one.seen.findings[0], Style::PLAIN);
        assert!(
            text.starts_with(
                "problem: target orders is a standby, and the playbook wants a primary"
            ),
            "{text}"
        );
        // A kind that checked it itself has said so already.
        role(&mut one);
        assert_eq!(one.seen.findings.len(), 1);
    }
}
