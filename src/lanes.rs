//! What all calls of a layer share, without threads that wait for each other's cache lines.
//!
//! A word that two threads write at each call costs each of them a trip to the other's cache, several times what the write itself
//! costs. So what a call holds is counted per *lane*, and so is what it adds one to; each thread keeps to one lane. There are as many
//! lanes as threads that can run at once, up to [`MOST`]; of more threads some share one, which costs time and is else the same.

use std::{
    cell::Cell,
    ops::{Deref, Index},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::available_parallelism,
};

/// A power of two. A layer's memory grows by two or three cache lines a lane.
const MOST: usize = 8;

/// One value per lane, each with a count of those who hold it.
pub(crate) struct Lanes<T>(Arc<[Arc<Lane<T>>]>);

/// The value of one lane; its count of holders stands on a line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Lane<T>(T);

/// A word, or a few, per lane.
#[derive(Debug)]
pub(crate) struct PerLane<W>(Box<[Line<W>]>);

/// On cache lines that hold nothing else; two, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Line<T>(pub(crate) T);

impl<T> Lanes<T> {
    /// `make` is told each lane's number.
    pub(crate) fn new(make: impl Fn(usize) -> T) -> Self {
        Self((0..count()).map(|lane| Lane::new(make(lane))).collect())
    }

    /// The calling thread's.
    #[inline]
    pub(crate) fn here(&self) -> &Arc<Lane<T>> {
        // A power of two of them, at least one.
        &self.0[number() & (self.0.len() - 1)]
    }
}

impl<T> Clone for Lanes<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Lane<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Lane<T> {
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self(value))
    }
}

impl<W> PerLane<W> {
    pub(crate) fn new(make: impl Fn() -> W) -> Self {
        Self((0..count()).map(|_| Line(make())).collect())
    }

    /// The calling thread's.
    #[inline]
    pub(crate) fn here(&self) -> &W {
        &self.0[number() & (self.0.len() - 1)].0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &W> {
        self.0.iter().map(|line| &line.0)
    }
}

impl<W: Default> Default for PerLane<W> {
    fn default() -> Self {
        Self::new(W::default)
    }
}

impl<W> Index<usize> for PerLane<W> {
    type Output = W;

    #[inline]
    fn index(&self, lane: usize) -> &W {
        &self.0[lane].0
    }
}

/// How many lanes there are.
pub(crate) fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    if cfg!(all(test, hopvine_loom)) {
        return 2;
    }
    // It reads files to find out.
    *COUNT.get_or_init(|| available_parallelism().map_or(MOST, |threads| threads.get().next_power_of_two().min(MOST)))
}

/// The calling thread's number: threads are numbered as they make their first call.
#[inline]
fn number() -> usize {
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    #[cold]
    fn next() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NUMBER.replace(NEXT.fetch_add(1, Relaxed))
    }
    match NUMBER.get() {
        usize::MAX => {
            next();
            NUMBER.get()
        }
        number => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_lanes_as_threads_that_can_run_at_once() {
        let threads = available_parallelism().map_or(MOST, std::num::NonZero::get);
        assert!(count().is_power_of_two() && count() <= MOST);
        assert!(count() >= threads.min(MOST));
    }

    #[test]
    fn threads_that_run_together_keep_to_lanes_of_their_own() {
        let lanes = Lanes::new(|lane| lane);
        let mine = || (***lanes.here(), ***lanes.here());
        let (own, again) = mine();
        assert_eq!(own, again);
        let other = std::thread::scope(|scope| scope.spawn(number).join().expect("no panic"));
        assert_ne!(other, number());
    }
}
