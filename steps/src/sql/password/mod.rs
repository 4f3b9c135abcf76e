//! `sql.set_password`
mod scram;
mod seal;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use super::{
    MAX_RESULT_ROWS, QueryOutput, binding,
    execute::positive,
    open_for_preview,
    params::{Bound, Params},
    transaction::{self, Transaction},
};
use crate::target::{Access, Until};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use seal::Sealed;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Cause, Effect, Failure, Fidelity, Figure, Mark, Outcome, ParamError, Preview,
        PreviewContext, Probed, Redo, Resume, Revealed, Step, StepContext, StepHost, StepKind,
        StepTraits, Target, UndoSupport,
        params::{TargetName, Text},
    },
    value::{Duration, Value, to_value},
};

/// Gives a role of a PostgreSQL server another password.
///
/// The password stays in this process. What goes to the server is a verifier, as the server keeps it (SCRAM-SHA-256, with
/// a fresh salt), and it goes as a bound value into a setting of the transaction, from which `ALTER ROLE` is put together
/// on the server: neither is in the text of a statement, so not in `pg_stat_activity`, not in `pg_stat_statements`, and not in
/// what `log_statement = ddl` or a failing statement logs. A superuser also turns statement logging off for the
/// transaction; for others, a server that logs every statement with its parameters logs the verifier.
///
/// **Undo** puts back the verifier that stood there before. It is read from `pg_authid` before the change and kept in the
/// journal sealed under the new password, so undoing needs the secret that `password` names. Where `pg_authid` may not be read
/// (managed services), give `previous`, the password until now, or say `reversible: false`; a plan says which. A password
/// that someone else has changed since is not overwritten.
///
/// **After a crash** the role's verifier is compared with the one that this step makes, where `pg_authid` may be read; else
/// the transaction is looked up as for `sql.execute`.
///
/// Sessions that are open continue. The server's `password_encryption` does not matter; roles that log in by `md5`
/// lines of `pg_hba.conf` can, by clients that know SCRAM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordParams {
    /// The target; its user must be a superuser, or may change this role.
    target: TargetName,
    /// The role.
    role: Text,
    /// The new password, a secret: `${{ secret("app_new") }}`.
    password: Value,
    /// The password until now, a secret, where the server does not let its verifier be read.
    previous: Option<Value>,
    /// Whether the step must be able to put back what was there.
    #[serde(default = "yes")]
    reversible: bool,
    /// How often the password is hashed; more is slower to guess, and slower to log in.
    #[serde(default = "iterations")]
    #[schemars(range(min = 4096, max = 1_000_000))]
    iterations: u32,
    /// How long to wait for a lock; by default the target's.
    lock_timeout: Option<Duration>,
}

fn yes() -> bool {
    true
}
fn iterations() -> u32 {
    scram::ITERATIONS
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PasswordOutput {
    /// The role that has a new password.
    role: String,
}

/// What undo and probe need. A salt is no secret: a server tells it to whoever begins to log in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PasswordCapture {
    /// Of the new verifier, in base64.
    salt: String,
    previous: Previous,
}

/// What the role had before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Previous {
    /// Not kept: the step is not reversible.
    #[default]
    NotKept,
    /// No password at all.
    None,
    /// A verifier, sealed under the new password.
    Sealed(Sealed),
    /// The password that `previous` names.
    Given,
}

pub(crate) struct SetPassword(PasswordParams);

