//! Objects whose keys are Eureka's fields, read as they stream by, whatever else they hold.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};

use crate::eureka::{
    Limits, ReadError, Text,
    field::Field,
    reading::{Reading, Step},
    scalar::{Scalar, Slot},
};

/// What is read from an object, field by field.
pub(super) trait Object: Sized {
    /// Reads the value of one field, or [skips](skip) it.
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error>;
}

/// Read where it stands, since it is moved often otherwise.
impl<O: Object> Object for &mut O {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &Reading<'_>,
    ) -> Result<(), A::Error> {
        O::field(self, field, map, reading)
    }
}

/// What stands in lists.
pub(super) trait Element: Object {
    /// Counts one more.
    fn count(reading: &Reading<'_>) -> Result<(), String> {
        reading.count()
    }

    /// What is left of one that is beyond the limits.
    #[must_use]
    fn reduced(self) -> Self;
}

/// The longest document that is kept whole for its texts, in bytes. What registers with us is shorter as a rule.
const KEPT_WHOLE: usize = 4096;

/// Reads the one object of a document, under the one key it must have.
pub(super) fn document<O: Object>(
    document: &[u8],
    root: Field,
    mut object: O,
    limits: &Limits,
) -> Result<O, ReadError> {
    let document = text(document)?;
    let whole = (document.len() <= KEPT_WHOLE).then(|| Text::from(document));
    let reading = Reading::of(whole.as_ref(), limits);
    let mut json = serde_json::Deserializer::from_str(whole.as_deref().unwrap_or(document));
    let read = Root { key: root, object: &mut object, reading: &reading }.deserialize(&mut json);
    reading.finish(read.and_then(|_| json.end()))?;
    reading.tell_reduced();
    Ok(object)
}

fn text(document: &[u8]) -> Result<&str, ReadError> {
    str::from_utf8(document).map_err(|error| ReadError::new(String::new(), error))
}

/// Reads an object that stands alone.
pub(super) fn bare<O: Object>(document: &[u8], object: O, limits: &Limits) -> Result<O, ReadError> {
    let reading = Reading::new(limits);
    let mut json = serde_json::Deserializer::from_str(text(document)?);
    let read = Read { object, reading: &reading }.deserialize(&mut json).and_then(|object| {
        json.end()?;
        object.ok_or_else(|| serde_json::Error::custom("null, where an object should be"))
    });
    reading.finish(read)
}

/// The object under the one key of a document.
struct Root<'a, 'l, O> {
    key: Field,
    object: O,
    reading: &'a Reading<'l>,
}

impl<'de, O: Object> DeserializeSeed<'de> for Root<'_, '_, O> {
    type Value = O;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<O, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, O: Object> Visitor<'de> for Root<'_, '_, O> {
    type Value = O;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the key {:?} alone", self.key.as_str())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<O, A::Error> {
        let Self { key, object, reading } = self;
        let wrong = || A::Error::custom(format_args!("an object must hold the key {:?} alone", key.as_str()));
        if map.next_key_seed(Name)? != Some(key) {
            return Err(wrong());
        }
        let read = reading.at(key.into(), || {
            let read = map.next_value_seed(Read { object, reading })?;
            read.ok_or_else(|| A::Error::custom("null, where an object should be"))
        })?;
        if map.next_key_seed(Name)?.is_some() {
            return Err(wrong());
        }
        Ok(read)
    }
}

/// Reads an object; `None` is null.
pub(super) struct Read<'a, 'l, O> {
    pub(super) object: O,
    pub(super) reading: &'a Reading<'l>,
}

impl<'de, O: Object> DeserializeSeed<'de> for Read<'_, '_, O> {
    type Value = Option<O>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<O>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, O: Object> Visitor<'de> for Read<'_, '_, O> {
    type Value = Option<O>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Option<O>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<O>, A::Error> {
        let Self { mut object, reading } = self;
        while let Some(field) = map.next_key_seed(Name)? {
            reading.at(field.into(), || object.field(field, &mut map, reading))?;
        }
        Ok(Some(object))
    }
}

/// Reads an array of objects, or the one that stands for it; null is none, in it too.
pub(super) struct Many<'a, 'l, F> {
    /// Makes an empty one.
    pub(super) new: F,
    pub(super) reading: &'a Reading<'l>,
}

impl<'de, O: Element, F: Fn() -> O> DeserializeSeed<'de> for Many<'_, '_, F> {
    type Value = Vec<O>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<O>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, O: Element, F: Fn() -> O> Visitor<'de> for Many<'_, '_, F> {
    type Value = Vec<O>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_unit<E>(self) -> Result<Vec<O>, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<O>, A::Error> {
        let Self { new, reading } = self;
        O::count(reading).map_err(A::Error::custom)?;
        let one = reading.element(|| Read { object: new(), reading }.visit_map(map), |one| one.map(O::reduced))?;
        Ok(one.into_iter().collect())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<O>, A::Error> {
        let Self { new, reading } = self;
        let mut all = Vec::new();
        for number in 0.. {
            let next = reading.at(Step::Number(number), || {
                let read = || sequence.next_element_seed(Read { object: new(), reading });
                let next = reading.element(read, |next| next.map(|next| next.map(O::reduced)))?;
                if next.is_some() {
                    O::count(reading).map_err(A::Error::custom)?;
                }
                Ok(next)
            })?;
            let Some(next) = next else { break };
            all.extend(next);
        }
        Ok(all)
    }
}

/// Reads a scalar.
pub(super) struct Take<F>(pub(super) F);

impl<'de, T, F: FnOnce(Scalar<'_>) -> Result<T, String>> DeserializeSeed<'de> for Take<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T, F: FnOnce(Scalar<'_>) -> Result<T, String>> Visitor<'de> for Take<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a boolean")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<T, E> {
        self.0(Scalar::Null).map_err(E::custom)
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<T, E> {
        self.0(Scalar::Flag(flag)).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.0(Scalar::Whole(number.into())).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.0(Scalar::Whole(number.into())).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        self.0(Scalar::Real(number)).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        self.0(Scalar::Text(text)).map_err(E::custom)
    }

    // Where any crate of the program has serde_json keep all digits of numbers (its feature `arbitrary_precision`), it shows each number as this object.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        if map.next_key_seed(Name)? != Some(Field::AllDigits) {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        }
        map.next_value_seed(self)
    }
}

/// Reads the next value, a scalar, into a slot.
pub(super) fn fill<'de, A: MapAccess<'de>>(slot: Slot<'_>, map: &mut A, reading: &Reading<'_>) -> Result<(), A::Error> {
    map.next_value_seed(Take(|scalar: Scalar<'_>| slot.fill(scalar, reading)))
}

/// Reads a key as a field.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Field, E> {
        Ok(Field::named(name))
    }
}

/// Reads the next value, whatever its shape, and keeps nothing of it; but not deeper than may be.
pub(super) fn skip<'de, A: MapAccess<'de>>(map: &mut A, reading: &Reading<'_>) -> Result<(), A::Error> {
    let nesting = reading.limits.nesting;
    map.next_value_seed(Skip { nesting, left: nesting.saturating_sub(reading.depth()) })
}

#[derive(Clone, Copy)]
struct Skip {
    nesting: usize,
    left: usize,
}

impl Skip {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left, ..self }),
            None => Err(E::custom(format_args!("nested deeper than {}", self.nesting))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Skip {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while sequence.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while map.next_key_seed(Name)?.is_some() {
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}
