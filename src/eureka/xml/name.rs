//! Metadata's names as names of elements, as `XStream`'s name coder writes them: `_` is `__`, `$` is `_-`, and what XML does not take in a name is `_.` and its
//! UTF-16 in four hexadecimal digits.

use std::{borrow::Cow, fmt::Write as _};

/// The name of the element for this name.
pub(super) fn encode(name: &str) -> Cow<'_, str> {
    let plain =
        |(at, byte): (usize, u8)| byte.is_ascii_alphabetic() || (at > 0 && matches!(byte, b'0'..=b'9' | b'-' | b'.'));
    if name.bytes().enumerate().all(plain) {
        return Cow::Borrowed(name);
    }
    let mut encoded = String::with_capacity(name.len() + 8);
    for (at, character) in name.char_indices() {
        match character {
            '_' => encoded.push_str("__"),
            '$' => encoded.push_str("_-"),
            _ if is_name_start(character) || (at > 0 && is_name_rest(character)) => encoded.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(encoded, "_.{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(encoded)
}

/// The name that this element stands for.
pub(super) fn decode(element: &str) -> Cow<'_, str> {
    if !element.contains('_') {
        return Cow::Borrowed(element);
    }
    let mut units = Vec::with_capacity(element.len());
    let mut rest = element;
    while let Some(at) = rest.find('_') {
        units.extend(rest[..at].encode_utf16());
        rest = &rest[at + 1..];
        let (unit, taken) = match rest.as_bytes().first() {
            Some(b'_') => (u16::from(b'_'), 1),
            Some(b'-') => (u16::from(b'$'), 1),
            Some(b'.') => match rest.get(1..5).and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
                Some(unit) => (unit, 5),
                None => (u16::from(b'_'), 0),
            },
            _ => (u16::from(b'_'), 0),
        };
        units.push(unit);
        rest = &rest[taken..];
    }
    units.extend(rest.encode_utf16());
    Cow::Owned(String::from_utf16_lossy(&units))
}

/// What a name may begin with: XML 1.0, less the colon, which would be an undeclared namespace's, and what is beyond 16 bits, which Java's coder takes apart.
fn is_name_start(character: char) -> bool {
    matches!(character,
        'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}'
        | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
        | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}')
}

/// What may follow beside it.
fn is_name_rest(character: char) -> bool {
    matches!(character, '0'..='9' | '-' | '.' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_written_as_java_writes_them() {
        for (name, element) in [
            ("zone", "zone"),
            ("a_b", "a__b"),
            ("c$d", "c_-d"),
            ("management.port", "management.port"),
            ("h-i", "h-i"),
            ("e f", "e_.0020f"),
            ("1st", "_.0031st"),
            ("a:b", "a_.003ab"),
            ("ä", "ä"),
            ("😀", "_.d83d_.de00"),
        ] {
            assert_eq!(encode(name), element);
            assert_eq!(decode(element), name);
        }
        assert_eq!(decode("_.zz"), "_.zz");
        assert_eq!(decode("a_"), "a_");
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in ".{0,12}") {
            let element = encode(&name);
            prop_assert_eq!(decode(&element), name.as_str());
        }
    }
}
