//! The places of a bulkhead and the queue for them. No clock, no tokio.
//!
//! ```text
//!     word = waiting:32 | taken:32
//! ```
//!
//! While nobody waits, taking a place and giving it back are one compare-exchange of the word each. Once somebody does, every
//! change goes through the queue's lock, and a place that becomes free is handed to the first in the queue: nobody
//! overtakes. `waiting` changes under the lock only, and is the queue's length whenever the lock is free.
//!
//! So that threads need not all write the one word, each lane has a *stock*: places that are free, but still counted as taken in the word,
//! for the lane's own calls. A stock is open or closed. All are closed, and what they hold is free again in the word, before a call is
//! refused, before one queues, and when the limit changes; they are opened when half of the places are free. Both happen under the lock, so
//! stocks are open only while nobody waits. All of them together hold at most a quarter of the places, and of few places none.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    lanes::{self, PerLane},
    sync::{
        AcqRel, Acquire, AtomicBool, AtomicU32, AtomicU64, AtomicWaker, Mutex, MutexGuard, PoisonError, Relaxed,
        Release,
    },
};

const TAKEN: u64 = 1;
const WAITING: u64 = 1 << 32;

/// Of a stock; any other value is the number of places in it.
const CLOSED: u64 = u64::MAX;

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    word: AtomicU64,
    limit: AtomicU32,
    stocks: PerLane<Stock>,
    /// What a stock may hold.
    stock_limit: AtomicU64,
    queue: Mutex<VecDeque<Arc<Ticket>>>,
}

/// The free places of one lane.
#[derive(Debug)]
struct Stock(AtomicU64);

impl Default for Stock {
    fn default() -> Self {
        Self(AtomicU64::new(CLOSED))
    }
}

/// One in the queue.
#[derive(Debug, Default)]
struct Ticket {
    /// Set under the lock, after which the place is the ticket's owner's.
    granted: AtomicBool,
    waker: AtomicWaker,
}

/// Whoever owns the places, directly or not, as one lane's calls hold it.
pub(super) trait Owner {
    fn places(&self) -> &Places;

