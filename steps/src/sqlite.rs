//! `sqlite.backup`
use crate::{
    sql::one,
    target::{self, Access, Until, sqlite},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use windlass_engine::{
    step::{
        Cause, Certainty, Effect, Failure, Fidelity, Figure, Mark, Outcome, ParamError, Preview,
        PreviewContext, Probed, Redo, Resume, Step, StepContext, StepHost, StepKind, StepTraits,
        UndoSupport, params::TargetName,
    },
    value::{Duration, Size, Value, from_value, to_value},
};

/// Copies a SQLite database to a new file while it is in use (`VACUUM INTO`).
///
/// The copy is one consistent moment of the source; writers continue meanwhile. It is written beside its place
/// under another name, flushed to disk, and only then takes its place, so a file there is always whole.
/// A file that is already there is never replaced.
///
/// **Exactly once.** Before the copy takes its place, the journal records which file it is (device and inode).
/// After a crash that shows whether it did; if it did not, the step runs again from the beginning.
///
/// **Undo** removes the copy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupParams {
    /// The database to copy.
    target: TargetName,
    /// The target that the copy becomes; its file must not be there yet.
    to: TargetName,
}

/// What is there when it is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct BackupOutput {
    /// The copy's file.
    file: String,
    /// Its size.
    size: Size,
    /// How long the copy took.
    took: Duration,
}

/// Where the copy goes, found free before the act.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    file: PathBuf,
    /// Where it is written first.
    partial: PathBuf,
}

pub(crate) struct Backup(BackupParams);

impl StepKind for Backup {
    const NAME: &'static str = "sqlite.backup";
    const TRAITS: StepTraits = StepTraits {
        effect: Effect::Writes,
        redo: Redo::ProbeFirst,
        marks: true,
        captures: true,
        undo: UndoSupport::Auto,
        fidelity: Fidelity::Estimated,
        skippable: true,
    };
    const EXAMPLE: &'static str = "target: orders\nto: scratch\n";
    type Params = BackupParams;
    type Step = Self;

    fn prepare(params: BackupParams) -> Result<Self, Vec<ParamError>> {
        if params.target == params.to {
            return Err(vec![ParamError::new(
                "to",
                "a database cannot be copied over itself",
            )]);
        }
        Ok(Self(params))
    }
}

fn trouble(what: &str, path: &Path, error: &io::Error) -> Failure {
    let cause = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Cause::Refused,
        _ => Cause::Permanent,
    };
    Failure::new("sqlite.file", format!("{what} {}: {error}", path.display())).cause(cause)
}

/// Removes a database file with what SQLite may keep beside it; a file that is not there is removed already.
fn remove(file: &Path) -> Result<(), Failure> {
    for suffix in ["-wal", "-shm", "-journal", ""] {
        let mut name = OsString::from(file);
        name.push(suffix);
        let path = PathBuf::from(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(trouble("cannot remove", &path, &error)),
        }
    }
    Ok(())
}

/// Which file a path is now.
fn inode(path: &Path) -> Result<Option<String>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(file) => Ok(Some(format!("{}:{}", file.dev(), file.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trouble("cannot look at", path, &error)),
    }
}

/// Names in a folder outlive a power cut only when the folder is flushed too.
fn flush(path: &Path) -> Result<(), Failure> {
    fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| trouble("cannot flush", path, &error))
}

fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

impl Backup {
    async fn place(&self, host: &dyn StepHost, run: &str) -> Result<Place, Failure> {
        let to = host.target(&self.0.to)?;
        if to.kind != "sqlite" {
            return Err(Failure::new(
                "target.kind",
                format!(
                    "target {} is a {}, and the copy is a SQLite file",
                    to.name, to.kind
                ),
            ));
        }
        let url = target::url(host, &to).await?;
        let file = sqlite::path_of(&to, url.expose())?;
        let mut partial = OsString::from(&file);
        partial.push(format!(".{run}.partial"));
        Ok(Place {
            file,
            partial: partial.into(),
        })
    }

    /// How large the source is, and how much room there is for the copy.
    async fn sizes(&self, host: &dyn StepHost, place: &Place) -> Result<(u64, u64), Failure> {
        let source = host.target(&self.0.target)?;
        let url = target::url(host, &source).await?;
        let path = sqlite::path_of(&source, url.expose())?;
        let size = fs::metadata(&path)
            .map_err(|error| trouble("cannot look at", &path, &error))?
            .len();
        let folder = folder(&place.file);
        let room = nix::sys::statvfs::statvfs(folder)
            .map_err(|errno| trouble("cannot look at", folder, &errno.into()))?;
        #[expect(
            clippy::useless_conversion,
            reason = "the width of these differs from platform to platform"
        )]
        let free =
            u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size()));
        Ok((size, free))
    }

    /// Why the copy could not be made, as things are.
    fn refusal(place: &Place, size: u64, free: u64) -> Option<Failure> {
        if place.file.exists() {
            return Some(
                Failure::new(
                    "sqlite.exists",
                    format!(
                        "{} is already there, and is not replaced",
                        place.file.display()
                    ),
                )
                .cause(Cause::Refused)
                .help("remove it, or name another file for the target of the copy"),
            );
        }
        (free < size).then(|| {
            Failure::new(
                "sqlite.no_room",
                format!(
                    "the copy may need {}, and {} has room for {}",
                    Size::of_bytes(size).rounded(),
                    folder(&place.file).display(),
                    Size::of_bytes(free).rounded()
                ),
            )
            .cause(Cause::Refused)
            .help("make room, or let the copy go elsewhere")
        })
    }
}

