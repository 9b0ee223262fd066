//! Every interleaving of two or three threads at the places. A wake-up that is lost shows as a deadlock.

use std::{future::poll_fn, sync::Arc};

use loom::{future::block_on, thread::spawn};

use super::places::{Owner, Place, Places, Queued, Waiting};
use crate::sync::{AtomicU32, Relaxed, explore, race};

#[derive(Debug)]
struct Own {
    places: Places,
    /// How many have been inside. Changed by those inside only, and not by one instruction: two at once would lose one, and so
    /// would one who does not see what was done before the place was given back.
    visits: AtomicU32,
}

impl Owner for Own {
    fn places(&self) -> &Places {
        &self.places
    }

    fn lane(&self) -> usize {
        0
    }
}

/// The same for a thread of another lane.
#[derive(Debug)]
struct Other(Arc<Own>);

impl Owner for Other {
    fn places(&self) -> &Places {
        &self.0.places
    }

    fn lane(&self) -> usize {
        1
    }
}

fn own(limit: u32) -> Arc<Own> {
    Arc::new(Own { places: Places::new(limit), visits: AtomicU32::new(0) })
}

fn visit<O: Owner>(place: Place<O>, own: &Own) {
    own.visits.store(own.visits.load(Relaxed) + 1, Relaxed);
    drop(place);
}

fn wait<O: Owner>(mut waiting: Waiting<O>) -> Place<O> {
    block_on(poll_fn(|cx| waiting.poll_place(cx)))
}

/// A place, sooner or later.
fn enter<O: Owner>(own: &Arc<O>) -> Place<O> {
    match Places::queue(own, 2) {
        Queued::Place(place) => place,
        Queued::Waiting(waiting) => wait(waiting),
        Queued::Full => panic!("there is room for two"),
    }
}

#[test]
fn the_last_place_is_one_calls_and_free_again_after_it() {
    explore(3, || {
        let own = own(1);
        let call = |own: &Arc<Own>| Places::take(own).map(|place| visit(place, own)).is_some();
        let (one, other) = race(&own, call, call);
        assert_eq!(own.visits.load(Relaxed), u32::from(one) + u32::from(other));
        assert!(one || other);
        assert_eq!(own.places.count(), (0, 0));
    });
}

#[test]
fn two_calls_that_both_wait_for_their_turn_both_have_it() {
    explore(2, || {
        let own = own(1);
        let place = Places::take(&own).expect("free");
        let call = |own: &Arc<Own>| visit(enter(own), own);
        let waits = {
            let own = Arc::clone(&own);
            spawn(move || call(&own))
        };
        race(&own, call, |own| visit(place, own));
        waits.join().expect("no panic");
        assert_eq!(own.visits.load(Relaxed), 3);
        assert_eq!(own.places.count(), (0, 0));
    });
}

#[test]
fn a_place_granted_to_one_who_leaves_is_the_next_ones() {
    explore(2, || {
        let own = own(1);
        let place = Places::take(&own).expect("free");
        let Queued::Waiting(leaves) = Places::queue(&own, 2) else { panic!("there was none free") };
        let waits = {
            let own = Arc::clone(&own);
            spawn(move || visit(enter(&own), &own))
        };
        race(&own, move |_| drop(leaves), |own| visit(place, own));
        waits.join().expect("no panic");
        assert_eq!(own.visits.load(Relaxed), 2);
        assert_eq!(own.places.count(), (0, 0));
    });
}

#[test]
fn a_higher_limit_is_for_those_who_wait_already() {
    explore(3, || {
        let own = own(1);
        let kept = Places::take(&own).expect("free");
        race(&own, |own| visit(enter(own), own), |own| own.places.set_limit(2));
        assert_eq!(own.places.count(), (1, 0), "it is still in");
        drop(kept);
    });
}

#[test]
fn a_limit_lowered_while_calls_wait_lets_them_in_one_by_one() {
    explore(2, || {
        let own = own(2);
        let (one, other) = (Places::take(&own).expect("free"), Places::take(&own).expect("free"));
        let waits = {
            let own = Arc::clone(&own);
            spawn(move || visit(enter(&own), &own))
        };
        race(&own, |own| own.places.set_limit(1), |own| visit(one, own));
        drop(other);
        waits.join().expect("no panic");
        assert_eq!(own.places.count(), (0, 0));
    });
}

/// All but one of eight places are held by others; that one is in the stock of the first lane.
fn last_in_stock() -> (Arc<Own>, Vec<Place<Other>>) {
    let own = own(8);
    let other = Arc::new(Other(Arc::clone(&own)));
    // The first opens the stocks, the second goes into one.
    drop(Places::take(&own));
    drop(Places::take(&own));
    let others = (0..7).map(|_| Places::take(&other).expect("free")).collect();
    assert_eq!(own.places.count(), (7, 0));
    (own, others)
}

#[test]
fn the_last_place_is_one_calls_though_it_is_in_the_stock_of_another_lane() {
    explore(3, || {
        let (own, others) = last_in_stock();
        let (one, two) = race(
            &own,
            |own| Places::take(own).map(|place| visit(place, own)).is_some(),
            |own| Places::take(&Arc::new(Other(Arc::clone(own)))).map(|place| visit(place, own)).is_some(),
        );
        assert_eq!(own.visits.load(Relaxed), u32::from(one) + u32::from(two));
        assert!(one || two);
        assert_eq!(own.places.count(), (7, 0));
        drop(others);
        assert_eq!(own.places.count(), (0, 0));
    });
}

#[test]
fn one_who_waits_is_not_passed_over_for_a_stock() {
    explore(3, || {
        let (own, others) = last_in_stock();
        let place = Places::take(&own).expect("in stock");
        race(&own, |own| visit(enter(&Arc::new(Other(Arc::clone(own)))), own), |own| visit(place, own));
        assert_eq!(own.visits.load(Relaxed), 2);
        assert_eq!(own.places.count(), (7, 0));
        drop(others);
    });
}

#[test]
fn a_lowered_limit_holds_for_what_was_in_stock() {
    explore(3, || {
        let own = own(8);
        drop(Places::take(&own));
        drop(Places::take(&own)); // is in stock
        let kept = Places::take(&Arc::new(Other(Arc::clone(&own)))).expect("free");
        race(&own, |own| own.places.set_limit(1), |own| drop(Places::take(own)));
        assert!(Places::take(&own).is_none());
        drop(kept);
        assert!(Places::take(&own).is_some());
    });
}
