use quick_xml::events::BytesStart;

use super::{
    element::{Elements, attribute, document},
    name,
};
use crate::eureka::{
    Application, Applications, DataCenterInfo, Instance, LeaseInfo, Limits, Metadata, Port, ReadError,
    field::Field,
    reading::{Reading, Step},
    scalar::{MetadataDraft, Scalar, Slot, data_center},
};

/// Reads what an instance registers with, or what a server says of one: `<instance>`.
pub fn read_instance(bytes: &[u8], limits: &Limits) -> Result<Instance, ReadError> {
    document(bytes, Field::Instance, &Reading::new(limits), instance)
}

/// Reads `<application>`. An instance that names no application is of this one; one that is beyond the [limits](Limits) is
/// [no more than a name](Limits#lists).
pub fn read_application(bytes: &[u8], limits: &Limits) -> Result<Application, ReadError> {
    document(bytes, Field::Application, &Reading::new(limits), application)
}

/// Reads `<applications>`: a registry, or a delta. An instance that is beyond the [limits](Limits) is [no more than a name](Limits#lists).
pub fn read_applications(bytes: &[u8], limits: &Limits) -> Result<Applications, ReadError> {
    document(bytes, Field::Applications, &Reading::new(limits), applications)
}

fn applications(elements: &mut Elements<'_, '_, '_>) -> Result<Applications, String> {
    let reading = elements.reading;
    let mut read = Applications::default();
    each(elements, |elements, field, _| {
        match field {
            Field::Version => read.version = Scalar::Text(elements.text()?).whole()?.unwrap_or_default(),
            Field::Hash => read.hash = (*reading.text(elements.text()?, false)).into(),
            Field::Application => {
                reading.count_application()?;
                let number = Step::Number(read.applications.len());
                let next = || reading.at(number, || application(elements));
                read.applications.push(reading.element(next, Application::reduced)?);
            }
            _ => elements.skip()?,
        }
        Ok(())
    })?;
    Ok(read)
}

fn application(elements: &mut Elements<'_, '_, '_>) -> Result<Application, String> {
    let reading = elements.reading;
    let mut name = None;
    let mut instances = Vec::new();
    each(elements, |elements, field, _| {
        match field {
            Field::Name => elements.fill(Slot::Upper(&mut name))?,
            Field::Instance => {
                reading.count()?;
                let number = Step::Number(instances.len());
                let next = || reading.at(number, || instance(elements));
                instances.push(reading.element(next, Instance::reduced)?);
            }
            _ => elements.skip()?,
        }
        Ok(())
    })?;
    Ok(Application::of(name.unwrap_or_default(), instances))
}

fn instance(elements: &mut Elements<'_, '_, '_>) -> Result<Instance, String> {
    let mut read = Instance::default();
    each(elements, |elements, field, start| {
        match field {
            // Unlike the secure port, it is enabled unless it says no.
            Field::Port => port(elements, start, &mut read.port, |enabled| enabled != Some("false"))?,
            Field::SecurePort => port(elements, start, &mut read.secure_port, |enabled| enabled == Some("true"))?,
            Field::DataCenterInfo => read.data_center_info = Some(data_center_info(elements, start)?),
            Field::LeaseInfo => read.lease_info = Some(lease(elements)?),
            Field::Metadata => read.metadata = metadata(elements)?,
            _ => match Slot::of_instance(&mut read, field) {
                Some(slot) => elements.fill(slot)?,
                None => elements.skip()?,
            },
        }
        Ok(())
    })?;
    Ok(read)
}

fn port(
    elements: &mut Elements<'_, '_, '_>,
    start: &BytesStart<'_>,
    port: &mut Port,
    enabled: impl FnOnce(Option<&str>) -> bool,
) -> Result<(), String> {
    port.enabled = enabled(attribute(start, "enabled")?.as_deref());
    elements.fill(Slot::Number(&mut port.number))
}

fn data_center_info(elements: &mut Elements<'_, '_, '_>, start: &BytesStart<'_>) -> Result<DataCenterInfo, String> {
    let amazon = attribute(start, "class")?.is_some_and(|class| class.ends_with(".AmazonInfo"));
    let (mut name, mut held) = (None, Metadata::default());
    each(elements, |elements, field, _| match field {
        Field::Name => elements.fill(Slot::Shared(&mut name)),
        Field::Metadata => {
            held = metadata(elements)?;
            Ok(())
        }
        _ => elements.skip(),
    })?;
    elements.reading.at(Field::Name.into(), || data_center(name.as_deref(), held, amazon))
}

fn lease(elements: &mut Elements<'_, '_, '_>) -> Result<LeaseInfo, String> {
    let mut lease = LeaseInfo::default();
    each(elements, |elements, field, _| match Slot::of_lease(&mut lease, field) {
        Some(slot) => elements.fill(slot),
        None => elements.skip(),
    })?;
    Ok(lease)
}

fn metadata(elements: &mut Elements<'_, '_, '_>) -> Result<Metadata, String> {
    let reading = elements.reading;
    let mut draft = MetadataDraft::default();
    while let Some(start) = elements.child()? {
        let element = start.name();
        let name = name::decode(element.as_ref());
        let name = reading.text(&name, true);
        reading.at(Step::Name(name.clone()), || {
            let text = reading.text(elements.text()?, true);
            draft.add(name, text, reading);
            Ok::<(), String>(())
        })?;
    }
    Ok(draft.finish())
}

/// Reads each child of the element the reader is in.
fn each<'d, 'a, 'l>(
    elements: &mut Elements<'d, 'a, 'l>,
    mut read: impl FnMut(&mut Elements<'d, 'a, 'l>, Field, &BytesStart<'d>) -> Result<(), String>,
) -> Result<(), String> {
    let reading = elements.reading;
    while let Some(start) = elements.child()? {
        let field = Field::named(start.name().as_ref());
        reading.at(field.into(), || read(elements, field, &start))?;
    }
    Ok(())
}
