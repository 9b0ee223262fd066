//! What a source has said since the last snapshot.

use std::mem;

use tower::discover::Change;

use super::Update;
use crate::{Endpoint, endpoint::EndpointId};

/// It is kept as it comes: to look each up among all that is known would cost many times what one walk along both does.
#[derive(Default)]
pub(super) struct Pending {
    /// Whether it is of all endpoints, so that those it does not name have left.
    pub(super) all: bool,
    said: Vec<Said>,
    /// Beyond how many those that no longer count are thrown out.
    bound: usize,
}

/// What was said of one endpoint.
pub(super) enum Said {
    Is(Endpoint),
    Left(EndpointId),
}

/// The least [`Pending::bound`].
const FEW: usize = 4096;

impl Said {
    fn id(&self) -> &EndpointId {
        match self {
            Self::Is(endpoint) => endpoint.id(),
            Self::Left(id) => id,
        }
    }
}

impl Pending {
    pub(super) fn take(&mut self, update: Update) {
        match update {
            Update::Change(Change::Insert(id, endpoint)) => self.push(Said::Is(endpoint.with_id(id))),
            Update::Change(Change::Remove(id)) => self.push(Said::Left(id)),
            Update::All(all) => *self = Self { all: true, said: all.into_iter().map(Said::Is).collect(), bound: 0 },
        }
    }

    fn push(&mut self, said: Said) {
        self.said.push(said);
        if self.said.len() > self.bound.max(FEW) {
            // Few endpoints that flap must not be as much memory as they flap.
            self.said = sorted(mem::take(&mut self.said)).collect();
            self.bound = 2 * self.said.len();
        }
    }

    /// What was said, in the order of ids; of two with one id the last.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = Said> {
        sorted(self.said)
    }
}

fn sorted(said: Vec<Said>) -> impl Iterator<Item = Said> {
    let mut said: Vec<_> = said.into_iter().map(Some).collect();
    let order = order(&said.iter().flatten().map(|said| said.id().as_str()).collect::<Vec<_>>());
    order.into_iter().filter_map(move |at| said[at].take())
}

/// The places of `ids` in their order; of equal ones that of the last.
///
/// Ids of one service mostly begin alike. So the eight bytes after what all begin with are compared, as a number beside the place, and the ids
/// themselves, each somewhere else in memory, only where those are equal.
fn order(ids: &[&str]) -> Vec<usize> {
    let Some((first, rest)) = ids.split_first() else { return Vec::new() };
    let common = rest.iter().fold(first.len(), |common, id| {
        let alike = first.bytes().zip(id.bytes()).take(common).take_while(|(a, b)| a == b);
        alike.count()
    });
    let key = |id: &str| {
        let mut key = [0; 8];
        let next = id.as_bytes()[common..].iter();
        key.iter_mut().zip(next).for_each(|(key, next)| *key = *next);
        u64::from_be_bytes(key)
    };
    let mut order: Vec<_> = ids.iter().enumerate().map(|(at, id)| (key(id), at)).collect();
    order.sort_unstable();
    for equal in order.chunk_by_mut(|a, b| a.0 == b.0) {
        equal.sort_by_key(|(_, at)| ids[*at]);
    }
    order.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0 && ids[later.1] == ids[earlier.1];
        if same {
            *earlier = *later;
        }
        same
    });
    order.into_iter().map(|(_, at)| at).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Ids of few letters, the zero byte among them, so that many begin alike, end early, or are equal.
        #[test]
        fn of_one_id_the_last_counts_and_all_are_in_order(ids in prop::collection::vec("a{0,9}[\0ab]{0,3}", 0..40)) {
            let ids: Vec<_> = ids.iter().map(String::as_str).collect();
            let model: BTreeMap<_, _> = ids.iter().enumerate().map(|(at, id)| (id, at)).collect();
            prop_assert_eq!(order(&ids), model.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_that_flaps_without_end_is_not_memory_without_end() {
        let mut pending = Pending::default();
        for _ in 0..100_000 {
            pending.take(Update::Change(Change::Remove(EndpointId::new("a"))));
        }
        assert!(pending.said.len() <= FEW);
        assert_eq!(pending.into_sorted().count(), 1);
    }

    #[test]
    fn many_that_flap_are_little_more_memory_than_once_each_and_are_seldom_sorted() {
        let ids: Vec<_> = (0..2 * FEW).map(|id| EndpointId::new(id.to_string())).collect();
        let mut pending = Pending::default();
        for id in ids.iter().cycle().take(20 * ids.len()) {
            pending.take(Update::Change(Change::Remove(id.clone())));
            assert!(pending.said.len() <= 2 * ids.len());
        }
        assert_eq!(pending.into_sorted().count(), ids.len());
    }
}