impl StepKind for SetPassword {
    const NAME: &'static str = "sql.set_password";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::ProbeFirst,
        marks: true,
        captures: true,
        undo: UndoSupport::Auto,
        fidelity: Fidelity::Estimated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "\
target: orders
role: app
password: ${{ secret(\"app_new\") }}
";
    type Params = PasswordParams;
    type Step = Self;

    fn traits(with: &Value) -> StepTraits {
        let mut traits = Self::TRAITS;
        if with.get("reversible").and_then(Value::as_bool) == Some(false) {
            traits.undo = UndoSupport::Impossible;
        }
        traits
    }

    fn prepare(params: PasswordParams) -> Result<Self, Vec<ParamError>> {
        let mut errors = Vec::new();
        let secret = |value: &Value| matches!(value, Value::Secret(_));
        if !secret(&params.password) {
            errors.push(
                ParamError::new(
                    "password",
                    "a password is a secret, not a text of a playbook",
                )
                .help("write password: ${{ secret(\"name\") }}"),
            );
        }
        if let Some(previous) = &params.previous {
            if !secret(previous) {
                errors.push(
                    ParamError::new(
                        "previous",
                        "a password is a secret, not a text of a playbook",
                    )
                    .help("write previous: ${{ secret(\"name\") }}"),
                );
            }
            if !params.reversible {
                errors.push(ParamError::new(
                    "previous",
                    "`previous` is for a step that can put it back, and this one says `reversible: false`",
                ));
            }
        }
        if params.role.is_empty() || params.role.contains('\0') {
            errors.push(ParamError::new("role", "that is no name of a role"));
        }
        if !(4_096..=1_000_000).contains(&params.iterations) {
            errors.push(ParamError::new(
                "iterations",
                "must be between 4096 and 1000000; 4096 is what PostgreSQL uses",
            ));
        }
        errors.extend(positive("lock_timeout", params.lock_timeout));
        if errors.is_empty() {
            Ok(Self(params))
        } else {
            Err(errors)
        }
    }
}

/// Whether the role is there, and whether its verifier may be read.
const STANDING: &str = "SELECT r.rolcanlogin AS can_login, has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS may_read, \
     me.rolsuper AS superuser, me.rolname AS me \
     FROM pg_catalog.pg_roles me LEFT JOIN pg_catalog.pg_roles r ON r.rolname = :role WHERE me.rolname = current_user";

const VERIFIER: &str =
    "SELECT rolpassword AS verifier FROM pg_catalog.pg_authid WHERE rolname = :role";

/// Nothing of the transaction is logged, where that may be said.
const QUIET: &str = "SELECT set_config('log_statement', 'none', true) AS a, set_config('log_min_duration_statement', '-1', true) AS b, \
     set_config('log_min_error_statement', 'panic', true) AS c";

/// Bound values, and for this transaction alone.
const HAND_OVER: &str = "SELECT set_config('windlass.role', :role, true) AS a, set_config('windlass.verifier', :verifier, true) AS b";

/// `ALTER ROLE` takes no bound value, so the server puts it together. A failure is raised anew, since the context of the
/// first one would hold the statement.
const ALTER: &str = "DO $windlass$
BEGIN
  EXECUTE pg_catalog.format('ALTER ROLE %I PASSWORD %L',
    pg_catalog.current_setting('windlass.role'),
    NULLIF(pg_catalog.current_setting('windlass.verifier'), ''));
EXCEPTION WHEN OTHERS THEN
  RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
END
$windlass$";

/// What the server says of a role.
struct Standing {
    may_read: bool,
    superuser: bool,
    me: String,
    can_login: bool,
}

/// A statement with its values; people see the statement only.
fn bound(target: &Target, sql: &str, values: &[(&str, &str)]) -> Result<Bound, Failure> {
    let mut params = Params::new();
    for (name, value) in values {
        params.insert((*name).to_owned(), Value::from(*value));
    }
    let mut bound = super::one(target, sql, &params)?;
    sql.clone_into(&mut bound.shown);
    Ok(bound)
}

/// Passwords are of PostgreSQL's kind.
fn of(target: Target) -> Result<Target, Failure> {
    if target.kind == "postgres" {
        return Ok(target);
    }
    Err(Failure::new(
        "sql.no_roles",
        format!(
            "target {} is a {}, and sql.set_password is for postgres",
            target.name, target.kind
        ),
    ))
}

async fn secret(host: &dyn StepHost, what: &str, value: &Value) -> Result<Revealed, Failure> {
    let Value::Secret(secret) = value else {
        return Err(Failure::new("sql.password", format!("{what} is no secret")));
    };
    let content = host.reveal(secret).await?;
    if content.expose().is_empty() || content.expose().contains('\0') {
        return Err(Failure::new(
            "sql.password",
            format!("{what} ({value}) is empty, or holds what no password can"),
        )
        .help("check what its provider gives"));
    }
    Ok(content)
}

impl SetPassword {
    async fn rows(
        &self,
        host: &dyn StepHost,
        target: &Target,
        sql: &str,
        until: &Until,
    ) -> Result<QueryOutput, Failure> {
        let bound = bound(target, sql, &[("role", &self.0.role)])?;
        super::ask(host, target, bound, MAX_RESULT_ROWS, until).await
    }

    async fn standing(
        &self,
        host: &dyn StepHost,
        target: &Target,
        until: &Until,
    ) -> Result<Standing, Failure> {
        let answer = self.rows(host, target, STANDING, until).await?;
        let row = answer.row.unwrap_or_default();
        let flag = |name: &str| row.get(name).and_then(Value::as_bool);
        let Some(can_login) = flag("can_login") else {
            return Err(Failure::new(
                "sql.no_role",
                format!(
                    "there is no role {} on target {}",
                    self.0.role.0, target.name
                ),
            )
            .help("roles are case-sensitive here: write the name as \\du shows it"));
        };
        Ok(Standing {
            may_read: flag("may_read") == Some(true),
            superuser: flag("superuser") == Some(true),
            me: row
                .get("me")
                .and_then(Value::as_str)
                .unwrap_or("the target's user")
                .to_owned(),
            can_login,
        })
    }

    /// The verifier that stands, where it may be read; the inner `None` is no password.
    async fn stands(
        &self,
        cx: &StepContext,
        target: &Target,
    ) -> Result<Option<Option<String>>, Failure> {
        let until = Until::one_of(cx, target)?;
        let host = cx.host.as_ref();
        if !self.standing(host, target, &until).await?.may_read {
            return Ok(None);
        }
        let answer = self.rows(host, target, VERIFIER, &until).await?;
        let verifier = answer.value.unwrap_or_default();
        Ok(Some(verifier.as_str().map(str::to_owned)))
    }

    /// What seals, beside the password.
    fn about(&self, cx: &StepContext) -> String {
        format!("{}/{}/{}", cx.run.id, cx.node, self.0.role.0)
    }

    fn cannot_go_back(&self, me: &str, target: &Target) -> Failure {
        Failure::new(
            "sql.password_unreadable",
            format!(
                "{me} may not read the verifier of {} on target {}, so the change could not be undone",
                self.0.role.0, target.name
            ),
        )
        .cause(Cause::Refused)
        .help(
            "give `previous`, the password until now, as a secret; or say `reversible: false` where there is to be no way back",
        )
    }

    fn verifier(&self, password: &Revealed, salt: &str) -> Result<String, Failure> {
        let salt = STANDARD
            .decode(salt)
            .ok()
            .filter(|salt| salt.len() == scram::SALT)
            .ok_or_else(|| {
                Failure::new(
                    "step.stored_format",
                    "the journal's salt of this step is none",
                )
            })?;
        Ok(scram::verifier(password.expose(), &salt, self.0.iterations))
    }

    /// One transaction that gives the role this verifier, or no password at all.
    async fn set(
        &self,
        cx: &StepContext,
        target: Target,
        verifier: Option<&str>,
        output: Value,
    ) -> Result<(), Failure> {
        let until = Until::one_of(cx, &target)?;
        let standing = self.standing(cx.host.as_ref(), &target, &until).await?;
        let mut statements = Vec::new();
        if standing.superuser {
            statements.push(bound(&target, QUIET, &[])?);
        }
        let values = [
            ("role", self.0.role.0.as_str()),
            ("verifier", verifier.unwrap_or_default()),
        ];
        statements.push(bound(&target, HAND_OVER, &values)?);
        statements.push(bound(&target, ALTER, &[])?);
        let mut transaction = Transaction::begin(cx, target, self.0.lock_timeout).await?;
        for statement in statements {
            transaction.run(cx, statement, 1).await?;
        }
        transaction.commit(cx, output).await
    }

    fn output(&self) -> PasswordOutput {
        PasswordOutput {
            role: self.0.role.0.clone(),
        }
    }
}

fn stored<T: Serialize>(value: &T) -> Result<Value, Failure> {
    to_value(value).map_err(|error| Failure::new("step.stored_format", error.to_string()))
}

impl Step for SetPassword {
    type Capture = PasswordCapture;
    type State = ();
    type Output = PasswordOutput;

    fn figures(output: &PasswordOutput) -> Vec<Figure> {
        vec![Figure::text("role", "role", output.role.as_str())]
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let target = of(cx.target(&self.0.target)?)?;
        let until = Until::preview(cx, &target)?;
        let role = &self.0.role.0;
        let summary = format!("would give {role} another password");
        let mut preview = match open_for_preview(cx, &target, Access::Read, &until).await? {
            Err(preview) => preview,
            Ok(session) => {
                drop(session);
                let standing = self.standing(cx.host.as_ref(), &target, &until).await?;
                let undo = match (self.0.reversible, &self.0.previous, standing.may_read) {
                    (false, _, _) => "impossible: reversible is false".to_owned(),
                    (true, Some(previous), _) => format!("puts back {previous}"),
                    (true, None, true) => "puts back the verifier that is there now".to_owned(),
                    (true, None, false) => {
                        return Err(self.cannot_go_back(&standing.me, &target));
                    }
                };
                let mut preview = Preview::new(Fidelity::Estimated, summary)
                    .line("undo", undo)
                    .line(
                        "log",
                        if standing.superuser {
                            "statement logging is off for the transaction"
                        } else {
                            "no password; a server that logs parameters logs the verifier"
                        },
                    );
                if !standing.can_login {
                    preview =
                        preview.line("login", format!("{role} may not log in, password or not"));
                }
                preview
            }
        };
        preview = preview.line("password", self.0.password.to_string());
        preview.binding = binding(&format!("ALTER ROLE {role} PASSWORD"));
        preview.ends_within = Some(until.limit);
        for value in std::iter::once(&self.0.password).chain(&self.0.previous) {
            if let Value::Secret(secret) = value {
                preview.secrets.extend(secret.names().map(str::to_owned));
            }
        }
        Ok(preview)
    }

    async fn capture(&self, cx: &StepContext) -> Result<PasswordCapture, Failure> {
        let target = of(cx.target(&self.0.target)?)?;
        let salt = STANDARD.encode(seal::random::<{ scram::SALT }>()?);
        let previous = match (self.0.reversible, &self.0.previous) {
            (false, _) => Previous::NotKept,
            (true, Some(previous)) => {
                secret(cx.host.as_ref(), "previous", previous).await?;
                Previous::Given
            }
            (true, None) => match self.stands(cx, &target).await? {
                None => return Err(self.cannot_go_back("the target's user", &target)),
                Some(None) => Previous::None,
                Some(Some(verifier)) => {
                    let password = secret(cx.host.as_ref(), "password", &self.0.password).await?;
                    Previous::Sealed(seal::seal(&verifier, password.expose(), &self.about(cx))?)
                }
            },
        };
        Ok(PasswordCapture { salt, previous })
    }

    async fn execute(
        &self,
        capture: &PasswordCapture,
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<PasswordOutput, ()>, Failure> {
        let target = of(cx.target(&self.0.target)?)?;
        let password = secret(cx.host.as_ref(), "password", &self.0.password).await?;
        let verifier = self.verifier(&password, &capture.salt)?;
        let output = self.output();
        self.set(cx, target, Some(&verifier), stored(&output)?)
            .await?;
        Ok(Outcome::Done(output))
    }

    async fn probe(
        &self,
        capture: &PasswordCapture,
        mark: Option<&Mark>,
        cx: &StepContext,
    ) -> Result<Probed<PasswordOutput>, Failure> {
        let target = of(cx.target(&self.0.target)?)?;
        let password = secret(cx.host.as_ref(), "password", &self.0.password).await?;
        let ours = self.verifier(&password, &capture.salt)?;
        if self.stands(cx, &target).await? == Some(Some(ours)) {
            return Ok(Probed::Done(Some(self.output())));
        }
        // Not there yet is not "never": its COMMIT may be late.
        transaction::probe(mark, cx, target).await
    }

    async fn undo(
        &self,
        capture: &PasswordCapture,
        _: Option<&PasswordOutput>,
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<(), ()>, Failure> {
        let target = of(cx.target(&self.0.target)?)?;
        let host = cx.host.as_ref();
        let password = secret(host, "password", &self.0.password).await?;
        let previous = match (&capture.previous, &self.0.previous) {
            (Previous::NotKept, _) | (Previous::Given, None) => {
                return Err(Failure::new(
                    "sql.password_not_kept",
                    format!("nothing is known of what {} had before", self.0.role.0),
                )
                .help("set its password by hand"));
            }
            (Previous::Given, Some(previous)) => {
                let previous = secret(host, "previous", previous).await?;
                // The same salt: putting it back twice is the same as once.
                Some(self.verifier(&previous, &capture.salt)?)
            }
            (Previous::None, _) => None,
            (Previous::Sealed(sealed), _) => {
                let opened = seal::open(sealed, password.expose(), &self.about(cx));
                Some(opened.ok_or_else(|| {
                    Failure::new(
                        "sql.password_sealed",
                        format!(
                            "what {} had before cannot be read: {} is another password than when the step ran",
                            self.0.role.0, self.0.password
                        ),
                    )
                    .help("let its provider give the password that the step set, then `windlass retry`")
                })?)
            }
        };
        let ours = self.verifier(&password, &capture.salt)?;
        match self.stands(cx, &target).await? {
            Some(now) if now == previous => return Ok(Outcome::Done(())),
            Some(now) if now.as_deref() != Some(ours.as_str()) => {
                return Err(Failure::new(
                    "sql.password_changed",
                    format!(
                        "{} has a password that this step did not set; it was not overwritten",
                        self.0.role.0
                    ),
                )
                .cause(Cause::Refused)
                .help(
                    "find out who changed it; if it is to stay, `windlass resolve` with --done",
                ));
            }
            Some(_) | None => {}
        }
        self.set(cx, target, previous.as_deref(), Value::Null)
            .await?;
        Ok(Outcome::Done(()))
    }
}
