//! The world outside: committed effects, and the executions that commit them at their own time.
use super::{Random, adapter};
use adapter::{Brief, Job};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use windlass_engine::{
    graph::{Action, Body, Undo},
    machine::Report,
    step::{
        ApprovalRequest, Cause, Certainty, Choice, Effect as Touch, Failure, Mark, Phase, Probed,
        Question, Redo, Wait, WaitOn, Woken,
    },
    value::{Duration, Timestamp, Value},
};

/// What a node does, or one part of its undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Do,
    Undo(u32),
}

impl Slot {
    pub(super) fn of(phase: Phase, part: u32) -> Self {
        match phase {
            Phase::Do => Self::Do,
            Phase::Undo => Self::Undo(part),
        }
    }
}

/// What is there of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Effect {
    /// Committed, and not undone.
    pub full: bool,
    /// Something may be there: a part, or an act whose end was not seen.
    pub maybe: bool,
    /// Done by a person.
    pub by_hand: bool,
    /// Parts of the undo that were committed in this life of the effect.
    pub parts: BTreeSet<u32>,
}

type Attempt = (Arc<str>, Slot, u32);

#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub effects: BTreeMap<Arc<str>, Effect>,
    committed: BTreeSet<Attempt>,
    /// Attempts that were told as not done: they can commit no more.
    void: BTreeSet<Attempt>,
    /// Executions whose process is gone, or whose answer was lost, and which may still commit.
    pub zombies: Vec<Attempt>,
    /// What an effect did that it must not: twice, or an undo of nothing.
    pub wrong: Option<String>,
    /// How far the wall clock is ahead of the time of the run, in milliseconds.
    pub ahead: i64,
}

impl World {
    pub(super) fn did(&self, path: &Arc<str>, slot: Slot, attempt: u32) -> bool {
        self.committed.contains(&(path.clone(), slot, attempt))
    }

    pub(super) fn forbid(&mut self, path: &Arc<str>, slot: Slot, attempt: u32) {
        self.void.insert((path.clone(), slot, attempt));
    }

    /// Whether it committed; not where it was told as not done.
    fn commit(&mut self, path: &Arc<str>, slot: Slot, attempt: u32, repeatable: bool) -> bool {
        let key = (path.clone(), slot, attempt);
        if self.void.contains(&key) {
            return false;
        }
        self.committed.insert(key);
        let effect = self.effects.entry(path.clone()).or_default();
        match slot {
            Slot::Do => {
                if effect.full && !repeatable {
                    self.wrong = Some(format!(
                        "{path}: its effect is committed twice, by attempt {attempt} last"
                    ));
                }
                *effect = Effect {
                    full: true,
                    ..Effect::default()
                };
            }
            Slot::Undo(part) => {
                let there =
                    effect.full || effect.maybe || effect.by_hand || !effect.parts.is_empty();
                if !there {
                    self.wrong = Some(format!("{path}: what never took effect is undone"));
                }
                if effect.parts.contains(&part) && !repeatable {
                    self.wrong = Some(format!(
                        "{path}: part {part} of its undo is committed twice"
                    ));
                }
                effect.full = false;
                effect.by_hand = false;
                effect.parts.insert(part);
            }
        }
        true
    }

    /// Something of it may be there: a new life, of which no part is undone.
    pub(super) fn begin(&mut self, path: &Arc<str>) {
        let effect = self.effects.entry(path.clone()).or_default();
        effect.maybe = true;
        effect.parts.clear();
    }

    /// A person saw that a part of an undo is done.
    pub(super) fn part_by_hand(&mut self, path: &Arc<str>, part: u32) {
        let effect = self.effects.entry(path.clone()).or_default();
        effect.full = false;
        effect.by_hand = false;
        effect.parts.insert(part);
    }

