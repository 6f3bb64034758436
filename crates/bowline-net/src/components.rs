//! The parts that an application loads once its addresses are bound: which needs which, how far
//! each is, and what that makes of the whole.
//!
//! [`Graph`] decides and knows neither threads nor a clock; [`Components`] runs what it says, each
//! load on a thread of its own, so that no load ever delays a shard.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime},
};

use bowline_proto::Time;
use tokio::sync::watch;

use crate::{
    clock::{Clock, Moment},
    limit,
};

/// How far a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComponentState {
    /// For what it needs.
    Waiting,
    /// Its load runs.
    Loading,
    /// It can be used.
    Ready,
    /// Its load failed, or it failed later.
    Failed,
    /// Something it needs failed or was skipped, so it was not tried.
    Skipped,
}

impl ComponentState {
    /// Every state, in declaration order, which is also its number in
    /// `bowline_component_state{component}`.
    pub const ALL: [Self; 5] =
        [Self::Waiting, Self::Loading, Self::Ready, Self::Failed, Self::Skipped];

    /// The name operators see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One component as it stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentView {
    /// Its name.
    pub name: String,
    /// Whether the server is not ready without it.
    pub required: bool,
    /// How far it is.
    pub state: ComponentState,
    /// The share of its load that is done, 0 to 1.
    pub progress: f64,
    /// What its load said last of itself; may be empty. The application's words.
    pub text: String,
    /// What it needs that is not ready, by name: empty unless it waits or was skipped.
    pub waiting_for: Vec<String>,
    /// When it came into this state.
    pub since: SystemTime,
    /// Why it failed. The application's words: for operators only.
    pub error: Option<String>,
    /// How long its load took, or has been running; `None` before it began.
    pub loading_for: Option<Duration>,
}

/// What the components make of the whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// A required component is not ready yet.
    Starting,
    /// All required components are ready, and none has failed.
    Ready,
    /// A component failed or was skipped.
    Degraded {
        /// Whether the required ones are ready all the same.
        serving: bool,
    },
}

impl Readiness {
    /// The name operators see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded { .. } => "degraded",
        }
    }

    /// The same together with processes beside the server: the worse of both.
    pub(crate) fn with(self, services: &[ComponentView]) -> Self {
        use ComponentState::{Failed, Loading, Skipped, Waiting};
        let any = |required: bool, states: &[ComponentState]| {
            let mut counted = services.iter().filter(|view| view.required || !required);
            counted.any(|view| states.contains(&view.state))
        };
        match self {
            Self::Degraded { serving: false } => self,
            _ if any(true, &[Failed, Skipped]) => Self::Degraded { serving: false },
            Self::Starting => self,
            _ if any(true, &[Waiting, Loading]) => Self::Starting,
            Self::Ready if any(false, &[Failed]) => Self::Degraded { serving: true },
            Self::Ready | Self::Degraded { .. } => self,
        }
    }

    /// Whether every required component is ready.
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded { serving: true })
    }
}

/// The components of a builder contradict one another. Each names those it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentError {
    /// A name is empty, longer than 100 bytes, or has control characters.
    Name(String),
    /// Two have the same name.
    Twice(String),
    /// One needs something that there is not.
    Unknown {
        /// Which needs it.
        component: String,
        /// What it needs.
        need: String,
    },
    /// Each of these needs the next, and the last is the first.
    Cycle(Vec<String>),
}

impl fmt::Display for ComponentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => {
                write!(f, "a component cannot be named {name:?}: use 1 to 100 bytes of text")
            }
            Self::Twice(name) => write!(f, "there are two components `{name}`"),
            Self::Unknown { component, need } => {
                write!(f, "the component `{component}` needs `{need}`, which there is not")
            }
            Self::Cycle(names) => {
                write!(f, "components need one another in a circle: {}", names.join(" -> "))
            }
        }
    }
}

impl std::error::Error for ComponentError {}

/// How far a load is; handed to it.
#[derive(Debug)]
pub struct Progress {
    components: Arc<Components>,
    index: usize,
}

