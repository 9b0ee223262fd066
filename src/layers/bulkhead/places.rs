//! The places of a bulkhead and the queue for them. No clock, no tokio.
//!
//! ```text
//!     word = waiting:32 | taken:32
//! ```
//!
//! While nobody waits, taking a place and giving it back are one compare-exchange of the word each. Once somebody does, every
//! change goes through the queue's lock, and a place that becomes free is handed to the first in the queue: nobody
//! overtakes. `waiting` changes under the lock only, and is the queue's length whenever the lock is free.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use crate::sync::{
    AcqRel, Acquire, AtomicBool, AtomicU32, AtomicU64, AtomicWaker, Mutex, MutexGuard, PoisonError, Relaxed, Release,
};

const TAKEN: u64 = 1;
const WAITING: u64 = 1 << 32;

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    word: AtomicU64,
    limit: AtomicU32,
    queue: Mutex<VecDeque<Arc<Ticket>>>,
}

/// One in the queue.
#[derive(Debug, Default)]
struct Ticket {
    /// Set under the lock, after which the place is the ticket's owner's.
    granted: AtomicBool,
    waker: AtomicWaker,
}

/// Whoever owns the places, directly or not.
pub(super) trait Owner {
    fn places(&self) -> &Places;
}

/// A place that is taken; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place<O: Owner>(Arc<O>);

/// A place in the queue; left when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting<O: Owner> {
    owner: Option<Arc<O>>,
    ticket: Arc<Ticket>,
}

/// What [`Places::queue`] says.
#[derive(Debug)]
pub(super) enum Queued<O: Owner> {
    /// There was a free place after all.
    Place(Place<O>),
    /// Wait.
    Waiting(Waiting<O>),
    /// The queue is full.
    Full,
}

fn taken(word: u64) -> u32 {
    word as u32
}

fn waiting(word: u64) -> u32 {
    (word >> 32) as u32
}

impl Places {
    pub(super) fn new(limit: u32) -> Self {
        Self { word: AtomicU64::new(0), limit: AtomicU32::new(limit), queue: Mutex::default() }
    }

    /// A free place, unless there is none or somebody waits for one.
    pub(super) fn take<O: Owner>(owner: &Arc<O>) -> Option<Place<O>> {
        let places = owner.places();
        let limit = places.limit.load(Relaxed);
        let free = |word| (waiting(word) == 0 && taken(word) < limit).then(|| word + TAKEN);
        places.word.fetch_update(AcqRel, Relaxed, free).is_ok().then(|| Place(Arc::clone(owner)))
    }

    /// A free place, or one in a queue of at most `most`.
    pub(super) fn queue<O: Owner>(owner: &Arc<O>, most: u32) -> Queued<O> {
        let places = owner.places();
        let mut queue = places.lock();
        // Under the lock, so that a new limit is seen, or whoever sets it sees us.
        let limit = places.limit.load(Acquire);
        let entered = places.word.fetch_update(AcqRel, Relaxed, |word| {
            if waiting(word) == 0 && taken(word) < limit {
                Some(word + TAKEN)
            } else {
                (waiting(word) < most).then(|| word + WAITING)
            }
        });
        match entered {
            Ok(word) if waiting(word) == 0 && taken(word) < limit => Queued::Place(Place(Arc::clone(owner))),
            Ok(_) => {
                let ticket = Arc::new(Ticket::default());
                queue.push_back(Arc::clone(&ticket));
                Queued::Waiting(Waiting { owner: Some(Arc::clone(owner)), ticket })
            }
            Err(_) => Queued::Full,
        }
    }

