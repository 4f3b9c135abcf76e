//! The providers that ship: an environment variable, a file, a program, and text that stands in `windlass.yaml`.
use super::{MIN_CHARS, SecretError, SecretProvider};
use crate::{step::Revealed, value::Duration};
use futures_util::future::BoxFuture;
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{os::unix::fs::MetadataExt, path::PathBuf, process::Stdio};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

/// The most that a secret may hold: a key ring, not a dump.
const LIMIT: usize = 64 * 1024;

/// How long the rest of a program's group may take to go once it is killed.
const GONE: std::time::Duration = std::time::Duration::from_secs(2);

fn checked(bytes: Vec<u8>, origin: &str) -> Result<Revealed, SecretError> {
    if bytes.len() > LIMIT {
        return Err(SecretError::TooLong {
            origin: origin.to_owned(),
            limit: LIMIT,
        });
    }
    let mut text = String::from_utf8(bytes).map_err(|_| SecretError::NotText {
        origin: origin.to_owned(),
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    let chars = text.trim().chars().count();
    if chars < MIN_CHARS {
        return Err(SecretError::TooShort {
            origin: origin.to_owned(),
            chars,
            least: MIN_CHARS,
        });
    }
    Ok(Revealed::new(text))
}

/// `{ env: VARIABLE }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvSource {
    /// The variable's name.
    pub variable: String,
}

impl SecretProvider for EnvSource {
    fn source(&self) -> String {
        format!("environment variable {}", self.variable)
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Revealed, SecretError>> {
        use std::os::unix::ffi::OsStringExt as _;
        Box::pin(async {
            let value = std::env::var_os(&self.variable).ok_or_else(|| SecretError::Unset {
                variable: self.variable.clone(),
            })?;
            checked(value.into_vec(), &self.source())
        })
    }
}

/// `{ file: PATH }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// The file.
    pub path: PathBuf,
    /// Whether its group may read it too.
    pub allow_group_read: bool,
}

impl FileSource {
    /// Permissions are those of the file that is open, so that it cannot be exchanged in between.
    async fn read(&self) -> Result<Vec<u8>, SecretError> {
        let wrong = |error| SecretError::File {
            path: self.path.clone(),
            error,
        };
        let file = tokio::fs::File::open(&self.path).await.map_err(wrong)?;
        let about = file.metadata().await.map_err(wrong)?;
        if about.is_dir() {
            return Err(wrong(std::io::ErrorKind::IsADirectory.into()));
        }
        let mode = about.mode() & 0o777;
        let who = match (mode & 0o040 != 0, mode & 0o004 != 0) {
            (_, true) => Some("everybody"),
            (true, false) if !self.allow_group_read => Some("its group"),
            (true | false, false) => None,
        };
        if let Some(who) = who {
            return Err(SecretError::Readable {
                path: self.path.clone(),
                mode,
                who,
            });
        }
        let mut bytes = Vec::new();
        file.take(LIMIT as u64 + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(wrong)?;
        Ok(bytes)
    }
}

impl SecretProvider for FileSource {
    fn source(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Revealed, SecretError>> {
        Box::pin(async { checked(self.read().await?, &self.source()) })
    }
}

/// `{ command: [PROGRAM, ARGUMENT, …] }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSource {
    /// The program and its arguments; no shell reads them.
    pub argv: Vec<String>,
    /// Variables that it takes from the environment of the engine; all others are kept from it.
    pub inherit_env: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Where it runs.
    pub folder: PathBuf,
}

/// Kills the program and all that it started, also where nobody waits for it any more.
struct Group(Option<Pid>);

impl Group {
    fn kill(&self) -> bool {
        self.0
            .is_some_and(|leader| killpg(leader, Signal::SIGKILL) != Err(Errno::ESRCH))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl CommandSource {
    fn program(&self) -> String {
        self.argv.first().cloned().unwrap_or_default()
    }

    async fn run(&self) -> Result<Vec<u8>, SecretError> {
        let not_started = |error| SecretError::NotStarted {
            program: self.program(),
            error,
        };
        let mut command = Command::new(self.program());
        command
            .args(self.argv.iter().skip(1))
            .env_clear()
            .envs(
                self.inherit_env
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It may hold the secret, so nobody reads it.
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if !self.folder.as_os_str().is_empty() {
            command.current_dir(&self.folder);
        }
        let mut child = command.spawn().map_err(not_started)?;
        let mut group = Group(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .map(Pid::from_raw),
        );
        let stdout = child.stdout.take();
        let mut bytes = Vec::new();
        let answer = async {
            if let Some(stdout) = stdout {
                fill(&mut bytes, stdout).await.map_err(not_started)?;
            }
            child.wait().await.map_err(not_started)
        };
        let status = match tokio::time::timeout(self.timeout.to_std(), answer).await {
            Ok(status) => {
                // It has ended by itself: an agent that it left in the background is not ours to end.
                group.0 = None;
                status?
            }
            Err(_) => {
                group.kill();
                // The leader is reaped, so that its group is gone.
                drop(tokio::time::timeout(GONE, child.wait()).await);
                return Err(SecretError::Timeout {
                    program: self.program(),
                    limit: self.timeout,
                });
            }
        };
        if bytes.len() > LIMIT {
            return Err(SecretError::TooLong {
                origin: self.source(),
                limit: LIMIT,
            });
        }
        if status.success() {
            return Ok(bytes);
        }
        let how = match status.code() {
            Some(code) => format!("ended with exit code {code}"),
            None => "was ended by a signal".to_owned(),
        };
        Err(SecretError::Program {
            program: self.program(),
            how,
        })
    }
}

/// Reads up to one byte more than is allowed, then lets go of the pipe.
async fn fill(bytes: &mut Vec<u8>, from: impl AsyncRead + Unpin) -> std::io::Result<()> {
    from.take(LIMIT as u64 + 1).read_to_end(bytes).await?;
    Ok(())
}

impl SecretProvider for CommandSource {
    fn source(&self) -> String {
        format!("command {}", self.program())
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Revealed, SecretError>> {
        Box::pin(async { checked(self.run().await?, &self.source()) })
    }
}

/// A password that stands in a URL of `windlass.yaml`: it is kept out of all else.
#[derive(Clone)]
pub struct PlainSource {
    /// Where it stands: `the url of target orders`.
    pub place: String,
    /// What it is.
    pub content: Revealed,
}

impl std::fmt::Debug for PlainSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PlainSource").field(&self.place).finish()
    }
}

impl SecretProvider for PlainSource {
    fn source(&self) -> String {
        self.place.clone()
    }

    fn fetch(&self) -> BoxFuture<'_, Result<Revealed, SecretError>> {
        Box::pin(async { Ok(self.content.clone()) })
    }
}