impl Progress {
    /// Says that this share of the work, 0 to 1, is done, and what is being done, in a few words
    /// for operators; beyond 1,000 bytes they are cut. Costs a lock: not for every item of a long
    /// list.
    pub fn set(&self, fraction: f64, text: impl Into<String>) {
        self.components.lock().graph.set_progress(self.index, fraction, text.into());
        self.components.tell();
    }

    /// Whether the server has begun to stop: a long load may as well give up. It is not waited for
    /// in any case.
    pub fn is_stopping(&self) -> bool {
        self.components.stopping.load(Relaxed)
    }
}

/// The work of a component.
pub(crate) type Load = Box<dyn FnOnce(&Progress) -> Result<(), String> + Send>;

/// A component as the builder was told of it.
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) needs: Vec<String>,
    pub(crate) required: bool,
    pub(crate) load: Load,
}

/// The components of a process.
pub(crate) struct Components {
    clock: Clock,
    inner: Mutex<Inner>,
    stopping: AtomicBool,
    /// Told of every change.
    changes: watch::Sender<()>,
}

struct Inner {
    graph: Graph,
    /// By place in the graph, until they run.
    loads: Vec<Option<Load>>,
}

impl Components {
    /// # Errors
    ///
    /// Something is wrong with what they need.
    pub(crate) fn new(clock: Clock, specs: Vec<Spec>) -> Result<Arc<Self>, ComponentError> {
        let graph = Graph::new(&specs, clock.moment())?;
        let loads = specs.into_iter().map(|spec| Some(spec.load)).collect();
        Ok(Arc::new(Self {
            clock,
            inner: Mutex::new(Inner { graph, loads }),
            stopping: AtomicBool::new(false),
            changes: watch::Sender::new(()),
        }))
    }

    /// Begins to load.
    pub(crate) fn start(self: &Arc<Self>) {
        let loadable = self.lock().graph.start(self.clock.moment());
        self.load(loadable);
    }

    /// Begins nothing new, and tells loads that run that they may give up.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Notes how something is that looks after itself while the server runs, such as certificates:
    /// an optional component of that name, which is made when it is first heard of.
    pub(crate) fn report(self: &Arc<Self>, name: &str, outcome: Result<(), String>) {
        let error = outcome.clone().err();
        let reported = self.lock().graph.report(name, self.clock.moment(), outcome);
        let Some(loadable) = reported else { return };
        match error {
            Some(error) => tracing::error!(component = name, error, "a component has failed"),
            None => tracing::info!(component = name, "a component is ready"),
        }
        self.load(loadable);
    }

    pub(crate) fn views(&self) -> Vec<ComponentView> {
        self.lock().graph.views(self.clock.now())
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.lock().graph.readiness()
    }

    /// When all required components were ready for the first time.
    pub(crate) fn ready_at(&self) -> Option<Time> {
        self.lock().graph.ready_at
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Runs these loads.
    fn load(self: &Arc<Self>, mut loadable: Vec<usize>) {
        while let Some(index) = loadable.pop() {
            if self.stopping.load(Relaxed) {
                return;
            }
            let taken = {
                let mut inner = self.lock();
                let name = inner.graph.parts[index].name.clone();
                inner.loads[index].take().map(|load| (name, load))
            };
            let Some((name, load)) = taken else { continue };
            let components = Arc::clone(self);
            // The kernel shows 15 bytes of it.
            let thread = thread::Builder::new().name(format!("load-{name}"));
            let spawned = thread.spawn(move || {
                let progress = Progress { components, index };
                let outcome = catch_unwind(AssertUnwindSafe(|| load(&progress)));
                let outcome = outcome.unwrap_or_else(|panic| Err(words_of(&*panic)));
                let Progress { components, .. } = progress;
                let next = components.ended(index, outcome);
                components.load(next);
            });
            if let Err(error) = spawned {
                loadable.extend(self.ended(index, Err(format!("it has no thread: {error}"))));
            }
        }
        self.tell();
    }

    /// Notes the end of a load, and says which can begin now.
    fn ended(&self, index: usize, outcome: Result<(), String>) -> Vec<usize> {
        let failed = outcome.clone().err();
        let now = self.clock.moment();
        let mut inner = self.lock();
        let was_ready = inner.graph.ready_at.is_some();
        let next = inner.graph.end(index, now, outcome);
        let name = inner.graph.parts[index].name.clone();
        let seconds = inner.graph.parts[index].loading_for(now.time).unwrap_or_default();
        let seconds = seconds.as_secs_f64();
        let ready = !was_ready && inner.graph.ready_at.is_some();
        drop(inner);
        match failed {
            Some(error) => {
                tracing::error!(component = name, error, seconds, "a component failed to load");
            }
            None => tracing::info!(component = name, seconds, "a component is ready"),
        }
        if ready {
            tracing::info!("all required components are ready");
        }
        self.tell();
        next
    }

    fn tell(&self) {
        self.changes.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Components").finish_non_exhaustive()
    }
}

/// What a panic said.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", words.unwrap_or("without words"))
}