impl Step for Backup {
    type Capture = Place;
    type State = ();
    type Output = BackupOutput;

    fn figures(output: &BackupOutput) -> Vec<Figure> {
        let size = u64::try_from(output.size.0).unwrap_or(0);
        vec![Figure::bytes("size", size, "")]
    }

    async fn preview(&self, cx: &PreviewContext) -> Result<Preview, Failure> {
        let host = cx.host.as_ref();
        let place = self.place(host, "plan").await?;
        let preview = match self.sizes(host, &place).await {
            Err(failure) => Preview::new(
                Fidelity::Unknown,
                format!("would copy {} to {}", self.0.target, place.file.display()),
            )
            .line("size", format!("not known: {}", failure.message)),
            Ok((size, free)) => {
                let preview = match Self::refusal(&place, size, free) {
                    None => Preview::new(
                        Fidelity::Estimated,
                        format!("would copy {} to {}", self.0.target, place.file.display()),
                    ),
                    Some(refusal) => Preview::new(
                        Fidelity::Estimated,
                        format!("would fail as things are now: {}", refusal.message),
                    ),
                };
                preview
                    .line(
                        "size",
                        format!("{} at most", Size::of_bytes(size).rounded()),
                    )
                    .line("room", Size::of_bytes(free).rounded())
            }
        };
        Ok(preview)
    }

    async fn capture(&self, cx: &StepContext) -> Result<Place, Failure> {
        let host = cx.host.as_ref();
        let place = self.place(host, &cx.run.short_id).await?;
        let (size, free) = self.sizes(host, &place).await?;
        match Self::refusal(&place, size, free) {
            Some(refusal) => Err(refusal),
            None => Ok(place),
        }
    }

    async fn execute(
        &self,
        place: &Place,
        _: Resume<()>,
        cx: &StepContext,
    ) -> Result<Outcome<BackupOutput, ()>, Failure> {
        let started = cx.now();
        // An attempt that was cut short may have left its part.
        remove(&place.partial)?;
        let source = cx.target(&self.0.target)?;
        let until = Until::of(cx, &source, None)?;
        let mut session = target::open(cx.host.as_ref(), &source, Access::Write, &until).await?;
        let params = [(
            "file".to_owned(),
            Value::from(place.partial.display().to_string()),
        )]
        .into_iter()
        .collect();
        let copied = match one(&source, "VACUUM INTO :'file'", &params) {
            Ok(vacuum) => session.run(&vacuum, 0, &until).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = copied {
            // The first failure is the one to tell; nothing has taken the copy's place.
            drop(remove(&place.partial));
            return Err(failure.certainty(Certainty::NoEffect));
        }
        flush(&place.partial)?;
        let size = fs::metadata(&place.partial)
            .map_err(|error| trouble("cannot look at", &place.partial, &error))?
            .len();
        let output = BackupOutput {
            file: place.file.display().to_string(),
            size: Size::of_bytes(size),
            took: Duration::between(started, cx.now()),
        };
        cx.point_of_no_return(Mark {
            token: inode(&place.partial)?.map_or(Value::Null, Value::from),
            capture: None,
            output: to_value(&output)
                .map_err(|error| Failure::new("step.stored_format", error.to_string()))?,
        })
        .await?;
        // Unlike a rename, a link refuses a name that is taken.
        fs::hard_link(&place.partial, &place.file)
            .map_err(|error| trouble("cannot put the copy at", &place.file, &error))?;
        let unknown = |failure: Failure| failure.certainty(Certainty::Unknown);
        fs::remove_file(&place.partial)
            .map_err(|error| unknown(trouble("cannot remove", &place.partial, &error)))?;
        flush(folder(&place.file)).map_err(unknown)?;
        Ok(Outcome::Done(output))
    }

    async fn probe(
        &self,
        place: &Place,
        mark: Option<&Mark>,
        _: &StepContext,
    ) -> Result<Probed<BackupOutput>, Failure> {
        let Some(mark) = mark else {
            return Ok(Probed::NotDone);
        };
        let marked = mark.token.as_str().map(str::to_owned);
        if marked.is_some() && inode(&place.file)? == marked {
            let left = fs::remove_file(&place.partial);
            if let Err(error) = left
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(trouble("cannot remove", &place.partial, &error));
            }
            flush(folder(&place.file))?;
            let output = from_value(&mark.output)
                .map_err(|error| Failure::new("step.stored_format", error.to_string()))?;
            return Ok(Probed::Done(Some(output)));
        }
        if inode(&place.partial)? == marked {
            return Ok(Probed::NotDone);
        }
        Ok(Probed::InDoubt(format!(
            "the copy is neither at {} nor at {}: somebody has moved or removed it",
            place.file.display(),
            place.partial.display()
        )))
    }