    /// A person did it, or undid it.
    pub(super) fn by_hand(&mut self, path: &Arc<str>, phase: Phase) {
        let effect = self.effects.entry(path.clone()).or_default();
        match phase {
            Phase::Do if effect.full => {}
            Phase::Do => {
                effect.by_hand = true;
                effect.parts.clear();
            }
            Phase::Undo => {
                effect.full = false;
                effect.by_hand = false;
                effect.parts.extend([0, 1, 2]);
            }
        }
    }

    /// An execution that lost its driver or its answer commits, or ends without.
    pub(super) fn stray(&mut self, random: &mut Random) {
        if self.zombies.is_empty() {
            return;
        }
        let at = random.below(self.zombies.len());
        let (path, slot, attempt) = self.zombies.swap_remove(at);
        if random.percent(60) {
            self.commit(&path, slot, attempt, false);
        } else {
            self.forbid(&path, slot, attempt);
        }
    }
}

/// How an execution will end, if nothing ends it before.
#[derive(Debug, Clone)]
enum Fate {
    Done,
    /// Before anything happened.
    Early(Failure),
    /// A part happened.
    Partial(Failure),
    /// It may have happened, or may still.
    Unknown(Failure),
}

/// An execution in flight.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub job: Job,
    pub brief: Brief,
    kind: String,
    redo: Redo,
    reads: bool,
    captures: bool,
    marks: bool,
    fate: Fate,
    checkpoints: usize,
    committed: bool,
    /// It waits until what it reported is durable.
    pub waiting: bool,
    pub cancelled: bool,
    begun: bool,
}

/// What an execution does next.
pub(super) enum Move {
    /// It goes on when this is durable.
    Tell(Report),
    /// It has ended.
    End(Report),
    /// Something happened outside, of which the machine does not know yet.
    Acted,
}

pub(super) fn action(
    node: &windlass_engine::graph::Node,
    phase: Phase,
    part: u32,
) -> Option<(&Action, bool)> {
    let Body::Step(step) = &node.body else {
        return None;
    };
    match (phase, &step.undo) {
        (Phase::Do, _) => Some((&step.action, false)),
        (Phase::Undo, Undo::Auto { .. }) => Some((&step.action, true)),
        (Phase::Undo, Undo::Steps(parts)) => parts.get(part as usize).map(|a| (a, false)),
        (Phase::Undo, Undo::None | Undo::Impossible) => None,
    }
}

impl Flight {
    pub(super) fn new(
        job: Job,
        brief: Brief,
        action: &Action,
        auto_undo: bool,
        random: &mut Random,
        failing: usize,
    ) -> Self {
        let reads = action.traits.effect == Touch::ReadOnly;
        let redo = if auto_undo || reads {
            Redo::Repeatable
        } else {
            action.traits.redo
        };
        let fate = if random.percent(failing) {
            let cause = *random
                .pick(&[
                    Cause::Deadlock,
                    Cause::ConnectionLost,
                    Cause::Timeout,
                    Cause::Permanent,
                    Cause::Permanent,
                ])
                .unwrap();
            let failure = Failure::new("sim.failed", "it fails").cause(cause);
            match random.below(6) {
                0..=2 => Fate::Early(failure),
                3 => Fate::Partial(failure.certainty(Certainty::Partial)),
                _ => Fate::Unknown(failure.certainty(Certainty::Unknown)),
            }
        } else {
            Fate::Done
        };
        Self {
            job,
            kind: if auto_undo {
                "auto".to_owned()
            } else {
                action.kind.clone()
            },
            redo,
            reads,
            captures: action.traits.captures && !auto_undo,
            marks: action.traits.marks && !auto_undo,
            fate,
            checkpoints: if action.kind == "sim.batch" {
                random.below(3)
            } else {
                0
            },
            // What slept had acted before.
            committed: action.kind == "sim.slow" && brief.state.is_some() && brief.marked,
            waiting: false,
            cancelled: false,
            begun: false,
            brief,
        }
    }

    fn slot(&self) -> Slot {
        Slot::of(self.brief.phase, self.brief.part)
    }

