//! One program in a process group of its own.
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    collections::VecDeque,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};
use windlass_engine::step::{Revealed, StepContext, Stream};

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long output is read after the program has ended: a child in the background may hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// How long a killed group may take to be gone.
const GONE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
/// How much of the end of an output is kept beside its beginning, for messages.
const TAIL: usize = 4_096;

/// What to run.
pub(super) struct Request {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, Revealed)>,
    pub(super) cwd: Option<String>,
    pub(super) stdin: Option<Revealed>,
    /// Bytes to keep of each output.
    pub(super) cap: usize,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Exit(i32),
    Signal(i32),
    /// By us.
    Stopped {
        timed_out: bool,
        /// Whether every process of the group is gone.
        gone: bool,
    },
}

/// What it wrote.
pub(super) struct Ran {
    pub(super) ended: Ended,
    pub(super) stdout: Caught,
    pub(super) stderr: Caught,
}

/// The beginning of an output, its size, and its last bytes.
pub(super) struct Caught {
    cap: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    pub(super) size: u64,
}

impl Caught {
    fn new(cap: usize) -> Self {
        Self {
            cap,
            head: Vec::new(),
            tail: VecDeque::new(),
            size: 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        let room = self.cap.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend(bytes.iter().take(room));
        self.tail.extend(bytes);
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
    }

    pub(super) fn truncated(&self) -> bool {
        self.size > self.head.len() as u64
    }

    /// As text; bytes that are no UTF-8 are marked.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// The last line that says anything, without the content of secrets.
    pub(super) fn last_line(&self, cx: &StepContext) -> Option<String> {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let text = cx.host.clean(String::from_utf8_lossy(&tail).into_owned());
        let line = text
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())?;
        Some(line.chars().take(400).collect())
    }

    async fn fill(&mut self, mut from: impl AsyncRead + Unpin, cx: &StepContext, stream: Stream) {
        let mut buffer = vec![0; 16 * 1024];
        let mut parted = Parted::default();
        // A pipe that cannot be read has ended.
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let bytes = buffer.get(..read).unwrap_or_default();
            self.push(bytes);
            cx.print(stream, &parted.text(bytes));
        }
        cx.print(stream, &parted.rest());
    }
}

/// Bytes as text, where a character may be parted between two reads.
#[derive(Default)]
struct Parted(Vec<u8>);

impl Parted {
    fn text(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(bytes);
        // Three bytes at most are the beginning of a character whose end has not come.
        let end = (all.len().saturating_sub(3)..all.len())
            .find(|at| {
                all.get(*at..).is_some_and(|end| {
                    matches!(std::str::from_utf8(end), Err(error) if error.valid_up_to() == 0 && error.error_len().is_none())
                })
            })
            .unwrap_or(all.len());
        self.0 = all.split_off(end);
        String::from_utf8_lossy(&all).into_owned()
    }

    fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// Kills the group where the step is dropped while the program runs.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn signal(&self, signal: Option<Signal>) -> Result<(), Errno> {
        self.leader
            .map_or(Err(Errno::ESRCH), |leader| killpg(leader, signal))
    }

    fn is_gone(&self) -> bool {
        self.signal(None) == Err(Errno::ESRCH)
    }

    async fn wait_gone(&self, limit: Duration) -> bool {
        let mut left = limit;
        while !self.is_gone() {
            if left.is_zero() {
                return false;
            }
            tokio::time::sleep(POLL).await;
            left = left.saturating_sub(POLL);
        }
        true
    }

    /// Tells all to end, then kills what is left. Says whether all are gone.
    async fn end(&self) -> bool {
        // ESRCH says that nobody is left to tell.
        self.signal(Some(Signal::SIGTERM)).ok();
        if self.wait_gone(GRACE).await {
            return true;
        }
        self.signal(Some(Signal::SIGKILL)).ok();
        self.wait_gone(GONE).await
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Some(Signal::SIGKILL)).ok();
    }
}

/// Runs it to its end, or to the step's.
pub(super) async fn run(request: Request, cx: &StepContext) -> std::io::Result<Ran> {
    let (program, args) = request
        .argv
        .split_first()
        .ok_or_else(|| std::io::Error::other("there is no program"))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(
            request
                .env
                .iter()
                .map(|(name, value)| (name, value.expose())),
        )
        .stdin(if request.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(cwd) = &request.cwd {
        command.current_dir(cwd);
    }
    let mut child = command.spawn()?;
    let mut group = Group {
        leader: child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw),
    };
    let (mut stdout, mut stderr) = (Caught::new(request.cap), Caught::new(request.cap));
    let (out, err, input) = (child.stdout.take(), child.stderr.take(), child.stdin.take());
    let ended = {
        let reading = async {
            tokio::join!(
                async {
                    if let Some(out) = out {
                        stdout.fill(out, cx, Stream::Stdout).await;
                    }
                },
                async {
                    if let Some(err) = err {
                        stderr.fill(err, cx, Stream::Stderr).await;
                    }
                },
                async {
                    if let (Some(mut input), Some(text)) = (input, &request.stdin) {
                        // A program that does not read to the end closes the pipe; that is no failure.
                        drop(input.write_all(text.expose().as_bytes()).await);
                    }
                },
            )
        };
        tokio::pin!(reading);
        let mut read = false;
        let over = over(cx);
        tokio::pin!(over);
        loop {
            tokio::select! {
                status = child.wait() => {
                    if !read {
                        drop(tokio::time::timeout(LAST_OUTPUT, &mut reading).await);
                    }
                    // What it left in the background is not ours to end.
                    group.leader = None;
                    break ended(status?);
                }
                _ = &mut reading, if !read => read = true,
                timed_out = &mut over => {
                    let ending = async {
                        // The leader is reaped meanwhile, or it would count as a member for ever.
                        tokio::join!(group.end(), child.wait()).0
                    };
                    let limit = GRACE + GONE + GONE;
                    let gone = tokio::time::timeout(limit, ending).await.unwrap_or(false);
                    if !read {
                        drop(tokio::time::timeout(LAST_OUTPUT, &mut reading).await);
                    }
                    break Ended::Stopped { timed_out, gone };
                }
            }
        }
    };
    Ok(Ran {
        ended,
        stdout,
        stderr,
    })
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}

/// Ends with the step; true where its time is over.
async fn over(cx: &StepContext) -> bool {
    loop {
        let left = cx.remaining();
        if left.is_some_and(|left| left.as_millis() <= 0) {
            return true;
        }
        if cx.cancel.is_cancelled() {
            return false;
        }
        let sleep = async {
            match left {
                Some(left) => cx.host.sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = cx.cancel.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However the reads part a text, it is put together as it was; what is no UTF-8 is marked, and nothing is lost.
        #[test]
        fn characters_survive_the_reads(text in "[a-zé€😀\\n]{0,60}", sizes in proptest::collection::vec(1_usize..5, 0..80)) {
            let mut parted = Parted::default();
            let mut rest = text.as_bytes();
            let mut out = String::new();
            for size in sizes.into_iter().chain(std::iter::repeat(7)) {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(size.min(rest.len()));
                out.push_str(&parted.text(now));
                rest = later;
            }
            out.push_str(&parted.rest());
            prop_assert_eq!(out, text);
        }
    }

    #[test]
    fn what_is_no_text_is_marked() {
        let mut parted = Parted::default();
        assert_eq!(parted.text(b"a\xffb\xe2\x82"), "a\u{fffd}b");
        assert_eq!(parted.text(b"c"), "\u{fffd}c");
        assert_eq!(parted.text(b"\xf0"), "");
        assert_eq!(parted.rest(), "\u{fffd}");
    }
}
