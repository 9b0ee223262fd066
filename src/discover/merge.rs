use std::sync::Arc;

use crate::{Endpoint, endpoint::EndpointId};

/// What happened, from one snapshot to the next, to some endpoints that stand together in the order of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Both have them, and they are the same `Arc`s.
    Keep,
    /// Both have them, and they are [the same](Endpoint::is_same) with another weight, zone, status or metadata.
    Update,
    /// Only the next one has them. One of an id that is reached otherwise now is removed, then inserted.
    Insert,
    /// Only the last one had them.
    Remove,
}

/// The next snapshot, as it is put together by one walk along the last one.
pub(super) struct Merge<'a> {
    /// Those of the last one that are still to come.
    before: &'a [Arc<Endpoint>],
    /// What happens to those nothing is said of.
    unsaid: Edit,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    /// What happened to how many, in order.
    pub(super) edits: Vec<(Edit, usize)>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(before: &'a [Arc<Endpoint>], unsaid: Edit) -> Self {
        Self { before, unsaid, endpoints: Vec::with_capacity(before.len()), edits: Vec::new() }
    }

    /// Walks on to this id; if the last one has it, that is the next.
    pub(super) fn seek(&mut self, id: &EndpointId) -> Option<&'a Endpoint> {
        self.pass(preceding(self.before, id), self.unsaid);
        self.before.first().map(Arc::as_ref).filter(|next| next.id() == id)
    }

    /// Keeps so many of the last one, or removes them.
    pub(super) fn pass(&mut self, count: usize, edit: Edit) {
        let (passed, rest) = self.before.split_at(count);
        self.before = rest;
        if edit == Edit::Keep {
            self.endpoints.extend_from_slice(passed);
        }
        self.edit(edit, count);
    }

    /// Puts an endpoint here: in the place of `known`, the next of the last one, or beside it.
    pub(super) fn put(&mut self, endpoint: Endpoint, known: Option<&Endpoint>) {
        if known.is_some_and(|known| known.is_same(&endpoint)) {
            self.before = &self.before[1..];
            self.edit(Edit::Update, 1);
        } else {
            self.pass(known.iter().count(), Edit::Remove);
            self.edit(Edit::Insert, 1);
        }
        self.endpoints.push(Arc::new(endpoint));
    }

    /// Walks to the end.
    pub(super) fn finish(&mut self) {
        self.pass(self.before.len(), self.unsaid);
    }

    pub(super) fn is_the_same(&self) -> bool {
        self.edits.iter().all(|(edit, _)| *edit == Edit::Keep)
    }

    fn edit(&mut self, edit: Edit, count: usize) {
        match self.edits.last_mut() {
            _ if count == 0 => {}
            Some((last, so_many)) if *last == edit => *so_many += count,
            _ => self.edits.push((edit, count)),
        }
    }
}

/// How many come before `id`; found in few steps where those are few, and in not many more where they are not.
fn preceding(sorted: &[Arc<Endpoint>], id: &EndpointId) -> usize {
    let mut reach = 1;
    while reach <= sorted.len() && sorted[reach - 1].id() < id {
        reach *= 2;
    }
    let known = reach / 2;
    let unknown = &sorted[known..sorted.len().min(reach - 1)];
    known + unknown.partition_point(|endpoint| endpoint.id() < id)
}

/// Those of a snapshot that its edits insert, as they stand together.
pub(super) fn inserted<'a>(
    mut endpoints: &'a [Arc<Endpoint>],
    edits: &'a [(Edit, usize)],
) -> impl Iterator<Item = &'a [Arc<Endpoint>]> {
    edits.iter().filter(|(edit, _)| *edit != Edit::Remove).filter_map(move |&(edit, count)| {
        let these;
        (these, endpoints) = endpoints.split_at(count);
        (edit == Edit::Insert).then_some(these)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::btree_map, option, prelude::*};

    use super::*;

    /// A port and a weight.
    type Seen = (u16, u32);

    fn endpoint(id: u8, (port, weight): Seen) -> Endpoint {
        Endpoint::from(std::net::SocketAddr::from(([127, 0, 0, 1], port))).with_id(id.to_string()).with_weight(weight)
    }

    fn seen() -> impl Strategy<Value = Seen> {
        (1..=2_u16, 1..=2_u32)
    }

    /// As the writer does it, with all that is said admitted.
    fn merged<'a>(before: &'a [Arc<Endpoint>], said: &BTreeMap<u8, Option<Seen>>, unsaid: Edit) -> Merge<'a> {
        let mut merge = Merge::new(before, unsaid);
        for (id, said) in said {
            let known = merge.seek(&EndpointId::new(id.to_string()));
            match said.map(|seen| endpoint(*id, seen)) {
                None => merge.pass(known.iter().count(), Edit::Remove),
                Some(endpoint) if known == Some(&endpoint) => merge.pass(1, Edit::Keep),
                Some(endpoint) => merge.put(endpoint, known),
            }
        }
        merge.finish();
        merge
    }

    proptest! {
        /// A subscriber that is told of a change where there is none builds its connections and its history anew for nothing.
        #[test]
        fn what_is_told_is_what_changed_and_no_more(
            before in btree_map(10..30_u8, seen(), 0..12),
            said in btree_map(10..30_u8, option::of(seen()), 0..12),
            all in any::<bool>(),
        ) {
            let unsaid = if all { Edit::Remove } else { Edit::Keep };
            let endpoints: Vec<_> = before.iter().map(|(id, seen)| Arc::new(endpoint(*id, *seen))).collect();
            let merge = merged(&endpoints, &said, unsaid);

            let (mut edits, mut after) = (Vec::new(), Vec::new());
            for id in before.keys().chain(said.keys()).collect::<BTreeSet<_>>() {
                let (known, said) = (before.get(id), said.get(id));
                let next = said.map_or(known.filter(|_| !all), Option::as_ref);
                after.extend(next.map(|seen| endpoint(*id, *seen)));
                match (known, next) {
                    (Some(known), Some(next)) if known == next => edits.push(Edit::Keep),
                    (Some(known), Some(next)) if known.0 == next.0 => edits.push(Edit::Update),
                    (known, next) => {
                        edits.extend(known.map(|_| Edit::Remove));
                        edits.extend(next.map(|_| Edit::Insert));
                    }
                }
            }
            prop_assert_eq!(merge.is_the_same(), edits.iter().all(|edit| *edit == Edit::Keep));
            // As few as say it: no two beside each other are the same, and none is of nothing.
            let runs: Vec<_> = edits.chunk_by(PartialEq::eq).map(|run| (run[0], run.len())).collect();
            prop_assert_eq!(&merge.edits, &runs);
            prop_assert!(merge.endpoints.iter().map(Arc::as_ref).eq(&after));
            let new: Vec<_> = inserted(&merge.endpoints, &merge.edits).flatten().map(|endpoint| endpoint.id()).collect();
            let expected: Vec<_> = edits.iter().filter(|edit| **edit != Edit::Remove).zip(&after).collect();
            let expected = expected.iter().filter(|(edit, _)| **edit == Edit::Insert).map(|(_, endpoint)| endpoint.id());
            prop_assert_eq!(new, expected.collect::<Vec<_>>());
        }
    }
}
