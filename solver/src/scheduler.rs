//! What to do next: a pure state machine, event in, actions out.
//!
//! Each vertex goes through these states; nothing else moves it.
//!
//! ```text
//! Idle ─demand─▶ Looking ──hit────────────────────────────────▶ Done
//!                   │ miss                                        ▲
//!                   ▼                                             │
//!                Waiting (for its inputs) ─▶ LookingAgain ──hit───┤
//!                                               │ miss            │
//!                                               ▼                 │
//!                                    Queued ─▶ Running ───────────┘
//! ```
//!
//! Demand starts at the target and goes on to the inputs of a vertex only when the vertex is not in the
//! cache: what is found ends the walk. The second look happens when all inputs are there, because their
//! content may then say that nothing changed. `Queued` waits for a place when the number of vertices
//! that run at the same time is limited.
//!
//! Invariants:
//! - Each vertex is looked up at most twice and executed at most once.
//! - A vertex executes only when all of its inputs are `Done`.
//! - After the first failure or a cancel no new work is started, and [`Action::Stop`] is given once.
//! - When no action is under way any more the machine is [`is_over`](Scheduler::is_over).

use std::collections::VecDeque;

/// Something that happened to a vertex, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// A lookup found a result.
    Hit(usize),
    /// A lookup found nothing.
    Miss(usize),
    /// An execution gave a result.
    Finished(usize),
    /// A lookup or execution failed.
    Failed(usize),
    /// The user wants to stop.
    Cancel,
}

/// Something to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Look for a result by definition, before anything is known of the inputs' contents.
    Lookup(usize),
    /// Look again, with all inputs at hand.
    LookupWithInputs(usize),
    /// Run the op.
    Execute(usize),
    /// Stop everything that is under way.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Looking,
    Waiting { missing: usize },
    LookingAgain,
    Queued,
    Running,
    Done,
    Failed,
}

/// The state of all vertices of one solve.
#[derive(Debug, Clone)]
pub(crate) struct Scheduler {
    inputs: Vec<Vec<usize>>,
    users: Vec<Vec<usize>>,
    states: Vec<State>,
    /// Whether a vertex takes one of the limited places while it runs.
    limited: Vec<bool>,
    free: usize,
    queue: VecDeque<usize>,
    under_way: usize,
    stopped: bool,
}

impl Scheduler {
    /// A machine for vertices whose inputs are given by index, each list without repeats.
    ///
    /// At most `places` of the vertices marked `limited` run at the same time; `None` means no limit.
    pub(crate) fn new(inputs: Vec<Vec<usize>>, limited: Vec<bool>, places: Option<usize>) -> Self {
        let mut users = vec![Vec::new(); inputs.len()];
        for (vertex, its) in inputs.iter().enumerate() {
            for &input in its {
                users[input].push(vertex);
            }
        }
        Self {
            states: vec![State::Idle; inputs.len()],
            inputs,
            users,
            limited,
            free: places.unwrap_or(usize::MAX).max(1),
            queue: VecDeque::new(),
            under_way: 0,
            stopped: false,
        }
    }

    /// Asks for the result of a vertex; the beginning of everything.
    pub(crate) fn demand(&mut self, vertex: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        self.start(vertex, &mut actions);
        actions
    }