    /// Changes the number of places.
    pub(super) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Release);
        self.serve();
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Places taken, and calls that wait.
    pub(super) fn count(&self) -> (u32, u32) {
        let word = self.word.load(Relaxed);
        (taken(word), waiting(word))
    }

    fn give_back(&self) {
        let alone = |word| (waiting(word) == 0).then(|| word - TAKEN);
        if self.word.fetch_update(AcqRel, Relaxed, alone).is_err() {
            let queue = self.lock();
            self.word.fetch_sub(TAKEN, AcqRel);
            drop(queue);
            self.serve();
        }
    }

    /// Hands free places to those who wait, the first first.
    fn serve(&self) {
        loop {
            let mut queue = self.lock();
            let limit = self.limit.load(Acquire);
            let hand = |word| (waiting(word) > 0 && taken(word) < limit).then(|| word + TAKEN - WAITING);
            if self.word.fetch_update(AcqRel, Relaxed, hand).is_err() {
                return;
            }
            let next = queue.pop_front();
            debug_assert!(next.is_some(), "`waiting` is the queue's length");
            if let Some(ticket) = &next {
                ticket.granted.store(true, Release);
            }
            // A waker is foreign code: not under the lock.
            drop(queue);
            if let Some(ticket) = next {
                ticket.waker.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Ticket>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Owner> Drop for Place<O> {
    fn drop(&mut self) {
        self.0.places().give_back();
    }
}

impl<O: Owner> Waiting<O> {
    /// Ready with the place once it is this one's turn. Not to be polled after that.
    pub(super) fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<Place<O>> {
        // Registered before the check, so that a grant in between is not missed.
        self.ticket.waker.register(cx.waker());
        if !self.ticket.granted.load(Acquire) {
            return Poll::Pending;
        }
        Poll::Ready(Place(self.owner.take().expect("polled after it was ready")))
    }
}

impl<O: Owner> Drop for Waiting<O> {
    fn drop(&mut self) {
        let Some(owner) = self.owner.take() else { return };
        let places = owner.places();
        let mut queue = places.lock();
        if self.ticket.granted.load(Acquire) {
            drop(queue);
            // Its turn had come: the next in the queue gets it.
            drop(Place(owner));
            return;
        }
        queue.retain(|ticket| !Arc::ptr_eq(ticket, &self.ticket));
        places.word.fetch_sub(WAITING, AcqRel);
    }
}

#[cfg(all(test, not(hopvine_loom)))]
mod tests {
    use std::{
        sync::{Barrier, atomic::Ordering::SeqCst},
        task::{Wake, Waker},
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Own(Places);

    impl Owner for Own {
        fn places(&self) -> &Places {
            &self.0
        }
    }

    fn own(limit: u32) -> Arc<Own> {
        Arc::new(Own(Places::new(limit)))
    }

    fn wait(own: &Arc<Own>) -> Waiting<Own> {
        match Places::queue(own, u32::MAX) {
            Queued::Waiting(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    fn poll(waiting: &mut Waiting<Own>) -> Option<Place<Own>> {
        match waiting.poll_place(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Call,
        End(prop::sample::Index),
        Leave(prop::sample::Index),
        Limit(u32),
    }

    proptest! {
        /// Against a count and a list. `held` and `waiting` are the calls, by number.
        #[test]
        fn places_go_to_the_first_in_the_queue_and_none_gets_lost(
            steps in prop::collection::vec(prop_oneof![
                6 => Just(Step::Call),
                3 => any::<prop::sample::Index>().prop_map(Step::End),
                2 => any::<prop::sample::Index>().prop_map(Step::Leave),
                1 => (1_u32..6).prop_map(Step::Limit),
            ], 0..200),
        ) {
            let own = own(3);
            let mut limit = 3;
            let mut held: Vec<Place<Own>> = Vec::new();
            let mut waiting: VecDeque<Waiting<Own>> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Call => {
                        let free = waiting.is_empty() && held.len() < limit;
                        if let Some(place) = Places::take(&own) {
                            prop_assert!(free, "overtook, or one too many");
                            held.push(place);
                        } else {
                            prop_assert!(!free, "refused though a place was free");
                            match Places::queue(&own, 4) {
                                Queued::Waiting(turn) => waiting.push_back(turn),
                                Queued::Full => prop_assert_eq!(waiting.len(), 4),
                                Queued::Place(_) => prop_assert!(false, "there was none before"),
                            }
                        }
                    }
                    Step::End(which) if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
                    Step::Leave(which) if !waiting.is_empty() => drop(waiting.remove(which.index(waiting.len()))),
                    Step::Limit(to) => {
                        limit = to as usize;
                        own.0.set_limit(to);
                    }
                    Step::End(_) | Step::Leave(_) => {}
                }
                while held.len() < limit && !waiting.is_empty() {
                    let first = waiting.pop_front().and_then(|mut turn| poll(&mut turn));
                    prop_assert!(first.is_some(), "a place was eaten");
                    held.extend(first);
                }
                for turn in &mut waiting {
                    prop_assert!(poll(turn).is_none(), "one too many");
                }
                prop_assert_eq!(own.0.count(), (held.len() as u32, waiting.len() as u32));
            }
            drop((held, waiting));
            prop_assert_eq!(own.0.count(), (0, 0));
        }
    }

    #[test]
    fn one_that_comes_to_queue_just_as_a_place_is_given_back_has_it() {
        let own = own(1);
        let Queued::Place(place) = Places::queue(&own, 0) else { panic!("it is free") };
        assert_eq!((own.0.count(), own.0.limit()), ((1, 0), 1));
        assert!(matches!(Places::queue(&own, 0), Queued::Full));
        drop(place);
        own.0.set_limit(3);
        assert_eq!((own.0.count(), own.0.limit()), ((0, 0), 3));
    }

    #[test]
    fn a_waiter_that_leaves_with_its_place_already_granted_passes_it_on() {
        let own = own(1);
        let place = Places::take(&own).expect("free");
        let (first, mut second) = (wait(&own), wait(&own));
        drop(place); // goes to the first
        assert!(poll(&mut second).is_none());
        drop(first);
        assert!(poll(&mut second).is_some());
    }

    #[test]
    fn threads_never_over_admit_and_every_waiter_is_woken() {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let own = own(2);
        let (inside, start) = (AtomicU32::new(0), Barrier::new(4));
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (own, inside, start) = (&own, &inside, &start);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                    start.wait();
                    for _ in 0..10_000 {
                        let place = match (Places::take(own), random.u8(..8)) {
                            (Some(place), _) => place,
                            (None, 0) => continue,
                            (None, kind) => match Places::queue(own, 8) {
                                Queued::Place(place) => place,
                                Queued::Full => panic!("there are four of us"),
                                Queued::Waiting(_) if kind < 3 => continue, // leaves at once
                                Queued::Waiting(mut turn) => loop {
                                    match turn.poll_place(&mut Context::from_waker(&waker)) {
                                        Poll::Ready(place) => break place,
                                        // A lost wake-up shows as a failure, not as a test that hangs.
                                        Poll::Pending => {
                                            let before = std::time::SystemTime::now();
                                            std::thread::park_timeout(std::time::Duration::from_secs(10));
                                            let slept = before.elapsed().unwrap_or_default();
                                            assert!(slept.as_secs() < 10, "not woken");
                                        }
                                    }
                                },
                            },
                        };
                        assert!(inside.fetch_add(1, SeqCst) < 2, "over-admitted");
                        if random.bool() {
                            std::thread::yield_now();
                        }
                        inside.fetch_sub(1, SeqCst);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(own.0.count(), (0, 0));
    }
}
