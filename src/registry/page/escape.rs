use std::fmt::{self, Write};

use askama::filters::Escaper;

/// Escapes what HTML takes for its own, and shows what would not be seen, or turns round what stands beside it, as its number: `\u{202e}`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, mut to: W, text: &str) -> fmt::Result {
        let mut written = 0;
        for (at, character) in text.char_indices() {
            let reference = match character {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' => "&quot;",
                '\'' => "&#39;",
                _ if is_hidden(character) => "",
                _ => continue,
            };
            to.write_str(&text[written..at])?;
            if reference.is_empty() {
                write!(to, "\\u{{{:x}}}", u32::from(character))?;
            } else {
                to.write_str(reference)?;
            }
            written = at + character.len_utf8();
        }
        to.write_str(&text[written..])
    }
}

/// Control characters, those that are nothing to see, and those that change the direction of others.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(text: &str) -> String {
        let mut written = String::new();
        Visible.write_escaped_str(&mut written, text).unwrap();
        written
    }

    #[test]
    fn what_an_instance_says_is_text_and_can_be_seen() {
        for (text, shown) in [
            ("", ""),
            ("orders", "orders"),
            ("<script>alert('1')</script>", "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"),
            ("\" onclick=\"x", "&quot; onclick=&quot;x"),
            ("&lt;", "&amp;lt;"),
            ("a\0b\u{1b}[31m\r\n", "a\\u{0}b\\u{1b}[31m\\u{d}\\u{a}"),
            ("\u{202e}exe.sredro", "\\u{202e}exe.sredro"),
            ("\u{2066}\u{200b}\u{feff}\u{85}", "\\u{2066}\\u{200b}\\u{feff}\\u{85}"),
            ("заказы 注文 \u{1f600}", "заказы 注文 \u{1f600}"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }
}