    async fn undo(
        &self,
        place: &Place,
        _: Option<&BackupOutput>,
        _: Resume<()>,
        _: &StepContext,
    ) -> Result<Outcome<(), ()>, Failure> {
        remove(&place.partial)?;
        remove(&place.file)?;
        Ok(Outcome::Done(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, fresh, sqlite_target, step, try_step, with};
    use serde_json::json;

    const TABLE: &str = "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2);";

    fn bench() -> (Bench, PathBuf, Value) {
        let bench = Bench::new(TABLE);
        let copy = bench.folder.path().join("copy.db");
        bench.add(sqlite_target("copy", &copy));
        (bench, copy, with(json!({"target": "db", "to": "copy"})))
    }

    fn rows(path: &Path) -> i64 {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap()
    }

    #[tokio::test]
    async fn copies_and_takes_it_back_twice() {
        let (bench, copy, params) = bench();
        let before = bench.snapshot();
        let preview = bench
            .preview("sqlite.backup", params.clone())
            .await
            .unwrap();
        assert_eq!(preview.fidelity, Fidelity::Estimated);
        let cx = bench.context();
        let step = step("sqlite.backup", params);
        let capture = step.capture(&cx).await.unwrap();
        assert_eq!(
            bench.snapshot(),
            before,
            "preview and capture write nothing"
        );
        let Outcome::Done(output) = step.execute(&capture, fresh(), &cx).await.unwrap() else {
            panic!("done in one go");
        };
        assert_eq!(rows(&copy), 2);
        for _ in 0..2 {
            let undone = step
                .undo(&capture, Some(&output), fresh(), &cx)
                .await
                .unwrap();
            assert_eq!(undone, Outcome::Done(Value::Null));
            assert_eq!(bench.snapshot(), before);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_there_stays() {
        let (bench, copy, params) = bench();
        fs::write(&copy, "precious").unwrap();
        let preview = bench
            .preview("sqlite.backup", params.clone())
            .await
            .unwrap();
        assert!(preview.summary.contains("already there"), "{preview:?}");
        let failure = bench.execute("sqlite.backup", params).await.unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.certainty),
            ("sqlite.exists", Certainty::NoEffect)
        );
        assert_eq!(fs::read(&copy).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn one_that_comes_in_between_stays_too() {
        let (bench, copy, params) = bench();
        let other = copy.clone();
        *bench.host.on_mark.lock().unwrap() = Some(Box::new(move || {
            fs::write(&other, "precious").unwrap();
            Ok(())
        }));
        let failure = bench.execute("sqlite.backup", params).await.unwrap_err();
        assert_eq!(failure.certainty, Certainty::NoEffect, "{failure}");
        assert_eq!(fs::read(&copy).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_crash_at_each_place_is_settled_by_the_file_itself() {
        let (bench, copy, params) = bench();
        let cx = bench.context();
        let step = step("sqlite.backup", params);
        let capture = step.capture(&cx).await.unwrap();
        let place: Place = from_value(&capture).unwrap();
        assert_eq!(
            step.probe(&capture, None, &cx).await.unwrap(),
            Probed::NotDone
        );

        fs::write(&place.partial, "the beginning of a copy").unwrap();
        let done = step.execute(&capture, fresh(), &cx).await.unwrap();
        let Outcome::Done(output) = done else {
            panic!("done in one go")
        };
        let mark = bench.host.marks.lock().unwrap().pop().unwrap();
        let probed = step.probe(&capture, Some(&mark), &cx).await.unwrap();
        assert_eq!(probed, Probed::Done(Some(output)));

        // Between the link and the removal of the first name.
        fs::hard_link(&copy, &place.partial).unwrap();
        let probed = step.probe(&capture, Some(&mark), &cx).await.unwrap();
        assert!(matches!(probed, Probed::Done(_)), "{probed:?}");
        assert!(!place.partial.exists());

        // Before the link.
        fs::rename(&copy, &place.partial).unwrap();
        let probed = step.probe(&capture, Some(&mark), &cx).await.unwrap();
        assert_eq!(probed, Probed::NotDone);
        step.execute(&capture, fresh(), &cx).await.unwrap();
        assert_eq!(rows(&copy), 2);

        remove(&copy).unwrap();
        let probed = step.probe(&capture, Some(&mark), &cx).await.unwrap();
        assert!(matches!(probed, Probed::InDoubt(_)), "{probed:?}");
    }

    #[test]
    fn never_over_itself() {
        let params = with(json!({"target": "db", "to": "db"}));
        assert!(try_step("sqlite.backup", &params).is_err());
    }
}
