//! Elements as they stream by: children, texts, and what is skipped. All of it bounded; no document types, no entities.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use crate::eureka::{
    ReadError,
    field::Field,
    reading::Reading,
    scalar::{Scalar, Slot},
};

/// Where the reader is in a document.
pub(super) struct Elements<'d, 'a, 'l> {
    reader: Reader<&'d [u8]>,
    pub(super) reading: &'a Reading<'l>,
    depth: usize,
    text: String,
}

/// Reads the one element of a document, which must have this name.
pub(super) fn document<T>(
    document: &[u8],
    root: Field,
    reading: &Reading<'_>,
    read: impl FnOnce(&mut Elements<'_, '_, '_>) -> Result<T, String>,
) -> Result<T, ReadError> {
    let read = || {
        let document = std::str::from_utf8(document).map_err(|error| error.to_string())?;
        document.chars().try_for_each(checked)?;
        let mut elements = Elements::new(document, reading);
        elements.enter_root(root)?;
        let value = reading.at(root.into(), || read(&mut elements))?;
        elements.finish()?;
        Ok::<T, String>(value)
    };
    let read = reading.finish(read())?;
    reading.tell_reduced();
    Ok(read)
}

impl<'d, 'a, 'l> Elements<'d, 'a, 'l> {
    fn new(document: &'d str, reading: &'a Reading<'l>) -> Self {
        let mut reader = Reader::from_str(document.strip_prefix('\u{feff}').unwrap_or(document));
        reader.config_mut().expand_empty_elements = true;
        Self { reader, reading, depth: 0, text: String::new() }
    }

    fn next(&mut self) -> Result<Event<'d>, String> {
        match self.reader.read_event().map_err(|error| error.to_string())? {
            Event::DocType(_) => Err("a document type is not taken".to_owned()),
            Event::Start(start) => {
                self.depth += 1;
                if self.depth > self.reading.limits.nesting {
                    return Err(format!("nested deeper than {}", self.reading.limits.nesting));
                }
                Ok(Event::Start(start))
            }
            Event::End(end) => {
                self.depth -= 1;
                Ok(Event::End(end))
            }
            event => Ok(event),
        }
    }

    fn enter_root(&mut self, root: Field) -> Result<(), String> {
        loop {
            match self.next()? {
                Event::Decl(declaration) => {
                    let encoding = declaration.encoding().transpose().map_err(|error| error.to_string())?;
                    if let Some(encoding) = encoding
                        && !["utf-8", "utf8", "us-ascii"].iter().any(|known| encoding.eq_ignore_ascii_case(known))
                    {
                        return Err(format!("the encoding {} is not taken", Scalar::Text(&encoding).shown()));
                    }
                }
                Event::Start(start) if Field::named(start.name().as_ref()) == root => return Ok(()),
                Event::Start(start) => {
                    let name = Scalar::Text(start.name().as_ref()).shown();
                    return Err(format!("the element {name}, where {:?} should be", root.as_str()));
                }
                Event::Comment(_) | Event::PI(_) => {}
                Event::Text(text) if text.trim_ascii().is_empty() => {}
                _ => return Err(format!("no element {:?}", root.as_str())),
            }
        }
    }

    /// After the root nothing may follow.
    fn finish(&mut self) -> Result<(), String> {
        loop {
            match self.next()? {
                Event::Eof => return Ok(()),
                Event::Comment(_) | Event::PI(_) => {}
                Event::Text(text) if text.trim_ascii().is_empty() => {}
                _ => return Err("more than one element".to_owned()),
            }
        }
    }

    /// The next child of the element the reader is in; `None` once the element has ended. A child must be read or [skipped](Self::skip) before the next.
    pub(super) fn child(&mut self) -> Result<Option<BytesStart<'d>>, String> {
        loop {
            match self.next()? {
                Event::Start(start) => return Ok(Some(start)),
                Event::End(_) => return Ok(None),
                Event::Eof => return Err("the document ends here".to_owned()),
                _ => {}
            }
        }
    }

    /// The text of the element the reader is in, to its end.
    pub(super) fn text(&mut self) -> Result<&str, String> {
        self.text.clear();
        loop {
            match self.next()? {
                Event::Text(text) => self.text.push_str(&text.xml10_content()),
                Event::CData(text) => self.text.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let character = reference.resolve_char_ref().map_err(|error| error.to_string())?;
                    let character = character.or_else(|| entity(&reference));
                    let unknown = || format!("the entity {} is not known", Scalar::Text(&reference).shown());
                    let character = character.ok_or_else(unknown)?;
                    checked(character)?;
                    self.text.push(character);
                }
                Event::End(_) => return Ok(&self.text),
                Event::Start(_) => return Err("an element, where a text should be".to_owned()),
                Event::Eof => return Err("the document ends here".to_owned()),
                _ => {}
            }
        }
    }

    /// Reads the element's text into a slot.
    pub(super) fn fill(&mut self, slot: Slot<'_>) -> Result<(), String> {
        let reading = self.reading;
        slot.fill(Scalar::Text(self.text()?), reading)
    }

    /// Passes the element the reader is in, whatever it holds.
    pub(super) fn skip(&mut self) -> Result<(), String> {
        let outside = self.depth - 1;
        while self.depth > outside {
            if let Event::Eof = self.next()? {
                return Err("the document ends here".to_owned());
            }
        }
        Ok(())
    }
}

/// Whether XML 1.0 has this character, which JSON may have.
pub(super) fn is_character(character: char) -> bool {
    !matches!(character, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

fn checked(character: char) -> Result<(), String> {
    if is_character(character) {
        return Ok(());
    }
    Err(format!("{character:?} is no character of XML"))
}

/// XML's own five.
fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// The value of an attribute, as it stands there.
pub(super) fn attribute<'s>(
    start: &'s BytesStart<'_>,
    name: &str,
) -> Result<Option<std::borrow::Cow<'s, str>>, String> {
    let attribute = start.try_get_attribute(name).map_err(|error| error.to_string())?;
    Ok(attribute.map(|attribute| attribute.value))
}
