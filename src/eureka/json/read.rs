use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::object::{self, Element, Many, Object, Read, Take, fill, skip};
use crate::eureka::{
    Application, Applications, DataCenterInfo, Instance, LeaseInfo, Limits, Metadata, Port, ReadError, Text,
    field::Field,
    reading::{Reading, Step},
    scalar::{MetadataDraft, Scalar, Slot, data_center},
};

/// Reads what an instance registers with, or what a server says of one: `{"instance":{...}}`. It must name its application.
pub fn read_instance(document: &[u8], limits: &Limits) -> Result<Instance, ReadError> {
    let Registration { mut instance, app } =
        object::document(document, Field::Instance, Registration::default(), limits)?;
    instance.app = app.ok_or_else(|| ReadError::new("instance.app".to_owned(), "missing"))?;
    Ok(instance)
}

/// Reads `{"application":{...}}`. An instance that names no application is of this one; one that is beyond the [limits](Limits) is
/// [no more than a name](Limits#lists).
pub fn read_application(document: &[u8], limits: &Limits) -> Result<Application, ReadError> {
    Ok(object::document(document, Field::Application, ApplicationDraft::default(), limits)?.finish())
}

/// Reads `{"applications":{...}}`: a registry, or a delta. An instance that is beyond the [limits](Limits) is [no more than a name](Limits#lists).
pub fn read_applications(document: &[u8], limits: &Limits) -> Result<Applications, ReadError> {
    object::document(document, Field::Applications, Applications::default(), limits)
}

impl Object for Applications {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        match field {
            Field::Version => {
                self.version = map.next_value_seed(Take(|scalar: Scalar<'_>| scalar.whole()))?.unwrap_or_default();
            }
            Field::Hash => {
                let hash = map.next_value_seed(Take(|scalar: Scalar<'_>| Ok(scalar.text(reading, false))))?;
                self.hash = hash.map(|hash| (*hash).into()).unwrap_or_default();
            }
            Field::Application => {
                let drafts = map.next_value_seed(Many { new: ApplicationDraft::default, reading })?;
                self.applications = Vec::with_capacity(drafts.len());
                self.applications.extend(drafts.into_iter().map(ApplicationDraft::finish));
            }
            _ => skip(map, reading)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct ApplicationDraft {
    name: Option<Text>,
    instances: Vec<Instance>,
}

impl ApplicationDraft {
    fn finish(self) -> Application {
        Application::of(self.name.unwrap_or_default(), self.instances)
    }
}

impl Element for ApplicationDraft {
    fn count(reading: &Reading<'_>) -> Result<(), String> {
        reading.count_application()
    }

    fn reduced(self) -> Self {
        Self { instances: self.instances.into_iter().map(Instance::reduced).collect(), ..self }
    }
}

impl Object for ApplicationDraft {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        match field {
            Field::Name => fill(Slot::Upper(&mut self.name), map, reading),
            Field::Instance => {
                self.instances = map.next_value_seed(Many { new: Instance::default, reading })?;
                Ok(())
            }
            _ => skip(map, reading),
        }
    }
}

/// An instance that must name its application.
#[derive(Default)]
struct Registration {
    instance: Instance,
    app: Option<Text>,
}

impl Object for Registration {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        match field {
            Field::App => fill(Slot::Upper(&mut self.app), map, reading),
            _ => self.instance.field(field, map, reading),
        }
    }
}

impl Element for Instance {
    fn reduced(self) -> Self {
        Self::reduced(self)
    }
}

impl Object for Instance {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        match field {
            Field::Port => port(&mut self.port, map, reading)?,
            Field::SecurePort => port(&mut self.secure_port, map, reading)?,
            Field::DataCenterInfo => {
                if let Some(draft) = map.next_value_seed(Read { object: DataCenterDraft::default(), reading })? {
                    self.data_center_info = Some(draft.finish(reading)?);
                }
            }
            Field::LeaseInfo => {
                if let Some(lease) = map.next_value_seed(Read { object: LeaseInfo::default(), reading })? {
                    self.lease_info = Some(lease);
                }
            }
            Field::Metadata => self.metadata = map.next_value_seed(ReadMetadata(reading))?,
            _ => match Slot::of_instance(self, field) {
                Some(slot) => fill(slot, map, reading)?,
                None => skip(map, reading)?,
            },
        }
        Ok(())
    }
}

fn port<'de, A: MapAccess<'de>>(port: &mut Port, map: &mut A, reading: &Reading<'_>) -> Result<(), A::Error> {
    if let Some(read) = map.next_value_seed(ReadPort(Read { object: *port, reading }))? {
        *port = read;
    }
    Ok(())
}

impl Object for Port {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        match field {
            Field::PortNumber => fill(Slot::Number(&mut self.number), map, reading),
            Field::PortEnabled => fill(Slot::Flag(&mut self.enabled), map, reading),
            _ => skip(map, reading),
        }
    }
}

/// A port: an object, or the number alone, which is enabled.
struct ReadPort<'a, 'l>(Read<'a, 'l, Port>);

impl ReadPort<'_, '_> {
    fn number<E: serde::de::Error>(scalar: Scalar<'_>) -> Result<Option<Port>, E> {
        let number = scalar.whole().map_err(E::custom)?;
        Ok(number.map(|number| Port { number, enabled: true }))
    }
}

impl<'de> DeserializeSeed<'de> for ReadPort<'_, '_> {
    type Value = Option<Port>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Port>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ReadPort<'_, '_> {
    type Value = Option<Port>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port")
    }