    fn lane(&self) -> usize;
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

fn stock_limit(limit: u32) -> u64 {
    u64::from(limit) / (4 * lanes::count() as u64)
}

impl Places {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            word: AtomicU64::new(0),
            limit: AtomicU32::new(limit),
            stocks: PerLane::default(),
            stock_limit: AtomicU64::new(stock_limit(limit)),
            queue: Mutex::default(),
        }
    }

    /// A free place, unless there is none or somebody waits for one.
    pub(super) fn take<O: Owner>(owner: &Arc<O>) -> Option<Place<O>> {
        let places = owner.places();
        let stock = &places.stocks[owner.lane()].0;
        let stocked = |stock| (stock != CLOSED && stock > 0).then(|| stock - 1);
        let taken = stock.fetch_update(AcqRel, Relaxed, stocked).is_ok() || places.take_counted() || {
            // Other lanes may have what this one wants, or be about to give it up.
            places.close_stocks(&places.lock());
            places.take_counted()
        };
        taken.then(|| Place(Arc::clone(owner)))
    }

    /// A free place, or one in a queue of at most `most`.
    pub(super) fn queue<O: Owner>(owner: &Arc<O>, most: u32) -> Queued<O> {
        let places = owner.places();
        let mut queue = places.lock();
        places.close_stocks(&queue);
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
        let queue = self.lock();
        self.close_stocks(&queue);
        self.limit.store(limit, Release);
        self.stock_limit.store(stock_limit(limit), Relaxed);
        drop(queue);
        self.serve();
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Places taken, and calls that wait.
    pub(super) fn count(&self) -> (u32, u32) {
        let stocked: u64 = self.stocks.iter().map(|stock| stock.0.load(Relaxed)).filter(|stock| *stock != CLOSED).sum();
        let word = self.word.load(Relaxed);
        // While calls come and go the two are not of one moment.
        (taken(word).saturating_sub(stocked as u32), waiting(word))
    }

    fn take_counted(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        let free = |word| (waiting(word) == 0 && taken(word) < limit).then(|| word + TAKEN);
        self.word.fetch_update(AcqRel, Relaxed, free).is_ok()
    }

    fn give_back(&self, lane: usize) {
        let limit = self.stock_limit.load(Relaxed);
        // One that is closed is above any limit.
        let stocked = self.stocks[lane].0.fetch_update(AcqRel, Relaxed, |stock| (stock < limit).then(|| stock + 1));
        let Err(stock) = stocked else { return };
        self.give_back_counted();
        if stock == CLOSED && limit > 0 {
            self.open_stocks();
        }
    }

    fn give_back_counted(&self) {
        let alone = |word| (waiting(word) == 0).then(|| word - TAKEN);
        if self.word.fetch_update(AcqRel, Relaxed, alone).is_err() {
            let queue = self.lock();
            self.word.fetch_sub(TAKEN, AcqRel);
            drop(queue);
            self.serve();
        }
    }

    /// Makes free in the word what the stocks hold, and keeps them empty.
    fn close_stocks(&self, _queue: &MutexGuard<'_, VecDeque<Arc<Ticket>>>) {
        // What is closed stays so while we have the lock.
        let open = self.stocks.iter().filter(|stock| stock.0.load(Relaxed) != CLOSED);
        let free: u64 = open.map(|stock| stock.0.swap(CLOSED, AcqRel)).sum();
        if free > 0 {
            self.word.fetch_sub(free * TAKEN, AcqRel);
        }
    }

    /// Opens them, if half of the places are free.
    fn open_stocks(&self) {
        let quiet = || {
            let word = self.word.load(Relaxed);
            waiting(word) == 0 && taken(word) <= self.limit.load(Relaxed) / 2
        };
        if !quiet() {
            return;
        }
        let _queue = self.lock();
        // Again, since now nobody can come to wait, nor change the limit.
        if quiet() {
            for stock in self.stocks.iter() {
                let _ = stock.0.compare_exchange(CLOSED, 0, AcqRel, Relaxed);
            }
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
        self.0.places().give_back(self.0.lane());
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
    struct Own(Arc<Places>, usize);

    impl Owner for Own {
        fn places(&self) -> &Places {
            &self.0
        }

        fn lane(&self) -> usize {
            self.1
        }
    }

    /// As the calls of each lane hold them.
    fn lanes(limit: u32) -> Vec<Arc<Own>> {
        let places = Arc::new(Places::new(limit));
        (0..lanes::count()).map(|lane| Arc::new(Own(Arc::clone(&places), lane))).collect()
    }

    fn own(limit: u32) -> Arc<Own> {
        lanes(limit).swap_remove(0)
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
        Call(prop::sample::Index),
        End(prop::sample::Index),
        Leave(prop::sample::Index),
        Limit(u32),
    }

    proptest! {
        /// Against a count and a list. `held` and `waiting` are the calls, by number.
        #[test]
        fn places_go_to_the_first_in_the_queue_and_none_gets_lost(
            steps in prop::collection::vec(prop_oneof![
                6 => any::<prop::sample::Index>().prop_map(Step::Call),
                3 => any::<prop::sample::Index>().prop_map(Step::End),
                2 => any::<prop::sample::Index>().prop_map(Step::Leave),
                1 => prop_oneof![1_u32..6, 20_u32..50].prop_map(Step::Limit),
            ], 0..400),
        ) {
            let all = lanes(40);
            let mut limit = 40;
            let mut held: Vec<Place<Own>> = Vec::new();
            let mut waiting: VecDeque<Waiting<Own>> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Call(lane) => {
                        let own = &all[lane.index(all.len())];
                        let free = waiting.is_empty() && held.len() < limit;
                        if let Some(place) = Places::take(own) {
                            prop_assert!(free, "overtook, or one too many");
                            held.push(place);
                        } else {
                            prop_assert!(!free, "refused though a place was free");
                            match Places::queue(own, 4) {
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
                        all[0].0.set_limit(to);
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
                prop_assert_eq!(all[0].0.count(), (held.len() as u32, waiting.len() as u32));
            }
            drop((held, waiting));
            prop_assert_eq!(all[0].0.count(), (0, 0));
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
        // Of so few no lane has a stock; of so many each does, and opens and closes it all the time.
        for (limit, each) in [(2, 1), (8 * lanes::count(), 4 * lanes::count())] {
            let all = lanes(limit as u32);
            let (inside, start) = (AtomicU32::new(0), Barrier::new(4));
            let enter = || assert!(inside.fetch_add(1, SeqCst) < limit as u32, "over-admitted");
            let leave = |place| {
                inside.fetch_sub(1, SeqCst);
                drop(place);
            };
            std::thread::scope(|scope| {
                for seed in 0..4 {
                    let own = &all[seed as usize % all.len()];
                    let (start, enter, leave) = (&start, &enter, &leave);
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                        let mut held: Vec<Place<Own>> = Vec::new();
                        start.wait();
                        for _ in 0..5_000 {
                            let most = random.usize(..each);
                            while held.len() > most {
                                leave(held.pop());
                            }
                            let place = match (Places::take(own), random.u8(..8)) {
                                (Some(place), _) => place,
                                (None, 0) => continue,
                                // Who has some does not wait for more: all might.
                                (None, _) if !held.is_empty() => continue,
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
                            enter();
                            held.push(place);
                            if random.bool() {
                                std::thread::yield_now();
                            }
                        }
                        held.drain(..).for_each(|place| leave(Some(place)));
                    });
                }
            });
            assert_eq!(all[0].0.count(), (0, 0));
        }
    }
}