    /// Takes what happened and says what to do.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Hit(vertex) => {
                self.under_way -= 1;
                self.done(vertex, &mut actions);
            }
            Input::Miss(vertex) => {
                self.under_way -= 1;
                match self.states[vertex] {
                    State::Looking => self.want_inputs(vertex, &mut actions),
                    _ => self.queue(vertex, &mut actions),
                }
            }
            Input::Finished(vertex) => {
                self.under_way -= 1;
                self.release(vertex, &mut actions);
                self.done(vertex, &mut actions);
            }
            Input::Failed(vertex) => {
                self.under_way -= 1;
                self.states[vertex] = State::Failed;
                self.stop(&mut actions);
            }
            Input::Cancel => self.stop(&mut actions),
        }
        actions
    }

    /// Whether nothing is under way any more.
    pub(crate) fn is_over(&self) -> bool {
        self.under_way == 0
    }

    /// Whether the vertex has a result.
    #[cfg(test)]
    pub(crate) fn is_done(&self, vertex: usize) -> bool {
        self.states[vertex] == State::Done
    }

    /// Whether nobody has asked for the vertex.
    pub(crate) fn is_idle(&self, vertex: usize) -> bool {
        self.states[vertex] == State::Idle
    }

    fn start(&mut self, vertex: usize, actions: &mut Vec<Action>) {
        if self.states[vertex] == State::Idle && !self.stopped {
            self.states[vertex] = State::Looking;
            self.emit(Action::Lookup(vertex), actions);
        }
    }

    fn want_inputs(&mut self, vertex: usize, actions: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        let inputs = self.inputs[vertex].clone();
        let missing = inputs.iter().filter(|&&input| self.states[input] != State::Done).count();
        if missing == 0 {
            self.states[vertex] = State::LookingAgain;
            self.emit(Action::LookupWithInputs(vertex), actions);
            return;
        }
        self.states[vertex] = State::Waiting { missing };
        for input in inputs {
            self.start(input, actions);
        }
    }

    fn queue(&mut self, vertex: usize, actions: &mut Vec<Action>) {
        if self.stopped {
            return;
        }
        self.states[vertex] = State::Queued;
        self.queue.push_back(vertex);
        self.run_queued(actions);
    }

    fn run_queued(&mut self, actions: &mut Vec<Action>) {
        let mut kept = VecDeque::new();
        while let Some(vertex) = self.queue.pop_front() {
            if self.stopped {
                return;
            }
            if self.limited[vertex] {
                if self.free == 0 {
                    kept.push_back(vertex);
                    continue;
                }
                self.free -= 1;
            }
            self.states[vertex] = State::Running;
            self.emit(Action::Execute(vertex), actions);
        }
        self.queue = kept;
    }

    fn release(&mut self, vertex: usize, actions: &mut Vec<Action>) {
        if self.limited[vertex] {
            self.free += 1;
            self.run_queued(actions);
        }
    }

    fn done(&mut self, vertex: usize, actions: &mut Vec<Action>) {
        self.states[vertex] = State::Done;
        for user in self.users[vertex].clone() {
            if let State::Waiting { missing } = self.states[user] {
                if missing > 1 {
                    self.states[user] = State::Waiting { missing: missing - 1 };
                } else if !self.stopped {
                    self.states[user] = State::LookingAgain;
                    self.emit(Action::LookupWithInputs(user), actions);
                }
            }
        }
    }

    fn stop(&mut self, actions: &mut Vec<Action>) {
        if !self.stopped {
            self.stopped = true;
            self.queue.clear();
            actions.push(Action::Stop);
        }
    }

    fn emit(&mut self, action: Action, actions: &mut Vec<Action>) {
        self.under_way += 1;
        actions.push(action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs the machine to its end; `choose` picks which of the actions under way ends next and `outcome`
    /// how. Checks the invariants at each step and returns what was executed, in order.
    fn drive(
        inputs: &[Vec<usize>],
        places: Option<usize>,
        mut choose: impl FnMut(usize) -> usize,
        mut outcome: impl FnMut(Action) -> Input,
    ) -> (Scheduler, Vec<usize>) {
        let mut machine = Scheduler::new(inputs.to_vec(), vec![true; inputs.len()], places);
        let mut under_way = machine.demand(inputs.len() - 1);
        let (mut executed, mut stops) = (Vec::new(), 0);
        while !under_way.is_empty() {
            let action = under_way.remove(choose(under_way.len()));
            if let Action::Execute(vertex) = action {
                assert!(!executed.contains(&vertex), "a vertex runs once");
                assert!(inputs[vertex].iter().all(|&input| machine.is_done(input)), "inputs first");
                executed.push(vertex);
            }
            let more = machine.step(outcome(action));
            stops += more.iter().filter(|action| **action == Action::Stop).count();
            assert!(
                stops == 0
                    || !more
                        .iter()
                        .any(|action| matches!(action, Action::Execute(_) | Action::Lookup(_)))
            );
            under_way.extend(more.into_iter().filter(|action| *action != Action::Stop));
            let running =
                under_way.iter().filter(|action| matches!(action, Action::Execute(_))).count();
            assert!(running <= places.unwrap_or(usize::MAX), "{running} run at once");
        }
        assert!(machine.is_over() && stops <= 1);
        (machine, executed)
    }

    fn miss_all(action: Action) -> Input {
        match action {
            Action::Lookup(vertex) | Action::LookupWithInputs(vertex) => Input::Miss(vertex),
            Action::Execute(vertex) => Input::Finished(vertex),
            Action::Stop => Input::Cancel,
        }
    }

    #[test]
    fn a_hit_on_the_target_touches_nothing_else() {
        let (machine, executed) = drive(
            &[vec![], vec![0], vec![1]],
            None,
            |_| 0,
            |action| match action {
                Action::Lookup(2) => Input::Hit(2),
                other => panic!("{other:?}"),
            },
        );
        assert!(executed.is_empty() && machine.is_idle(0) && machine.is_idle(1));
    }

    #[test]
    fn a_failure_starts_nothing_new() {
        let inputs = [vec![], vec![], vec![0, 1]];
        let (machine, executed) = drive(
            &inputs,
            None,
            |_| 0,
            |action| match action {
                Action::Execute(0) => Input::Failed(0),
                other => miss_all(other),
            },
        );
        assert!(!machine.is_done(2) && !executed.contains(&2));
    }

    /// Every order of events, on small graphs: each reachable vertex runs exactly once, after its inputs.
    #[test]
    fn every_interleaving_of_a_diamond_ends_right() {
        let inputs = [vec![], vec![0], vec![0], vec![1, 2]];
        let mut orders = vec![Vec::new()];
        let mut seen = 0;
        while let Some(prefix) = orders.pop() {
            let (mut at, mut widths) = (0, Vec::new());
            let (_, executed) = drive(
                &inputs,
                None,
                |width| {
                    let pick = prefix.get(at).copied().unwrap_or(0);
                    widths.push(width);
                    at += 1;
                    pick
                },
                miss_all,
            );
            assert_eq!(executed.len(), 4);
            seen += 1;
            for (position, &width) in widths.iter().enumerate().skip(prefix.len()) {
                for pick in 1..width {
                    let mut next = prefix.clone();
                    next.resize(position, 0);
                    next.push(pick);
                    orders.push(next);
                }
            }
        }
        assert!(seen > 3, "{seen} orders");
    }

    /// Everything that may come next for the vertices of a graph: which of the actions under way ends, how it ends,
    /// and, once, the wish to stop.
    struct Explorer<'a> {
        inputs: &'a [Vec<usize>],
        targets: &'a [usize],
        places: Option<usize>,
        seen: std::collections::HashSet<String>,
        ends: usize,
    }

    #[derive(Clone)]
    struct World {
        machine: Scheduler,
        under_way: Vec<Action>,
        executed: Vec<usize>,
        /// Whether something failed, or the user wants to stop.
        stopped: bool,
        cancelled: bool,
    }

    impl Explorer<'_> {
        fn explore(&mut self) {
            let limited = vec![true; self.inputs.len()];
            let machine = Scheduler::new(self.inputs.to_vec(), limited, self.places);
            let (under_way, executed) = (Vec::new(), Vec::new());
            let mut world =
                World { machine, under_way, executed, stopped: false, cancelled: false };
            for &target in self.targets {
                let actions = world.machine.demand(target);
                self.take(&mut world, actions);
            }
            self.visit(&world);
        }

        fn take(&self, world: &mut World, actions: Vec<Action>) {
            for action in actions {
                assert!(action == Action::Stop || !world.stopped, "nothing begins after a stop");
                match action {
                    Action::Stop => {
                        world.stopped = true;
                        continue;
                    }
                    Action::Execute(vertex) => {
                        assert!(!world.executed.contains(&vertex), "a vertex runs once");
                        let its = &self.inputs[vertex];
                        assert!(its.iter().all(|&input| world.machine.is_done(input)));
                        world.executed.push(vertex);
                    }
                    Action::Lookup(_) | Action::LookupWithInputs(_) => {}
                }
                assert!(!world.under_way.contains(&action), "nothing is done twice at once");
                world.under_way.push(action);
            }
            let runs = |action: &&Action| matches!(action, Action::Execute(_));
            let running = world.under_way.iter().filter(runs).count();
            assert!(running <= self.places.unwrap_or(usize::MAX), "{running} run at once");
            assert_eq!(world.machine.is_over(), world.under_way.is_empty());
        }

        fn next(&mut self, world: &World, input: Input) {
            let mut world = world.clone();
            let is_end = matches!(input, Input::Failed(_) | Input::Cancel);
            let was_stopped = world.stopped;
            let actions = world.machine.step(input);
            let stops = actions.iter().filter(|action| **action == Action::Stop).count();
            assert_eq!(stops, usize::from(is_end && !was_stopped), "a stop is told once, at once");
            self.take(&mut world, actions);
            self.visit(&world);
        }

        fn visit(&mut self, world: &World) {
            let mut under_way = world.under_way.clone();
            under_way.sort_by_key(|action| format!("{action:?}"));
            let state = format!("{:?} {under_way:?} {}", world.machine, world.cancelled);
            if !self.seen.insert(state) {
                return;
            }
            if world.under_way.is_empty() {
                self.ends += 1;
                let done = self.targets.iter().all(|&target| world.machine.is_done(target));
                assert!(
                    done || world.stopped,
                    "it ends without a result or a reason: {world:?}",
                    world = world.machine
                );
                return;
            }
            if !world.cancelled {
                let cancelled = World { cancelled: true, ..world.clone() };
                self.next(&cancelled, Input::Cancel);
            }
            for place in 0..world.under_way.len() {
                let mut after = world.clone();
                let outcomes = match after.under_way.remove(place) {
                    Action::Lookup(vertex) | Action::LookupWithInputs(vertex) => {
                        vec![Input::Hit(vertex), Input::Miss(vertex), Input::Failed(vertex)]
                    }
                    Action::Execute(vertex) => vec![Input::Finished(vertex), Input::Failed(vertex)],
                    Action::Stop => vec![],
                };
                for outcome in outcomes {
                    self.next(&after, outcome);
                }
            }
        }
    }

    /// Every order of hits, misses, results, failures and a cancellation, with shared inputs, several targets and few
    /// places: no vertex runs twice or too early, nothing begins after the first failure, and nothing hangs.
    #[test]
    fn every_interleaving_with_failures_and_cancellation_ends_right() {
        let diamond = [vec![], vec![0], vec![0], vec![1, 2]];
        let ladder = [vec![], vec![], vec![0, 1], vec![0, 1]];
        let mut seen = 0;
        for (inputs, targets) in
            [(&diamond, &[3][..]), (&diamond, &[2, 3]), (&ladder, &[2, 3]), (&ladder, &[3, 3])]
        {
            for places in [None, Some(1)] {
                let seen_states = std::collections::HashSet::new();
                let mut explorer = Explorer { inputs, targets, places, seen: seen_states, ends: 0 };
                explorer.explore();
                assert!(explorer.ends > 10, "{} ends", explorer.ends);
                seen += explorer.seen.len();
            }
        }
        assert!(seen > 1000, "{seen} states");
    }

    fn graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 1..12).prop_map(
            |rows| {
                rows.iter()
                    .enumerate()
                    .map(|(vertex, row)| {
                        let mut inputs: Vec<usize> = row
                            .iter()
                            .filter(|_| vertex > 0)
                            .map(|&byte| usize::from(byte) % vertex.max(1))
                            .collect();
                        inputs.sort_unstable();
                        inputs.dedup();
                        inputs
                    })
                    .collect()
            },
        )
    }

    proptest! {
        /// Any graph, any order, any limit, any mix of hits and misses: the target ends done, and exactly
        /// the vertices that were asked for and not found ran.
        #[test]
        fn any_order_gives_the_target(inputs in graph(), picks in proptest::collection::vec(any::<u8>(), 64),
                                      hits in proptest::collection::vec(any::<bool>(), 24),
                                      places in proptest::option::of(1usize..4)) {
            let mut at = 0;
            let (machine, executed) = drive(&inputs, places, |width| {
                at += 1;
                usize::from(picks[at % picks.len()]) % width
            }, |action| match action {
                Action::Lookup(vertex) if hits[vertex % 12] => Input::Hit(vertex),
                Action::LookupWithInputs(vertex) if hits[12 + vertex % 12] => Input::Hit(vertex),
                other => miss_all(other),
            });
            prop_assert!(machine.is_done(inputs.len() - 1));
            for vertex in 0..inputs.len() {
                let asked = !machine.is_idle(vertex);
                let found = hits[vertex % 12] || hits[12 + vertex % 12];
                prop_assert_eq!(executed.contains(&vertex), asked && !found);
            }
        }
    }
}