    /// Its process is gone: what was about to commit may still do so.
    pub(super) fn orphan(&self, world: &mut World) {
        let armed = self.begun && !self.waiting && (!self.marks || self.brief.marked);
        if self.redo != Redo::Repeatable && armed && !self.committed && !self.brief.probe {
            world
                .zombies
                .push((self.brief.path.clone(), self.slot(), self.brief.attempt));
        }
    }

    fn fail(failure: Failure) -> Move {
        Move::End(Report::Failed {
            failure,
            evidence: Vec::new(),
        })
    }

    pub(super) fn next(&mut self, world: &mut World, random: &mut Random, now: Timestamp) -> Move {
        if self.brief.probe {
            return self.probe(world, random);
        }
        if !self.begun {
            self.begun = true;
            return Move::Acted;
        }
        if self.cancelled {
            let failure = Failure::new("sim.cancelled", "ended").cause(Cause::Cancelled);
            if self.committed && random.percent(50) {
                return self.done();
            }
            if !self.committed {
                world.forbid(&self.brief.path, self.slot(), self.brief.attempt);
            }
            return Self::fail(failure.certainty(if self.committed {
                Certainty::Unknown
            } else {
                Certainty::NoEffect
            }));
        }
        if self.reads {
            return self.read(random, now, world.ahead);
        }
        if self.captures && !self.brief.captured {
            self.brief.captured = true;
            return Move::Tell(Report::Captured(Value::text("before")));
        }
        if let Fate::Early(failure) = &self.fate
            && !self.committed
        {
            // It has ended: it will not commit any more.
            world.forbid(&self.brief.path, self.slot(), self.brief.attempt);
            return Self::fail(failure.clone());
        }
        if self.marks && !self.brief.marked {
            self.brief.marked = true;
            return Move::Tell(Report::Marked(Mark {
                token: Value::Null,
                capture: None,
                output: Value::Int(7),
            }));
        }
        if !self.committed {
            return self.act(world, random);
        }
        if self.checkpoints > 0 {
            self.checkpoints -= 1;
            return Move::Tell(Report::Progressed(Value::Int(1)));
        }
        if self.kind == "sim.slow" && self.brief.woken.is_none() {
            return self.sleep(random, now);
        }
        if let Fate::Unknown(failure) = &self.fate {
            return Self::fail(failure.clone());
        }
        self.done()
    }

    fn done(&self) -> Move {
        let output = match self.brief.phase {
            Phase::Do => Value::Int(7),
            Phase::Undo => Value::Null,
        };
        Move::End(Report::Done {
            output,
            evidence: Vec::new(),
        })
    }

    fn act(&mut self, world: &mut World, random: &mut Random) -> Move {
        let (path, slot, attempt) = (self.brief.path.clone(), self.slot(), self.brief.attempt);
        match &self.fate {
            Fate::Partial(failure) => {
                match slot {
                    Slot::Do => world.begin(&path),
                    Slot::Undo(_) => world.effects.entry(path.clone()).or_default().maybe = true,
                }
                world.forbid(&path, slot, attempt);
                return Self::fail(failure.clone());
            }
            Fate::Unknown(failure) if random.percent(50) => {
                if slot == Slot::Do {
                    world.begin(&path);
                }
                if self.redo != Redo::Repeatable {
                    world.zombies.push((path, slot, attempt));
                }
                return Self::fail(failure.clone());
            }
            Fate::Done | Fate::Early(_) | Fate::Unknown(_) => {}
        }
        if !world.commit(&path, slot, attempt, self.redo == Redo::Repeatable) {
            return Self::fail(Failure::new("sim.void", "told as not done already"));
        }
        self.committed = true;
        Move::Acted
    }

    fn sleep(&mut self, random: &mut Random, now: Timestamp) -> Move {
        let on = if random.percent(70) {
            WaitOn::Timer(after(now, 10 + random.below(100)))
        } else {
            WaitOn::Signal("go".to_owned())
        };
        Move::End(Report::Suspended {
            state: Value::Int(1),
            wait: Wait {
                on,
                deadline: None,
                wall: None,
            },
        })
    }

