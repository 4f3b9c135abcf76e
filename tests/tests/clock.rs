//! The wall clock is set while a run is driven: spans do not notice, instants follow. By a clock of the test's own.
#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]
use futures_util::future::BoxFuture;
use std::{
    sync::{Arc, Mutex},
    time::Duration as Real,
};
use tokio::sync::watch;
use windlass_engine::{
    journal::{Journal, MemoryJournal},
    machine::{Command, EventBody, Holder, Machine, NodeState, Outcome, Submitted},
    run::{Clock, DriveOptions, Driver, Ended, RunHandle},
    step::WaitOn,
    value::{Duration, Timestamp},
};
use windlass_tests::House;

/// Time goes only where the test moves it.
struct TestClock {
    elapsed: watch::Sender<Real>,
    /// What the wall clock said as the process began, and how far it was set since.
    wall: Mutex<(Timestamp, Duration)>,
}

impl TestClock {
    fn at(wall: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            elapsed: watch::channel(Real::ZERO).0,
            wall: Mutex::new((wall, Duration::ZERO)),
        })
    }

    /// Time passes, a little at a time, so that whatever is due runs when it is due.
    async fn pass(&self, span: Duration) {
        let steps = 40;
        for _ in 0..steps {
            self.elapsed
                .send_modify(|elapsed| *elapsed += span.to_std() / steps);
            tokio::time::sleep(Real::from_millis(3)).await;
        }
    }

    fn set_wall(&self, by: Duration) {
        let mut wall = self.wall.lock().unwrap();
        wall.1 = Duration::from_millis(wall.1.as_millis() + by.as_millis());
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let (began, by) = *self.wall.lock().unwrap();
        by.after(Duration::from(self.elapsed()).after(began))
    }
    fn elapsed(&self) -> Real {
        *self.elapsed.borrow()
    }
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let mut elapsed = self.elapsed.subscribe();
        let end = *elapsed.borrow() + span.to_std();
        Box::pin(async move {
            drop(elapsed.wait_for(|now| *now >= end).await);
        })
    }
}

fn minutes(n: i64) -> Duration {
    Duration::from_secs(n * 60)
}

fn noon() -> Timestamp {
    "2027-03-01T12:00:00Z".parse().unwrap()
}

struct Run {
    clock: Arc<TestClock>,
    journal: Arc<MemoryJournal>,
    handle: RunHandle,
}

fn driver(journal: &Arc<MemoryJournal>, clock: &Arc<TestClock>) -> Driver {
    let holder = Holder {
        user: "ana".to_owned(),
        account: None,
        host: "here".to_owned(),
        pid: 1,
        since: noon(),
    };
    let registry = Arc::new(windlass_steps::registry());
    Driver::with_clock(journal.clone(), registry, holder, clock.clone())
}

impl Run {
    async fn start(playbook: &str) -> Self {
        let house =
            House::new("environments: { local: { targets: {} } }\napprovers: { dba: [ana] }\n");
        let (clock, journal) = (TestClock::at(noon()), Arc::new(MemoryJournal::new()));
        let new = house.new_run(House::compile(playbook), &[]);
        let handle = driver(&journal, &clock)
            .start(new, DriveOptions::default())
            .await
            .unwrap();
        tokio::time::sleep(Real::from_millis(100)).await;
        Self {
            clock,
            journal,
            handle,
        }
    }

    async fn machine(&self) -> Machine {
        Machine::recover(&self.journal.load(&self.handle.id, 1).await.unwrap()).unwrap()
    }

    async fn state(&self, step: &str) -> NodeState {
        self.machine().await.instance(step).unwrap().state
    }

    /// What the run noticed of the clock.
    async fn steps(&self) -> Vec<Duration> {
        let events = self.journal.load(&self.handle.id, 1).await.unwrap();
        assert!(
            events.is_sorted_by_key(|event| event.at),
            "times of a run never step"
        );
        let steps = events.iter().filter_map(|event| match &event.body {
            EventBody::ClockStepped(step) => Some(step.by),
            _ => None,
        });
        steps.collect()
    }
}

fn about(steps: &[Duration], expected: &[i64]) {
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    for (step, minutes) in steps.iter().zip(expected) {
        assert!(
            (step.as_millis() - minutes * 60_000).abs() < 2_000,
            "{steps:?}"
        );
    }
}

const SPAN: &str = "
playbook: span
policy: { max_duration: 2h }
steps:
  - id: wait
    uses: wait.for
    with: { duration: 1h }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_as_long_as_it_is() {
    for by in [300, -120] {
        let run = Run::start(SPAN).await;
        run.clock.pass(minutes(30)).await;
        run.clock.set_wall(minutes(by));
        run.clock.pass(minutes(25)).await;
        assert_eq!(run.state("wait").await, NodeState::Waiting, "{by}");
        about(&run.steps().await, &[by]);
        run.clock.pass(minutes(10)).await;
        assert_eq!(run.state("wait").await, NodeState::Succeeded, "{by}");
        assert_eq!(
            run.machine().await.finished().unwrap().outcome,
            Outcome::Succeeded
        );
    }
}

