use std::sync::Arc;

use serde::{
    de::MapAccess,
    ser::{Serialize, SerializeMap, Serializer},
};

use super::{
    object::{self, Element, Many, Object, Read, Take, fill, skip},
    write::{Fields, Full, write},
};
use crate::eureka::{
    Action, Instance, InstanceStatus, InvalidReplication, Limits, ReadError, Replication, ReplicationResponse, Text,
    field::Field,
    reading::Reading,
    scalar::{Scalar, Slot},
};

/// Reads a batch: `{"replicationList":[...]}`. An item that cannot be done, or is beyond the [limits](Limits), is an error in its place, and answered so.
pub fn read_replications(
    document: &[u8],
    limits: &Limits,
) -> Result<Vec<Result<Replication, InvalidReplication>>, ReadError> {
    let list = object::bare(document, ListDraft::<ItemDraft>::new(Field::ReplicationList), limits)?;
    Ok(list.finish()?.into_iter().map(ItemDraft::finish).collect())
}

/// Writes a batch.
pub fn write_replications(items: &[Replication], document: &mut Vec<u8>) {
    write(&List(Field::ReplicationList, items), document);
}

/// Writes a batch of as many operations as fit into so many bytes, but at least of one. Says how many these are.
#[cfg(feature = "registry")]
pub(crate) fn write_replications_within(
    items: impl IntoIterator<Item = Replication>,
    most: usize,
    document: &mut Vec<u8>,
) -> usize {
    const CLOSE: &[u8] = b"]}";
    document.extend_from_slice(format!("{{\"{}\":[", Field::ReplicationList.as_str()).as_bytes());
    let mut written = 0;
    for item in items {
        let end = document.len();
        if written > 0 {
            document.push(b',');
        }
        write(&Item(&item), document);
        if written > 0 && document.len() + CLOSE.len() > most {
            document.truncate(end);
            break;
        }
        written += 1;
    }
    document.extend_from_slice(CLOSE);
    written
}

/// Reads the answer to a batch: `{"responseList":[...]}`. Of an answer that is beyond the [limits](Limits) only the status is taken.
pub fn read_replication_responses(document: &[u8], limits: &Limits) -> Result<Vec<ReplicationResponse>, ReadError> {
    let list = object::bare(document, ListDraft::<ResponseDraft>::new(Field::ResponseList), limits)?;
    let answers = list.finish()?.into_iter().enumerate().map(|(number, draft)| {
        let missing = || ReadError::new(format!("responseList[{number}].statusCode"), "missing");
        Ok(ReplicationResponse { status_code: draft.status_code.ok_or_else(missing)?, instance: draft.instance })
    });
    answers.collect()
}

/// Writes the answer to a batch.
pub fn write_replication_responses(answers: &[ReplicationResponse], document: &mut Vec<u8>) {
    write(&List(Field::ResponseList, answers), document);
}

/// The one list of a document.
struct ListDraft<O> {
    name: Field,
    items: Option<Vec<O>>,
}

impl<O> ListDraft<O> {
    fn new(name: Field) -> Self {
        Self { name, items: None }
    }

    fn finish(self) -> Result<Vec<O>, ReadError> {
        self.items.ok_or_else(|| ReadError::new(self.name.as_str().to_owned(), "missing"))
    }
}

impl<O: Element + Default> Object for ListDraft<O> {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        if field != self.name {
            return skip(map, reading);
        }
        self.items = Some(map.next_value_seed(Many { new: O::default, reading })?);
        Ok(())
    }
}

#[derive(Default)]
struct ItemDraft {
    app_name: Option<Text>,
    id: Option<Text>,
    last_dirty_timestamp: Option<u64>,
    overridden_status: Option<Text>,
    status: Option<Text>,
    instance: Option<Arc<Instance>>,
    action: Option<Text>,
    is_beyond: bool,
}

impl ItemDraft {
    fn finish(self) -> Result<Replication, InvalidReplication> {
        if self.is_beyond {
            return Err(InvalidReplication("it is beyond the limits"));
        }
        let app_name = self.app_name.ok_or(InvalidReplication("appName is missing"))?;
        let id = self.id.ok_or(InvalidReplication("id is missing"))?;
        let no_status = InvalidReplication("status is none");
        let status = self.status.as_deref().map(|status| InstanceStatus::named(status).ok_or(no_status)).transpose();
        let action = match self.action.as_deref() {
            Some("Register") => Action::Register(self.instance.ok_or(InvalidReplication("instanceInfo is missing"))?),
            Some("Heartbeat") => Action::Heartbeat {
                status: status.ok().flatten(),
                overridden_status: self.overridden_status.as_deref().and_then(InstanceStatus::named),
            },
            Some("Cancel") => Action::Cancel,
            Some("StatusUpdate") => Action::StatusUpdate(status?.ok_or(no_status)?),
            Some("DeleteStatusOverride") if self.last_dirty_timestamp.is_none() => {
                return Err(InvalidReplication("lastDirtyTimestamp is missing"));
            }
            Some("DeleteStatusOverride") => Action::DeleteStatusOverride(status?.unwrap_or(InstanceStatus::Unknown)),
            _ => return Err(InvalidReplication("action is none")),
        };
        Ok(Replication { app_name, id, last_dirty_timestamp: self.last_dirty_timestamp, action })
    }
}