    fn read(&mut self, random: &mut Random, now: Timestamp, ahead: i64) -> Move {
        if let Fate::Early(failure) | Fate::Partial(failure) | Fate::Unknown(failure) = &self.fate {
            return Self::fail(failure.clone());
        }
        let woken = self.brief.woken.take();
        let suspend = |on, deadline| {
            Move::End(Report::Suspended {
                state: Value::Null,
                wait: Wait {
                    on,
                    deadline,
                    wall: None,
                },
            })
        };
        let deadline = random
            .percent(30)
            .then(|| after(now, 50 + random.below(400)));
        match (self.kind.as_str(), woken) {
            ("sim.timer" | "sim.signal" | "sim.approval", Some(Woken::Deadline)) => {
                Self::fail(Failure::new("sim.late", "too late").cause(Cause::Timeout))
            }
            ("sim.approval", Some(Woken::Decision(decision))) if !decision.approved => {
                Self::fail(Failure::new("sim.rejected", "rejected").cause(Cause::Refused))
            }
            // Until an instant of the wall clock, which may be elsewhere by then.
            ("sim.timer", woken) => {
                let wall = now.as_millisecond() + ahead;
                let until = match (&self.brief.state, woken) {
                    (Some(Value::Int(until)), Some(_)) => *until,
                    (_, _) => wall + i64::try_from(random.below(200)).unwrap_or(0),
                };
                let until_then = Timestamp::from_millisecond(until).unwrap();
                let then = adapter::of_wall(until_then, ahead);
                if self.brief.state.is_some() && then <= now {
                    return self.done();
                }
                Move::End(Report::Suspended {
                    state: Value::Int(until),
                    wait: Wait {
                        on: WaitOn::Timer(then),
                        deadline: None,
                        wall: Some(until_then),
                    },
                })
            }
            ("sim.signal", None) => suspend(WaitOn::Signal("go".to_owned()), deadline),
            ("sim.approval", None) => suspend(
                WaitOn::Approval(Box::new(request(&self.brief.path))),
                deadline,
            ),
            _ => self.done(),
        }
    }

    fn probe(&mut self, world: &mut World, random: &mut Random) -> Move {
        if !self.begun {
            self.begun = true;
            return Move::Acted;
        }
        let (path, slot, attempt) = (&self.brief.path, self.slot(), self.brief.attempt);
        let answer = if self.redo == Redo::AskOperator || random.percent(15) {
            Probed::InDoubt("it cannot be told".to_owned())
        } else if world.did(path, slot, attempt) {
            Probed::Done(None)
        } else {
            world.forbid(path, slot, attempt);
            Probed::NotDone
        };
        Move::End(Report::Probed(answer))
    }
}

fn after(now: Timestamp, ms: usize) -> Timestamp {
    Duration::from_millis(i64::try_from(ms).unwrap_or(0)).after(now)
}

/// What the approval at a path asks: the same each time.
pub(super) fn request(path: &str) -> ApprovalRequest {
    let flavour = path.bytes().fold(0_u32, |sum, b| sum + u32::from(b));
    let choice = |n: i64| Choice {
        label: n.to_string(),
        value: Value::Int(n),
    };
    ApprovalRequest {
        prompt: "go on?".to_owned(),
        groups: if flavour % 2 == 0 {
            vec!["dba".to_owned()]
        } else {
            Vec::new()
        },
        quorum: 1 + flavour % 3 % 2,
        separation_of_duties: flavour % 5 == 0,
        show: Value::Null,
        shown_hash: "h".to_owned(),
        ask: if flavour % 4 == 1 {
            let from = vec![choice(10), choice(20)];
            let question = Question::Choose {
                from,
                min: 1,
                max: 1,
                many: false,
            };
            [("which".to_owned(), question)].into()
        } else {
            indexmap::IndexMap::new()
        },
    }
}
