//! Waiting: for a time, for a condition, for a signal. All but the condition hold no thread meanwhile.
pub(crate) mod condition;
pub(crate) mod duration;
pub(crate) mod signal;
#[cfg(test)]
mod tests;
pub(crate) mod until;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_engine::{
    step::{
        Cause, Effect, Failure, Fidelity, Outcome, Redo, Resume, StepContext, StepTraits,
        UndoSupport, Wait, WaitOn, Woken,
    },
    value::{Duration, Timestamp},
};

/// What holds for a step that only waits.
pub(crate) const WAITS: StepTraits = StepTraits {
    effect: Effect::ReadOnly,
    redo: Redo::Repeatable,
    marks: false,
    captures: false,
    undo: UndoSupport::None,
    fidelity: Fidelity::Simulated,
    skippable: true,
};

/// What a wait gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Waited {
    /// When the wait began.
    #[schemars(extend("x-windlass" = "value"))]
    pub(crate) from: At,
    /// When it was over.
    #[schemars(extend("x-windlass" = "value"))]
    pub(crate) until: At,
}

/// An instant that stays one in expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(pub(crate) Timestamp);

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        windlass_engine::value::Value::Timestamp(self.0).serialize(s)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        use windlass_engine::value::Value;
        let value = Value::deserialize(d)?;
        if let Value::Timestamp(at) = value {
            return Ok(Self(at));
        }
        value
            .as_str()
            .ok_or_else(|| D::Error::custom(format!("expected a timestamp, got {value}")))?
            .parse()
            .map(Self)
            .map_err(|_| {
                D::Error::custom(format!(
                    "{value:?} is no timestamp; write 2026-11-20T03:00:00Z or with an offset"
                ))
            })
    }
}

impl JsonSchema for At {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "x-windlass": "value" })
    }
}

/// What a timer keeps while it sleeps: the same instants after a crash.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct TimerState {
    from: Option<At>,
    until: Option<At>,
}

/// What a timer waits for.
pub(crate) enum Goal {
    /// A span of the run's own time, from when it began.
    Span(Duration),
    /// An instant of the wall clock.
    Instant(Timestamp),
}

/// Sleeps; a timeout of the step ends it as a failure.
pub(crate) fn timer(
    resume: &Resume<TimerState>,
    goal: &Goal,
    cx: &StepContext,
) -> Result<Outcome<Waited, TimerState>, Failure> {
    let (from, until) = match (resume.state.from, resume.state.until, goal) {
        (Some(from), Some(until), _) => (from.0, until.0),
        (_, _, Goal::Span(span)) => (cx.now(), span.after(cx.now())),
        (_, _, Goal::Instant(at)) => (cx.now(), *at),
    };
    if resume.woken == Some(Woken::Deadline) {
        return Err(timed_out(cx, &format!("it was to wait until {until}")));
    }
    // Somebody may have set the clock since it fell asleep.
    let (at, wall) = match goal {
        Goal::Span(_) => (until, None),
        Goal::Instant(_) => (cx.of_wall(until), Some(until)),
    };
    if cx.now() >= at {
        return Ok(Outcome::Done(Waited {
            from: At(from),
            until: At(until),
        }));
    }
    Ok(Outcome::Suspend {
        state: TimerState {
            from: Some(At(from)),
            until: Some(At(until)),
        },
        wait: Wait {
            on: WaitOn::Timer(at),
            deadline: cx.deadline,
            wall,
        },
    })
}

/// When a wait for people or a signal gives up: as it expires, or by the timeout of the step, whichever comes first. Both are spans:
/// a clock that is set does not move them.
pub(crate) fn gives_up(expires: Option<Timestamp>, cx: &StepContext) -> Option<Timestamp> {
    expires.into_iter().chain(cx.deadline).min()
}

/// Whether a wait that was woken by its deadline is not over: runs of before were woken by the wall clock.
pub(crate) fn waits_on(expires: Option<Timestamp>, cx: &StepContext) -> bool {
    gives_up(expires, cx).is_some_and(|at| at > cx.now())
}

/// The failure of a wait whose time is over.
pub(crate) fn timed_out(cx: &StepContext, for_what: &str) -> Failure {
    let waited = Duration::between(cx.first_started_at, cx.now());
    Failure::new(
        "wait.timeout",
        format!("the wait was given up after {waited}: {for_what}"),
    )
    .cause(Cause::Timeout)
}