const INSTANT: &str = "
playbook: instant
steps:
  - id: wait
    uses: wait.until
    with: { time: \"2027-03-01T13:00:00Z\" }
";

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_follows_the_wall_clock() {
    // Forwards: it is there at once.
    let run = Run::start(INSTANT).await;
    run.clock.pass(minutes(10)).await;
    run.clock.set_wall(minutes(49));
    run.clock.pass(Duration::from_secs(10)).await;
    assert_eq!(run.state("wait").await, NodeState::Waiting);
    run.clock.set_wall(minutes(2));
    run.clock.pass(Duration::from_secs(10)).await;
    assert_eq!(run.state("wait").await, NodeState::Succeeded);
    about(&run.steps().await, &[49, 2]);

    // Backwards: it is two hours more until then.
    let run = Run::start(INSTANT).await;
    run.clock.pass(minutes(10)).await;
    run.clock.set_wall(minutes(-120));
    run.clock.pass(minutes(160)).await;
    assert_eq!(run.state("wait").await, NodeState::Waiting);
    run.clock.pass(minutes(15)).await;
    assert_eq!(run.state("wait").await, NodeState::Succeeded);
    about(&run.steps().await, &[-120]);
}

const VOTE: &str = "
playbook: vote
policy: { on_failure: stop }
steps:
  - id: ask
    uses: approval
    with: { prompt: Go on?, expires: 4h }
";

/// People have four hours to answer, whatever the clock says meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_expires_after_its_span() {
    for to in [170, -60] {
        let run = Run::start(VOTE).await;
        run.clock.pass(minutes(60)).await;
        run.clock.set_wall(minutes(to));
        run.clock.pass(minutes(175)).await;
        assert_eq!(run.state("ask").await, NodeState::AwaitingApproval, "{to}");
        run.clock.pass(minutes(10)).await;
        assert_eq!(run.state("ask").await, NodeState::Failed, "{to}");
    }
}

const LATER: &str = "
playbook: later
steps:
  - { id: first, uses: wait.for, with: { duration: 10m } }
  - { id: then, uses: wait.for, with: { duration: 1h } }
  - { id: at, uses: wait.until, with: { time: \"2027-03-01T13:30:00Z\" } }
";

/// The next process begins with a clock that is behind the run's last event.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_resumed_by_a_clock_behind_goes_on() {
    let mut run = Run::start(LATER).await;
    run.clock.pass(minutes(12)).await;
    run.handle.stop();
    assert_eq!(run.handle.ended().await.unwrap(), Ended::Interrupted);
    run.clock = TestClock::at("2027-03-01T10:12:00Z".parse().unwrap());
    run.handle = driver(&run.journal, &run.clock)
        .resume(&run.handle.id, DriveOptions::default())
        .await
        .unwrap();
    run.clock.pass(minutes(50)).await;
    assert_eq!(run.state("then").await, NodeState::Waiting);
    run.clock.pass(minutes(11)).await;
    assert_eq!(run.state("then").await, NodeState::Succeeded);
    // Behind the run's last event, which was after the ten minutes of the first step.
    let behind = run.steps().await[0].as_millis() / 60_000;
    assert!((-119..=-118).contains(&behind), "{behind}");
    // 11:13 by the wall clock: an instant at 13:30 is more than two hours away.
    run.clock.pass(minutes(130)).await;
    assert_eq!(run.state("at").await, NodeState::Waiting);
    run.clock.pass(minutes(12)).await;
    assert_eq!(
        run.machine().await.finished().unwrap().outcome,
        Outcome::Succeeded
    );
}

fn order(run: &Run, id: &str, at: &str, command: Command) -> Submitted {
    Submitted {
        id: id.to_owned(),
        run: run.handle.id.clone(),
        who: "ana".to_owned(),
        account: None,
        at: at.parse().unwrap(),
        command,
    }
}

impl Run {
    /// The process stops; the next one begins with this wall clock, and finds these orders.
    async fn taken_over(&mut self, wall: &str, orders: Vec<Submitted>) {
        self.handle.stop();
        assert_eq!(self.handle.ended().await.unwrap(), Ended::Interrupted);
        for order in orders {
            self.journal.submit(order).await.unwrap();
        }
        self.clock = TestClock::at(wall.parse().unwrap());
        self.handle = driver(&self.journal, &self.clock)
            .resume(&self.handle.id, DriveOptions::default())
            .await
            .unwrap();
        self.clock.pass(Duration::from_secs(5)).await;
    }
}

/// The clock was set back between them: the second was sent at an earlier time by its own clock.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_taken_in_the_order_in_which_they_came() {
    let mut run = Run::start(LATER).await;
    run.clock.pass(minutes(12)).await;
    let orders = vec![
        order(
            &run,
            "1",
            "2027-03-01T12:12:00Z",
            Command::Pause { because: None },
        ),
        order(&run, "2", "2027-03-01T10:13:00Z", Command::Unpause),
    ];
    run.taken_over("2027-03-01T10:14:00Z", orders).await;
    assert!(run.machine().await.paused().is_none());
    run.clock.pass(minutes(61)).await;
    assert_eq!(run.state("then").await, NodeState::Succeeded);
}

/// The next process finds its clock behind: the question would look at it, and a vote that waits comes first.
#[tokio::test(flavor = "multi_thread")]
async fn a_vote_counts_though_the_clock_was_set_since() {
    let mut run = Run::start(VOTE).await;
    run.clock.pass(minutes(60)).await;
    let machine = run.machine().await;
    let wait = machine
        .instance("ask")
        .unwrap()
        .forward
        .wait()
        .unwrap()
        .clone();
    let WaitOn::Approval(request) = &wait.on else {
        panic!("{wait:?}");
    };
    let vote = Command::Vote {
        node: "ask".to_owned(),
        approve: true,
        answers: indexmap::IndexMap::new(),
        reason: None,
        digest: machine.started().digest.clone(),
        shown_hash: request.shown_hash.clone(),
    };
    let mut vote = order(&run, "1", "2027-03-01T11:29:00Z", vote);
    vote.who = "bo".to_owned();
    run.taken_over("2027-03-01T11:30:00Z", vec![vote]).await;
    assert_eq!(run.state("ask").await, NodeState::Succeeded);
}
