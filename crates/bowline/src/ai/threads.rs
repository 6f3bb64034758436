//! The threads that speak to providers, each with a runtime of its own.
//!
//! A request stays on the thread that it was given to. On a runtime that threads share, every step of a lone request
//! wakes two of them: eight switches for each request instead of four.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::{AbortHandle, JoinSet},
};

use super::limit::CROWD;

/// The threads. Dropped, they end, and what runs there is dropped; nobody waits for that.
#[derive(Debug)]
pub(super) struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    handle: Handle,
    /// How many tasks it has.
    tasks: Arc<AtomicUsize>,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Threads {
    /// Starts so many, at least one.
    ///
    /// # Errors
    ///
    /// The system has no more threads, or no more descriptors.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1)).map(Thread::start).collect::<io::Result<_>>().map(Self)
    }

    /// Runs a task on the thread that has fewest, by the [`CROWD`]; the first of those. So while there is little to do
    /// one thread has all of it, with the connections that go with it, and several requests cost one wake-up.
    pub(super) fn spawn(
        &self,
        tasks: &mut JoinSet<()>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Option<AbortHandle> {
        let thread = self.0.iter().min_by_key(|thread| thread.tasks.load(Relaxed) / CROWD)?;
        let counted = Counted::new(&thread.tasks);
        // It is large, and would be copied again and again on its way.
        let work = Box::pin(work);
        let work = async move {
            let _counted = counted;
            work.await;
        };
        Some(tasks.spawn_on(work, &thread.handle))
    }
}

impl Thread {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name(format!("ai-{number}")).spawn(move || {
            // Nobody sends anything: it is dropped.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, tasks: Arc::default(), _stop: stop })
    }
}

/// Counts a task for as long as there is one, also if it is never polled.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(tasks: &Arc<AtomicUsize>) -> Self {
        tasks.fetch_add(1, Relaxed);
        Self(Arc::clone(tasks))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::mpsc, time::Duration};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn tasks_are_shared_out_and_what_is_over_counts_no_more() {
        let threads = Threads::start(2).unwrap();
        let mut tasks = JoinSet::new();
        let (told, names) = mpsc::channel();
        let mut begin = || {
            let told = told.clone();
            let work = async move {
                told.send(name()).unwrap();
                pending::<()>().await;
            };
            let task = threads.spawn(&mut tasks, work).unwrap();
            (task, names.recv_timeout(SOON).unwrap())
        };
        let (first, on) = begin();
        assert_eq!(on, "ai-0");
        for _ in 1..CROWD {
            assert_eq!(begin().1, "ai-0");
        }
        assert_eq!(begin().1, "ai-1");
        first.abort();
        while !first.is_finished() {
            thread::yield_now();
        }
        assert_eq!(begin().1, "ai-0");
        assert_eq!(begin().1, "ai-1");
    }

    #[test]
    fn dropped_threads_drop_what_runs_there() {
        struct Told(mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let threads = Threads::start(1).unwrap();
        let mut tasks = JoinSet::new();
        let (dropped, drops) = mpsc::channel();
        let kept = Told(dropped);
        threads.spawn(&mut tasks, async move {
            let _kept = kept;
            pending::<()>().await;
        });
        drop(threads);
        drops.recv_timeout(SOON).unwrap();
    }
}