/// Which component needs which, and how far each is. What needs nothing that is not ready loads,
/// all such at once.
#[derive(Debug)]
struct Graph {
    parts: Vec<Part>,
    started: bool,
    ready_at: Option<Time>,
}

#[derive(Debug)]
struct Part {
    name: String,
    required: bool,
    /// Places in the graph.
    needs: Vec<usize>,
    state: ComponentState,
    progress: f64,
    text: String,
    error: Option<String>,
    since: SystemTime,
    began: Option<Time>,
    ended: Option<Time>,
}

impl Graph {
    fn new(specs: &[Spec], now: Moment) -> Result<Self, ComponentError> {
        let find = |name: &str| specs.iter().position(|spec| spec.name == name);
        let mut parts = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let fits = (1..=limit::COMPONENT_NAME_BYTES).contains(&spec.name.len());
            if !fits || spec.name.contains(char::is_control) {
                return Err(ComponentError::Name(spec.name.clone()));
            }
            if find(&spec.name) != Some(index) {
                return Err(ComponentError::Twice(spec.name.clone()));
            }
            let mut needs = Vec::with_capacity(spec.needs.len());
            for need in &spec.needs {
                let component = || spec.name.clone();
                let unknown =
                    || ComponentError::Unknown { component: component(), need: need.clone() };
                needs.push(find(need).ok_or_else(unknown)?);
            }
            parts.push(Part::new(spec.name.clone(), spec.required, needs, now));
        }
        let graph = Self { parts, started: false, ready_at: None };
        match graph.cycle() {
            Some(cycle) => Err(ComponentError::Cycle(cycle)),
            None => Ok(graph),
        }
    }

    /// The names along a circle of needs, the first again at the end.
    fn cycle(&self) -> Option<Vec<String>> {
        // Taking away what needs nothing that is left leaves the circles and what hangs on them.
        let mut left = vec![true; self.parts.len()];
        let stuck = |left: &[bool], index: usize| self.parts[index].needs.iter().any(|n| left[*n]);
        while let Some(free) = (0..left.len()).find(|index| left[*index] && !stuck(&left, *index)) {
            left[free] = false;
        }
        let mut path = vec![left.iter().position(|left| *left)?];
        loop {
            let last = *path.last()?;
            let next = *self.parts[last].needs.iter().find(|need| left[**need])?;
            if let Some(from) = path.iter().position(|seen| *seen == next) {
                path.push(next);
                return Some(path[from..].iter().map(|i| self.parts[*i].name.clone()).collect());
            }
            path.push(next);
        }
    }

    /// Begins. Returns which load now.
    fn start(&mut self, now: Moment) -> Vec<usize> {
        self.started = true;
        self.settle(now)
    }

    fn set_progress(&mut self, index: usize, fraction: f64, text: String) {
        let part = &mut self.parts[index];
        // What comes after the end, from a thread that was left behind, is moot.
        if part.state == ComponentState::Loading {
            part.progress = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
            part.text = cut(text);
        }
    }

    /// A load has ended. Returns which load now.
    fn end(&mut self, index: usize, now: Moment, outcome: Result<(), String>) -> Vec<usize> {
        self.parts[index].end(now, outcome);
        self.settle(now)
    }

    /// Something that looks after itself is so. If that is new, returns which load now.
    fn report(
        &mut self,
        name: &str,
        now: Moment,
        outcome: Result<(), String>,
    ) -> Option<Vec<usize>> {
        let found = self.parts.iter().position(|part| part.name == name);
        let index = found.unwrap_or_else(|| {
            self.parts.push(Part::new(name.to_owned(), false, Vec::new(), now));
            self.parts.len() - 1
        });
        let part = &mut self.parts[index];
        let before = (part.state, part.error.clone());
        let since = part.since;
        part.end(now, outcome);
        if part.state == before.0 {
            part.since = since;
        }
        let changed = (part.state, part.error.clone()) != before;
        changed.then(|| self.settle(now))
    }

    /// Lets everything that waits go as far as what it needs allows.
    fn settle(&mut self, now: Moment) -> Vec<usize> {
        let mut loadable = Vec::new();
        if !self.started {
            return loadable;
        }
        // One that is skipped may be what others wait for.
        loop {
            let mut moved = false;
            for index in 0..self.parts.len() {
                if self.parts[index].state != ComponentState::Waiting {
                    continue;
                }
                let states = self.parts[index].needs.iter().map(|need| self.parts[*need].state);
                let (mut ready, mut lost) = (true, false);
                for state in states {
                    ready &= state == ComponentState::Ready;
                    lost |= matches!(state, ComponentState::Failed | ComponentState::Skipped);
                }
                let part = &mut self.parts[index];
                if lost {
                    part.enter(ComponentState::Skipped, now);
                    moved = true;
                } else if ready {
                    part.enter(ComponentState::Loading, now);
                    part.began = Some(now.time);
                    loadable.push(index);
                }
            }
            if !moved {
                break;
            }
        }
        if self.ready_at.is_none() && self.readiness().is_serving() {
            self.ready_at = Some(now.time);
        }
        loadable
    }

    fn readiness(&self) -> Readiness {
        use ComponentState::{Failed, Loading, Ready, Skipped, Waiting};
        let all = |required: bool, states: &[ComponentState]| {
            let mut parts = self.parts.iter().filter(|part| part.required || !required);
            parts.any(|part| states.contains(&part.state))
        };
        // A required one that failed will not come by itself: that is worse than not yet.
        if all(true, &[Failed, Skipped]) {
            Readiness::Degraded { serving: false }
        } else if !self.started || all(true, &[Waiting, Loading]) {
            Readiness::Starting
        } else if all(false, &[Failed, Skipped]) {
            Readiness::Degraded { serving: true }
        } else {
            debug_assert!(self.parts.iter().all(|part| !part.required || part.state == Ready));
            Readiness::Ready
        }
    }

    fn views(&self, now: Time) -> Vec<ComponentView> {
        let view = |part: &Part| {
            let missing = part.needs.iter().map(|need| &self.parts[*need]);
            let missing = missing.filter(|need| need.state != ComponentState::Ready);
            let waits = matches!(part.state, ComponentState::Waiting | ComponentState::Skipped);
            let missing = missing.filter(|_| waits);
            ComponentView {
                name: part.name.clone(),
                required: part.required,
                state: part.state,
                progress: part.progress,
                text: part.text.clone(),
                waiting_for: missing.map(|need| need.name.clone()).collect(),
                since: part.since,
                error: part.error.clone(),
                loading_for: part.loading_for(now),
            }
        };
        self.parts.iter().map(view).collect()
    }
}

impl Part {
    fn new(name: String, required: bool, needs: Vec<usize>, now: Moment) -> Self {
        Self {
            name,
            required,
            needs,
            state: ComponentState::Waiting,
            progress: 0.0,
            text: String::new(),
            error: None,
            since: now.wall,
            began: None,
            ended: None,
        }
    }

    fn enter(&mut self, state: ComponentState, now: Moment) {
        self.state = state;
        self.since = now.wall;
    }

    fn end(&mut self, now: Moment, outcome: Result<(), String>) {
        self.ended = Some(now.time);
        match outcome {
            Ok(()) => {
                self.enter(ComponentState::Ready, now);
                self.progress = 1.0;
                self.error = None;
            }
            Err(error) => {
                self.enter(ComponentState::Failed, now);
                self.error = Some(cut(error));
            }
        }
    }

    fn loading_for(&self, now: Time) -> Option<Duration> {
        self.began.map(|began| self.ended.unwrap_or(now).since(began))
    }
}

/// The beginning of a text that an application gave.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(limit::COMPONENT_TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests;