impl Element for ItemDraft {
    fn reduced(self) -> Self {
        Self { is_beyond: true, ..Self::default() }
    }
}

impl Object for ItemDraft {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        let slot = match field {
            Field::AppName => Slot::Upper(&mut self.app_name),
            Field::Id => Slot::Text(&mut self.id),
            Field::LastDirtyTimestamp => Slot::Timestamp(&mut self.last_dirty_timestamp),
            Field::OverriddenStatus => Slot::Shared(&mut self.overridden_status),
            Field::Status => Slot::Shared(&mut self.status),
            Field::Action => Slot::Shared(&mut self.action),
            Field::InstanceInfo => return instance(&mut self.instance, map, reading),
            _ => return skip(map, reading),
        };
        fill(slot, map, reading)
    }
}

#[derive(Default)]
struct ResponseDraft {
    status_code: Option<u16>,
    instance: Option<Arc<Instance>>,
}

impl Element for ResponseDraft {
    fn reduced(self) -> Self {
        Self { instance: None, ..self }
    }
}

impl Object for ResponseDraft {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        match field {
            Field::StatusCode => self.status_code = map.next_value_seed(Take(|scalar: Scalar<'_>| scalar.whole()))?,
            Field::ResponseEntity => instance(&mut self.instance, map, reading)?,
            _ => skip(map, reading)?,
        }
        Ok(())
    }
}

/// Reads an instance that has no key around it.
fn instance<'de, A: MapAccess<'de>>(
    slot: &mut Option<Arc<Instance>>,
    map: &mut A,
    reading: &Reading<'_>,
) -> Result<(), A::Error> {
    *slot = map.next_value_seed(Read { object: Instance::default(), reading })?.map(Arc::new);
    Ok(())
}

struct List<'a, T>(Field, &'a [T]);

impl<T> Serialize for List<'_, T>
where
    for<'b> Item<'b, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0.as_str(), Items(self.1))])
    }
}

struct Items<'a, T>(&'a [T]);

impl<T> Serialize for Items<'_, T>
where
    for<'b> Item<'b, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Item))
    }
}

struct Item<'a, T>(&'a T);

impl Serialize for Item<'_, Replication> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let item = self.0;
        let (overridden_status, status, instance) = match &item.action {
            Action::Register(instance) => (None, Some(instance.status), Some(instance)),
            Action::Heartbeat { status, overridden_status } => (*overridden_status, *status, None),
            Action::Cancel => (None, None, None),
            Action::StatusUpdate(status) | Action::DeleteStatusOverride(status) => (None, Some(*status), None),
        };
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put(Field::AppName, &*item.app_name)?;
        fields.put(Field::Id, &*item.id)?;
        fields.put_some(Field::LastDirtyTimestamp, item.last_dirty_timestamp)?;
        fields.put_some(Field::OverriddenStatus, overridden_status.map(InstanceStatus::as_str))?;
        fields.put_some(Field::Status, status.map(InstanceStatus::as_str))?;
        fields.put_some(Field::InstanceInfo, instance.map(|instance| Full(instance)))?;
        fields.put(Field::Action, item.action.as_str())?;
        fields.0.end()
    }
}

impl Serialize for Item<'_, ReplicationResponse> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put(Field::StatusCode, &self.0.status_code)?;
        fields.put_some(Field::ResponseEntity, self.0.instance.as_deref().map(Full))?;
        fields.0.end()
    }
}

#[cfg(all(test, feature = "registry"))]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_long_as_it_may_be_and_not_longer() {
        let item = |id: usize| Replication {
            app_name: "A".into(),
            id: id.to_string().into(),
            last_dirty_timestamp: None,
            action: Action::Cancel,
        };
        let all: Vec<_> = (0..10).map(item).collect();
        for most in [0, 50, 100, 200, 300, 10_000] {
            let (mut within, mut as_many) = (Vec::new(), Vec::new());
            let written = write_replications_within(all.iter().cloned(), most, &mut within);
            write_replications(&all[..written], &mut as_many);
            assert_eq!(within, as_many);
            assert!(written == 1 || within.len() <= most, "{most}");
            let mut longer = Vec::new();
            write_replications(&all[..(written + 1).min(10)], &mut longer);
            assert!(written == 10 || longer.len() > most, "{most}");
        }
    }
}
