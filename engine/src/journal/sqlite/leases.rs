//! Leases as operating-system locks: one byte of one file for each run, so that they end with the process, whatever
//! ends it, and the next one waits for nothing.
use crate::{
    journal::{Lease, record::Hash},
    machine::Holder,
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::signal::kill,
    unistd::{Pid, gethostname},
};
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The end of a run's chain, as the next append finds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tip {
    pub(super) no: i64,
    pub(super) seq: u64,
    pub(super) hash: Hash,
}

struct Held {
    epoch: u64,
    tip: Tip,
}

/// The lock file, as far as this process may use it.
pub(super) enum Locks {
    Open(File),
    /// There is none: no run of this file was ever driven.
    Missing,
    /// It may not be read.
    Closed,
}

/// All leases of this process on one journal.
///
/// Locks of one open file do not exclude each other, so this process's own are also kept in a map.
pub(super) struct Leases {
    locks: Locks,
    held: Mutex<HashMap<Arc<str>, Held>>,
}

impl Leases {
    pub(super) fn new(locks: Locks) -> Self {
        let held = Mutex::default();
        Self { locks, held }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Arc<str>, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the run's byte; `None` where somebody holds it.
    pub(super) fn reserve(self: &Arc<Self>, run: &str, no: i64) -> io::Result<Option<SqliteLease>> {
        let mut held = self.held();
        if held.contains_key(run) {
            return Ok(None);
        }
        let Locks::Open(file) = &self.locks else {
            return Ok(None);
        };
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(no, libc::F_WRLCK))) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let run: Arc<str> = run.into();
        let tip = Tip {
            no,
            seq: 0,
            hash: [0; 32],
        };
        held.insert(run.clone(), Held { epoch: 0, tip });
        Ok(Some(SqliteLease {
            leases: self.clone(),
            run,
            epoch: 0,
        }))
    }

    /// The end of the run's chain, where this epoch holds the run.
    pub(super) fn tip(&self, run: &str, epoch: u64) -> Option<Tip> {
        let held = self.held();
        let held = held.get(run).filter(|held| held.epoch == epoch)?;
        Some(held.tip)
    }

    /// Moves the end of the run's chain after a commit.
    pub(super) fn advance(&self, run: &str, epoch: u64, seq: u64, hash: Hash) {
        if let Some(held) = self.held().get_mut(run)
            && held.epoch == epoch
        {
            held.tip.seq = seq;
            held.tip.hash = hash;
        }
    }

    /// The numbers of the runs that this process drives.
    pub(super) fn ours(&self) -> HashSet<i64> {
        self.held().values().map(|held| held.tip.no).collect()
    }

    /// The runs that this process drives, and how far each was written.
    pub(super) fn driven(&self) -> Vec<(String, u64)> {
        let held = self.held();
        let granted = held.iter().filter(|(_, held)| held.epoch > 0);
        granted
            .map(|(run, held)| (run.to_string(), held.tip.seq))
            .collect()
    }

    /// Whether another process, or another handle of this one, drives the run.
    pub(super) fn held_elsewhere(&self, no: i64, holder: Option<&Holder>) -> bool {
        let file = match &self.locks {
            Locks::Open(file) => file,
            Locks::Missing => return false,
            Locks::Closed => return holder.is_some_and(is_alive),
        };
        let mut asked = byte(no, libc::F_WRLCK);
        let told = fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked));
        told.is_ok() && i32::from(asked.l_type) != libc::F_UNLCK
    }

    fn release(&self, run: &str, epoch: u64) {
        let mut held = self.held();
        if let Some(gone) = held.get(run).filter(|held| held.epoch == epoch) {
            // Nobody can be told of a failure here, and closing the file unlocks in any case.
            let unlock = byte(gone.tip.no, libc::F_UNLCK);
            if let Locks::Open(file) = &self.locks {
                fcntl(file, FcntlArg::F_OFD_SETLK(&unlock)).ok();
            }
            held.remove(run);
        }
    }
}

/// Whether the process that took a lease last is there still. It says less than the lock: it may have given the lease back, or another
/// process may have its number.
fn is_alive(holder: &Holder) -> bool {
    let here = gethostname().ok().and_then(|name| name.into_string().ok());
    let Ok(pid) = i32::try_from(holder.pid) else {
        return false;
    };
    here.as_deref() == Some(holder.host.as_str())
        && matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM))
}

fn byte(no: i64, kind: i32) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0, // from the beginning of the file
        l_start: no,
        l_len: 1,
        l_pid: 0,
    }
}

/// The right to append to one run.
pub(super) struct SqliteLease {
    leases: Arc<Leases>,
    run: Arc<str>,
    epoch: u64,
}

impl SqliteLease {
    /// Makes a reserved run's lease a real one.
    pub(super) fn grant(&mut self, epoch: u64, seq: u64, hash: Hash) {
        if let Some(held) = self.leases.held().get_mut(&self.run) {
            held.epoch = epoch;
            held.tip.seq = seq;
            held.tip.hash = hash;
        }
        self.epoch = epoch;
    }
}

impl Lease for SqliteLease {
    fn run(&self) -> &str {
        &self.run
    }
    fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for SqliteLease {
    fn drop(&mut self) {
        self.leases.release(&self.run, self.epoch);
    }
}
