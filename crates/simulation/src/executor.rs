//! One thread for everything: tasks of all processes, a clock that jumps to the next timer, and dice that say who goes next.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::future::BoxFuture;
use service::manual::Dice;

use crate::trace::Trace;

/// What a task does, as far as it matters to who looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A caller from outside.
    Client,
    /// A message under way.
    Network,
    /// What breaks things.
    Faults,
    /// A handler of a call to an order service, until its caller hangs up.
    OrderCall,
    /// A handler of a call to an inventory service.
    StockCall,
    /// An order being placed, in a task of its own.
    PlaceOrder,
    /// The commit loop.
    Committer,
    /// The outbox relay.
    Relay,
    /// What prunes tombstones.
    Janitor,
    /// The reaper.
    Reaper,
    /// The consumer of events.
    Consumer,
    /// The opening of an item.
    Lease,
    /// Another task that a service has started.
    Work,
}

/// How many kinds there are.
const KINDS: usize = Kind::Work as usize + 1;

/// A process: its tasks die and freeze together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub usize);

impl ProcessId {
    /// Network and faults; nothing happens to it.
    pub const WORLD: Self = Self(0);
    /// The callers; nothing happens to it.
    pub const CLIENTS: Self = Self(1);
}

/// Names a task, for as long as the run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    slot: usize,
    number: u64,
}

/// What a step was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A task was polled.
    Ran(TaskId),
    /// Nothing can run, now or ever.
    Idle,
    /// A task panicked: an assertion of the product broke.
    Panicked(String),
}

struct Task {
    number: u64,
    process: ProcessId,
    kind: Kind,
    /// Not there while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
    woken: Arc<Woken>,
    waits: Waits,
}

/// What a task is waiting in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waits {
    /// Calls of ports.
    pub leaves: Vec<&'static str>,
    /// Sleeps: which, and how long each is in all, in microseconds.
    pub sleeps: Vec<(u64, u64)>,
    /// The last call of a port that it waited in.
    pub last: Option<&'static str>,
}

/// Tasks that want to be polled.
#[derive(Default)]
struct Ready(Mutex<Vec<TaskId>>);

struct Woken {
    ready: Arc<Ready>,
    task: TaskId,
    queued: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready.0).push(self.task);
        }
    }
}

#[derive(Default)]
struct Life {
    alive: bool,
    frozen: bool,
    number: u64,
    started_micros: u64,
    jumped_micros: i64,
    /// Ready, but frozen.
    parked: Vec<TaskId>,
}

struct State {
    now_micros: u64,
    schedule: Dice,
    ids: Dice,
    tasks: Vec<Option<Task>>,
    /// Tasks by kind.
    running: [usize; KINDS],
    free: BTreeSet<usize>,
    task_number: u64,
    timers: BTreeMap<(u64, u64), Waker>,
    timer_number: u64,
    lives: Vec<Life>,
    furthest_micros: i64,
    current: Option<TaskId>,
    steps: u64,
    trace: Trace,
}

/// The executor. All handles lead to the same one.
#[derive(Clone)]
pub struct Executor {
    state: Arc<Mutex<State>>,
    ready: Arc<Ready>,
}