    fn visit_unit<E>(self) -> Result<Option<Port>, E> {
        Ok(None)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Option<Port>, E> {
        Self::number(Scalar::Whole(number.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Option<Port>, E> {
        Self::number(Scalar::Whole(number.into()))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<Port>, E> {
        Self::number(Scalar::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<Port>, A::Error> {
        self.0.visit_map(map)
    }
}

#[derive(Default)]
struct DataCenterDraft {
    class: Option<Text>,
    name: Option<Text>,
    metadata: Metadata,
}

impl DataCenterDraft {
    fn finish<E: serde::de::Error>(self, reading: &Reading<'_>) -> Result<DataCenterInfo, E> {
        let amazon = self.class.is_some_and(|class| class.ends_with(".AmazonInfo"));
        reading.at(Field::Name.into(), || data_center(self.name.as_deref(), self.metadata, amazon)).map_err(E::custom)
    }
}

impl Object for DataCenterDraft {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        match field {
            Field::Class => fill(Slot::Shared(&mut self.class), map, reading),
            Field::Name => fill(Slot::Shared(&mut self.name), map, reading),
            Field::Metadata => {
                self.metadata = map.next_value_seed(ReadMetadata(reading))?;
                Ok(())
            }
            _ => skip(map, reading),
        }
    }
}

impl Object for LeaseInfo {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        match Slot::of_lease(self, field) {
            Some(slot) => fill(slot, map, reading),
            None => skip(map, reading),
        }
    }
}

/// Metadata: scalars under any name, all texts to us. A null is the text `null`, as to a Java server; the key by which Java marks a map's class is none of it.
struct ReadMetadata<'a, 'l>(&'a Reading<'l>);

impl<'de> DeserializeSeed<'de> for ReadMetadata<'_, '_> {
    type Value = Metadata;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Metadata, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ReadMetadata<'_, '_> {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_unit<E>(self) -> Result<Metadata, E> {
        Ok(Metadata::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let reading = self.0;
        let mut draft = MetadataDraft::default();
        while let Some(name) = map.next_key_seed(Take(|scalar: Scalar<'_>| Ok(scalar.text(reading, true))))? {
            let Some(name) = name else { continue };
            reading.at(Step::Name(name.clone()), || {
                let text = map.next_value_seed(Take(|scalar: Scalar<'_>| Ok(scalar.text(reading, true))))?;
                if &*name == Field::Class.as_str() {
                    return Ok(());
                }
                draft.add(name, text.unwrap_or_else(|| reading.text("null", true)), reading);
                Ok(())
            })?;
        }
        Ok(draft.finish())
    }
}
