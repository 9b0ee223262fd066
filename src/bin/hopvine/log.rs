use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel};

/// Logs to stderr from now on, an event a line. A level that is not set is that of `RUST_LOG`, or else `info`.
pub(crate) fn start(format: LogFormat, level: Option<LogLevel>) -> Result<(), String> {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|directives| !directives.is_empty());
    let filter = match (level, directives) {
        (Some(level), _) => EnvFilter::new(level.as_str()),
        (None, Some(directives)) => EnvFilter::try_new(&directives)
            .map_err(|error| format!("{} is {directives:?}: {error}", EnvFilter::DEFAULT_ENV))?,
        (None, None) => EnvFilter::new("info"),
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| OneLine(io::stderr()));
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Writes each event as one line without control characters, whoever had a word in it. It is given an event at once.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = one_line(line).into_owned();
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What cannot be seen, or turns round what stands beside it, becomes its number as JSON has it, so that JSON stays JSON.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    let is_hidden =
        |character: char| character.is_control() || (!character.is_ascii() && character.escape_debug().len() > 1);
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}");
            }
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whoever_had_a_word_in_it() {
        let mut written = Vec::new();
        let event = "INFO app=a\r\nINFO forged\u{1b}[2J\u{85}\u{202e}\u{2028}\u{e0041} \"注文\" \\n\n";
        OneLine(&mut written).write_all(event.as_bytes()).unwrap();
        let line = "INFO app=a\\u000d\\u000aINFO forged\\u001b[2J\\u0085\\u202e\\u2028\\udb40\\udc41 \"注文\" \\n\n";
        assert_eq!(String::from_utf8(written).unwrap(), line);
    }

    #[test]
    fn a_line_of_json_stays_json() {
        let event = serde_json::json!({ "app": "a\u{202e}\u{85}\u{1b}\u{e0041}" });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&one_line(&event.to_string())).unwrap(), event);
    }
}