/// What a poll takes.
const POLL_MICROS: u64 = 1;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // One thread: it is only poisoned by a panic that has been told already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executor {
    /// With `processes` processes, of which only [`ProcessId::WORLD`] and [`ProcessId::CLIENTS`] live. With `record` the
    /// trace is kept as text, too.
    pub fn new(seed: u64, processes: usize, record: bool) -> Self {
        let mut lives: Vec<Life> = Vec::new();
        lives.resize_with(processes, Life::default);
        lives.iter_mut().take(2).for_each(|life| life.alive = true);
        let mut dice = Dice::new(seed);
        let state = State {
            now_micros: 0,
            schedule: fork(&mut dice),
            ids: fork(&mut dice),
            tasks: Vec::new(),
            running: [0; KINDS],
            free: BTreeSet::new(),
            task_number: 0,
            timers: BTreeMap::new(),
            timer_number: 0,
            lives,
            furthest_micros: 0,
            current: None,
            steps: 0,
            trace: Trace::new(record),
        };
        Self { state: Arc::new(Mutex::new(state)), ready: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Since the run began.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.state().now_micros)
    }

    /// Since the process' present life began.
    pub fn uptime(&self, process: ProcessId) -> Duration {
        let state = self.state();
        Duration::from_micros(state.now_micros - state.lives[process.0].started_micros)
    }

    /// How far the process' wall clock is ahead.
    pub fn jumped_micros(&self, process: ProcessId) -> i64 {
        self.state().lives[process.0].jumped_micros
    }

    /// The process' wall clock jumps.
    pub fn jump(&self, process: ProcessId, micros: i64) {
        let mut state = self.state();
        state.furthest_micros = state.furthest_micros.max(micros);
        state.lives[process.0].jumped_micros = micros;
    }

    /// All wall clocks are as far ahead as any has ever been: what was to be due by one of them is due by all.
    pub fn agree(&self) {
        let mut state = self.state();
        let furthest = state.furthest_micros;
        state.lives.iter_mut().for_each(|life| life.jumped_micros = furthest);
    }

    /// How many processes there may be.
    pub fn processes(&self) -> usize {
        self.state().lives.len()
    }

    /// A random number that is an id or a delay of the product.
    pub fn random(&self) -> u128 {
        let mut state = self.state();
        let half = |dice: &mut Dice| u128::from(dice.below(u64::MAX));
        half(&mut state.ids) << 64 | half(&mut state.ids)
    }

    /// A number from 0 to below `end`, which decides what happens.
    pub fn below(&self, end: u64) -> u64 {
        self.state().schedule.below(end)
    }

    /// True so many times in a thousand.
    pub fn chance(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1000) < per_mille
    }

    /// Polls so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Tells the trace what happens.
    pub fn note(&self, what: &str, detail: impl FnOnce() -> String) {
        let mut state = self.state();
        let now = state.now_micros;
        state.trace.note(now, what, detail);
    }

    /// Adds numbers to the trace's hash alone.
    pub fn mix(&self, word: u64) {
        self.state().trace.mix(word);
    }

    /// Of all that happened.
    pub fn hash(&self) -> u128 {
        self.state().trace.hash()
    }

    /// The trace as text, if it is recorded.
    pub fn lines(&self) -> Vec<String> {
        self.state().trace.lines().to_vec()
    }

    /// Starts a task. Nothing happens if its process is dead.
    pub fn start(&self, process: ProcessId, kind: Kind, future: BoxFuture<'static, ()>) -> Option<TaskId> {
        let mut state = self.state();
        if !state.lives[process.0].alive {
            drop(state);
            drop(future);
            return None;
        }
        state.task_number += 1;
        let number = state.task_number;
        let slot = state.free.pop_first().unwrap_or(state.tasks.len());
        let id = TaskId { slot, number };
        let woken = Arc::new(Woken { ready: self.ready.clone(), task: id, queued: AtomicBool::new(false) });
        let waker = Waker::from(woken.clone());
        let task =
            Task { number, process, kind, future: Some(future), waker, woken: woken.clone(), waits: Waits::default() };
        state.running[kind as usize] += 1;
        if slot == state.tasks.len() {
            state.tasks.push(Some(task));
        } else {
            state.tasks[slot] = Some(task);
        }
        drop(state);
        woken.wake();
        Some(id)
    }

    /// Drops a task, if it is still there.
    pub fn kill(&self, task: TaskId) {
        let mut state = self.state();
        let dead = state.remove(task);
        drop(state);
        drop(dead);
    }

    /// Whether a task, if it is still there, is one that is looked for; then its process.
    pub fn find(&self, task: TaskId, mut wanted: impl FnMut(Kind, &Waits) -> bool) -> Option<ProcessId> {
        let state = self.state();
        let found = state.tasks.get(task.slot)?.as_ref().filter(|found| found.number == task.number)?;
        wanted(found.kind, &found.waits).then_some(found.process)
    }

    /// Tasks of this kind.
    pub fn running(&self, kind: Kind) -> usize {
        self.state().running[kind as usize]
    }

    /// Tasks of a process.
    pub fn tasks_of(&self, process: ProcessId) -> usize {
        self.state().tasks.iter().flatten().filter(|task| task.process == process).count()
    }

    /// A process begins a life.
    pub fn begin(&self, process: ProcessId) {
        let mut state = self.state();
        let now = state.now_micros;
        let life = &mut state.lives[process.0];
        assert!(!life.alive, "a process lives once at a time");
        *life = Life {
            alive: true,
            started_micros: now,
            number: life.number + 1,
            jumped_micros: life.jumped_micros,
            ..Life::default()
        };
    }

    /// A process ends: all its tasks are dropped between two polls. Answers what each was waiting in.
    pub fn end(&self, process: ProcessId) -> Vec<(Kind, Waits)> {
        let mut state = self.state();
        state.lives[process.0].alive = false;
        state.lives[process.0].frozen = false;
        state.lives[process.0].parked.clear();
        let of_it = state.tasks.iter().enumerate().filter_map(|(slot, task)| {
            let task = task.as_ref().filter(|task| task.process == process)?;
            Some(TaskId { slot, number: task.number })
        });
        let of_it: Vec<TaskId> = of_it.collect();
        let dead: Vec<Task> = of_it.into_iter().filter_map(|task| state.remove(task)).collect();
        drop(state);
        let waited = dead.iter().map(|task| (task.kind, task.waits.clone())).collect();
        // Each drop may wake or start others, which is none of the dead's business any more.
        dead.into_iter().for_each(drop);
        waited
    }

    /// Whether the process lives.
    pub fn alive(&self, process: ProcessId) -> bool {
        self.state().lives[process.0].alive
    }

    /// The number of the process' life.
    pub fn life(&self, process: ProcessId) -> u64 {
        self.state().lives[process.0].number
    }

    /// Whether its tasks stand still.
    pub fn frozen(&self, process: ProcessId) -> bool {
        self.state().lives[process.0].frozen
    }

    /// Its tasks are not polled from now on, or are again.
    pub fn freeze(&self, process: ProcessId, frozen: bool) {
        let mut state = self.state();
        let life = &mut state.lives[process.0];
        life.frozen = frozen;
        if !frozen {
            let parked = std::mem::take(&mut life.parked);
            lock(&self.ready.0).extend(parked);
        }
    }

    /// Resolves after this long.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2);
        let end = self.state().now_micros.saturating_add(micros);
        Sleep { executor: self.clone(), micros, end, timer: None }
    }

    /// The task polled now waits in `leaf` from now on. Answers which task, and the first such note of a task of kind
    /// [`Kind::Work`] may tell what it is.
    pub fn enter(&self, leaf: &'static str) -> Option<TaskId> {
        let mut state = self.state();
        let (id, waits) = state.waits()?;
        waits.leaves.push(leaf);
        waits.last = Some(leaf);
        let task = state.tasks[id.slot].as_mut()?;
        if task.kind == Kind::Work && leaf == OPENING_LEAF {
            task.kind = Kind::Lease;
            state.running[Kind::Work as usize] -= 1;
            state.running[Kind::Lease as usize] += 1;
        }
        Some(id)
    }

    /// It waits there no more.
    pub fn leave(&self, task: TaskId, leaf: &'static str) {
        let mut state = self.state();
        if let Some(waits) = state.waits_of(task)
            && let Some(at) = waits.leaves.iter().rposition(|entry| *entry == leaf)
        {
            waits.leaves.remove(at);
        }
    }

    /// Polls one task, after the clock has moved to the next timer if nobody can run before.
    pub fn step(&self) -> Step {
        let Some(id) = self.next() else { return Step::Idle };
        let mut state = self.state();
        state.steps += 1;
        state.now_micros += POLL_MICROS;
        let now = state.now_micros;
        let task = state.tasks[id.slot].as_mut().expect("it was there a moment ago");
        let (process, kind, waker) = (task.process.0, task.kind as u64, task.waker.clone());
        let mut future = task.future.take().expect("a task is polled by one");
        task.woken.queued.store(false, Ordering::Relaxed);
        state.current = Some(id);
        state.trace.step(now, process, kind, id.number);
        drop(state);
        let polled = poll(&mut future, &waker);
        let mut state = self.state();
        state.current = None;
        if matches!(polled, Ok(Poll::Pending))
            && let Some(task) = state.tasks[id.slot].as_mut().filter(|task| task.number == id.number)
        {
            task.future = Some(future);
            return Step::Ran(id);
        }
        let dead = state.remove(id);
        drop(state);
        drop((future, dead));
        match polled {
            Ok(_) => Step::Ran(id),
            Err(text) => Step::Panicked(text),
        }
    }

    /// The task to be polled next.
    fn next(&self) -> Option<TaskId> {
        loop {
            self.fire();
            let mut state = self.state();
            let mut ready = lock(&self.ready.0);
            while !ready.is_empty() {
                let drawn = usize::try_from(state.schedule.below(ready.len() as u64)).expect("an index");
                let id = ready.swap_remove(drawn);
                let task = state.tasks.get(id.slot).and_then(Option::as_ref).filter(|task| task.number == id.number);
                let Some(process) = task.map(|task| task.process.0) else { continue };
                if !state.lives[process].frozen {
                    return Some(id);
                }
                state.lives[process].parked.push(id);
            }
            drop(ready);
            let (&(next, _), _) = state.timers.first_key_value()?;
            state.now_micros = state.now_micros.max(next);
        }
    }

    /// Wakes all whose time has come.
    fn fire(&self) {
        let mut due = Vec::new();
        let mut state = self.state();
        let now = state.now_micros;
        while let Some(first) = state.timers.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        drop(state);
        due.into_iter().for_each(Waker::wake);
    }

    /// Drops everything: tasks hold on to each other and to this.
    pub fn shut_down(&self) {
        let mut state = self.state();
        state.lives.iter_mut().for_each(|life| life.alive = false);
        let tasks = std::mem::take(&mut state.tasks);
        let timers = std::mem::take(&mut state.timers);
        drop(state);
        drop(tasks);
        drop(timers);
        lock(&self.ready.0).clear();
    }
}

