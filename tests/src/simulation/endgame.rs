//! From any state, some sequence of accepted commands ends the run; each strategy is a person's way out.
use super::{
    commands,
    oracle::{Check, Stand, wrong},
    play::{PEOPLE, Play},
};
use windlass_engine::machine::{Command, EventBody, Submitted};

const MOVES: usize = 4_000;
/// After so many moves the process dies no more: that one which dies at each append never comes to its end is no fault.
const DEATHS: usize = 2_000;
/// After so many commands the way out is to leave things as they are.
const PATIENCE: usize = 25;
const COMMANDS: usize = 60;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Undo,
    Leave,
    Any,
}

impl Play {
    /// Plays on until the run is over, with the commands that lead on.
    pub(super) fn end_game(&mut self) -> Check {
        let way =
            [Way::Forward, Way::Forward, Way::Undo, Way::Leave, Way::Any][self.random.below(5)];
        self.failing = if self.random.percent(15) { 10 } else { 0 };
        let mut asked = 0;
        for at in 0..MOVES {
            if at == DEATHS {
                self.crashing = 0;
            }
            self.turn()?;
            if self.has_mail() && self.random.percent(40) {
                self.take_inbox()?;
                continue;
            }
            if self.flights.iter().any(|flight| !flight.waiting) {
                self.fly()?;
                continue;
            }
            if !self.flights.is_empty() {
                continue;
            }
            if self.engine.next_event(self.now).is_some() || !self.engine.wanted().is_empty() {
                continue;
            }
            if self.has_mail() {
                self.take_inbox()?;
                continue;
            }
            if self.engine.finished().is_some() {
                return Ok(());
            }
            if !self.world.zombies.is_empty() {
                self.stray()?;
                continue;
            }
            if let Some(at) = self.engine.next_timer() {
                self.now = self.now.max(at);
                if self.engine.next_event(self.now).is_none() {
                    return wrong("P8", "a timer is due, and nothing follows from it");
                }
                continue;
            }
            if let Some(why) = self.hangs() {
                return wrong("P8", why);
            }
            asked += 1;
            if asked > COMMANDS {
                return wrong(
                    "P8",
                    format!("{COMMANDS} commands that lead on did not end the run"),
                );
            }
            let way = if asked > PATIENCE { Way::Leave } else { way };
            let Some((who, command)) = self.choose(way)? else {
                return wrong("P8", "no accepted command leads on");
            };
            self.send_as(who, command, 0);
            self.take_inbox()?;
        }
        wrong("P8", "the run does not end")
    }

    /// A quiet run waits for something that has a name.
    fn hangs(&self) -> Option<String> {
        let waits = self.oracle.known().any(|(_, forward, undo)| {
            [forward, undo].iter().any(|exec| {
                matches!(
                    exec.stand,
                    Stand::Doubt | Stand::Asleep | Stand::Asking | Stand::Gated | Stand::Shut
                )
            }) || undo.stand == Stand::Failed
        });
        let held = self.oracle.paused || !self.oracle.holders().is_empty();
        (!waits && !held).then(|| "the run is quiet, and waits for nothing: it hangs".to_owned())
    }

    /// The first command of a way out that is accepted and leads on.
    fn choose(
        &mut self,
        way: Way,
    ) -> Result<Option<(&'static str, Command)>, Box<super::Violation>> {
        let mut candidates = commands::proposals(&self.oracle);
        let rank = |command: &Command| -> usize {
            let cancel = match (way, command) {
                (Way::Undo, Command::Cancel { undo: true, .. })
                | (Way::Leave, Command::Cancel { undo: false, .. }) => return 0,
                (_, Command::Cancel { .. } | Command::Undo) => true,
                _ => false,
            };
            match command {
                _ if cancel => 90,
                _ if super::adapter::is_close(command) => {
                    if way == Way::Leave {
                        80
                    } else {
                        95
                    }
                }
                Command::Unpause => 1,
                Command::SetInput { .. } => 2,
                Command::Vote { approve: true, .. } => 3,
                Command::Signal { .. } => 4,
                Command::Resolve { .. } if self.is_doubt(command) => 5,
                Command::Retry { .. } => 6,
                Command::Resolve { .. } => 8,
                Command::Skip { .. } if way == Way::Leave => 5,
                Command::Skip { .. } => 7,
                _ => 10,
            }
        };
        let mut ranked: Vec<(usize, Command)> = candidates
            .drain(..)
            .map(|command| (rank(&command), command))
            .collect();
        if way == Way::Any {
            for at in (1..ranked.len()).rev() {
                ranked.swap(at, self.random.below(at + 1));
            }
        } else {
            ranked.sort_by_key(|(rank, _)| *rank);
        }
        for (_, command) in ranked {
            let people: &[&'static str] = if matches!(command, Command::Vote { .. }) {
                &PEOPLE
            } else {
                &PEOPLE[..1]
            };
            for who in people {
                if self.leads_on(who, &command)? {
                    return Ok(Some((who, command)));
                }
            }
        }
        Ok(None)
    }

    fn is_doubt(&self, command: &Command) -> bool {
        matches!(command, Command::Resolve { node, .. }
            if self.oracle.stand(node) == Stand::Doubt || self.oracle.undo_stand(node) == Stand::Doubt)
    }

    fn leads_on(&self, who: &str, command: &Command) -> Result<bool, Box<super::Violation>> {
        let submitted = Submitted {
            id: "try".to_owned(),
            run: "r".to_owned(),
            who: who.to_owned(),
            account: None,
            at: self.now,
            command: command.clone(),
        };
        let events = self.engine.command(&submitted, self.now);
        if !matches!(
            events.first().map(|event| &event.body),
            Some(EventBody::CommandAccepted(_))
        ) {
            return Ok(false);
        }
        let mut engine = self.engine.clone();
        for event in &events {
            if let Err(why) = engine.apply(event) {
                return wrong(
                    "P1",
                    format!("{command:?} is accepted, and its events cannot be applied: {why}"),
                );
            }
        }
        let answers = match command {
            Command::Vote { .. } | Command::Unpause => true,
            // One of several undos that failed beside each other.
            Command::Skip { node, .. } | Command::Resolve { node, .. } => {
                self.oracle.undo_stand(node) == Stand::Failed
            }
            _ => false,
        };
        Ok(answers
            || engine.next_event(self.now).is_some()
            || !engine.wanted().is_empty()
            || engine.finished().is_some()
            || engine.next_timer().is_some())
    }
}
