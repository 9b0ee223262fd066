//! The atomics and locks of our own cores: the standard library's. In unit tests under `--cfg hopvine_loom` they are loom's, and the
//! `models` beside each core run it through every interleaving.

pub(crate) use std::sync::{
    PoisonError,
    atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};

#[cfg(not(all(test, hopvine_loom)))]
pub(crate) use {
    futures_util::task::AtomicWaker,
    std::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64},
    },
};

#[cfg(all(test, hopvine_loom))]
pub(crate) use self::modelled::*;

#[cfg(all(test, hopvine_loom))]
mod modelled {
    use std::{
        ops::Deref,
        sync::{
            Arc, PoisonError,
            atomic::Ordering::{self, Relaxed},
        },
        task::Waker,
    };

    use loom::sync::atomic;
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// Loom 0.7.3 tries a write before another thread's read only if that was the last read of the atomic: one by the writer
    /// itself in between, as in each `fetch_update`, hides it (tokio-rs/loom#392). So a read here is also a write, to an atomic
    /// beside it that holds nothing.
    macro_rules! atomics {
        ($($name:ident: $value:ty),*) => {$(
            #[derive(Debug, Default)]
            pub(crate) struct $name {
                value: atomic::$name,
                read: atomic::AtomicU8,
            }

            #[allow(dead_code, reason = "of some types some are not used")]
            impl $name {
                #[track_caller]
                pub(crate) fn new(value: $value) -> Self {
                    Self { value: atomic::$name::new(value), read: atomic::AtomicU8::default() }
                }

                #[track_caller]
                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.read.swap(0, Relaxed);
                    self.value.load(order)
                }

                #[track_caller]
                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    next: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    self.read.swap(0, Relaxed);
                    self.value.fetch_update(set, fetch, next)
                }
            }

            impl Deref for $name {
                type Target = atomic::$name;

                fn deref(&self) -> &Self::Target {
                    &self.value
                }
            }
        )*};
    }

    atomics!(AtomicBool: bool, AtomicI64: i64, AtomicU8: u8, AtomicU32: u32, AtomicU64: u64);

    /// Runs `model` through every interleaving with at most so many preemptions, or `LOOM_MAX_PREEMPTIONS`.
    pub(crate) fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(preemptions);
        builder.check(model);
    }

    /// Runs both at once, each on a thread of its own.
    pub(crate) fn race<S: Send + Sync + 'static, A: 'static, B>(
        shared: &Arc<S>,
        one: impl FnOnce(&Arc<S>) -> A + 'static,
        other: impl FnOnce(&Arc<S>) -> B,
    ) -> (A, B) {
        let theirs = Arc::clone(shared);
        let one = loom::thread::spawn(move || one(&theirs));
        let other = other(shared);
        (one.join().expect("no panic"), other)
    }

    /// What the real one promises, by a lock. Loom's own prints at each use.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicWaker(Mutex<Option<Waker>>);

    impl AtomicWaker {
        pub(crate) fn register(&self, waker: &Waker) {
            *self.waker() = Some(waker.clone());
        }

        pub(crate) fn wake(&self) {
            let waker = self.waker().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }

        fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