/// By which a task that a service has started is known to open an item: nothing else begins so.
const OPENING_LEAF: &str = "store.probe";

/// Other dice, whose numbers have nothing to do with these.
pub fn fork(dice: &mut Dice) -> Dice {
    Dice::new(dice.below(u64::MAX))
}

fn poll(future: &mut Pin<Box<dyn Future<Output = ()> + Send>>, waker: &Waker) -> Result<Poll<()>, String> {
    let mut context = Context::from_waker(waker);
    catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

impl State {
    /// The task polled now.
    fn waits(&mut self) -> Option<(TaskId, &mut Waits)> {
        let task = self.current?;
        self.waits_of(task).map(|waits| (task, waits))
    }

    fn waits_of(&mut self, task: TaskId) -> Option<&mut Waits> {
        let found = self.tasks.get_mut(task.slot)?.as_mut()?;
        (found.number == task.number).then_some(&mut found.waits)
    }

    fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.get_mut(id.slot)?;
        if task.as_ref().is_none_or(|task| task.number != id.number) {
            return None;
        }
        let dead = task.take()?;
        self.free.insert(id.slot);
        self.running[dead.kind as usize] -= 1;
        Some(dead)
    }
}

/// Waits for a moment.
pub struct Sleep {
    executor: Executor,
    micros: u64,
    end: u64,
    /// Its number and its task, once it was polled.
    timer: Option<(u64, Option<TaskId>)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.executor.state();
        if state.now_micros >= this.end {
            return Poll::Ready(());
        }
        let (number, _) = *this.timer.get_or_insert_with(|| {
            state.timer_number += 1;
            let number = state.timer_number;
            let task = state.waits().map(|(task, waits)| {
                waits.sleeps.push((number, this.micros));
                task
            });
            (number, task)
        });
        let old = state.timers.insert((this.end, number), context.waker().clone());
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((number, task)) = self.timer {
            let mut state = self.executor.state();
            if let Some(task) = task
                && let Some(waits) = state.waits_of(task)
            {
                waits.sleeps.retain(|(entry, _)| *entry != number);
            }
            let waker = state.timers.remove(&(self.end, number));
            drop(state);
            drop(waker);
        }
    }
}
