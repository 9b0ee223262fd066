use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::{Limits, ReadError, Text, field::Field};

/// Most texts of one document that are kept to be shared.
const MAX_SHARED: usize = 4096;

/// What goes along while one document is read: its limits, the path to where the reader is, and the texts to share.
#[derive(Debug)]
pub(super) struct Reading<'l> {
    pub(super) limits: &'l Limits,
    /// The document, if it is kept whole: its texts are parts of it.
    whole: Option<&'l Text>,
    path: RefCell<Vec<Step>>,
    texts: RefCell<HashSet<Text>>,
    applications: Cell<usize>,
    instances: Cell<usize>,
    /// What is beyond the limits where the reader is: the first of it.
    beyond: RefCell<Option<ReadError>>,
    /// How many elements of lists were reduced, and why the first was.
    reduced: Cell<usize>,
    first_reduced: RefCell<Option<ReadError>>,
}

/// One step of the path.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Field(Field),
    Number(usize),
    /// A name of the metadata.
    Name(Text),
}

impl<'l> Reading<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            whole: None,
            path: RefCell::default(),
            texts: RefCell::default(),
            applications: Cell::new(0),
            instances: Cell::new(0),
            beyond: RefCell::default(),
            reduced: Cell::new(0),
            first_reduced: RefCell::default(),
        }
    }

    /// Whoever reads this document need not copy its texts.
    pub(super) fn of(whole: Option<&'l Text>, limits: &'l Limits) -> Self {
        Self { whole, ..Self::new(limits) }
    }

    /// Reads what stands at this step. The path stays where reading failed.
    pub(super) fn at<T, E>(&self, step: Step, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.path.borrow_mut().push(step);
        let read = read()?;
        self.path.borrow_mut().pop();
        Ok(read)
    }

    /// How many objects the reader is in.
    pub(super) fn depth(&self) -> usize {
        self.path.borrow().len()
    }

    /// Reads one element of a list. What is beyond the limits in it is no matter of the others: of such a one is taken what `reduce` leaves.
    pub(super) fn element<T, E>(
        &self,
        read: impl FnOnce() -> Result<T, E>,
        reduce: impl FnOnce(T) -> T,
    ) -> Result<T, E> {
        let around = self.beyond.take();
        let read = read()?;
        let Some(beyond) = self.beyond.replace(around) else { return Ok(read) };
        self.reduced.set(self.reduced.get() + 1);
        self.first_reduced.borrow_mut().get_or_insert(beyond);
        Ok(reduce(read))
    }

    /// The end of a document: what is beyond the limits and in no list is a matter of all of it.
    pub(super) fn finish<T>(&self, read: Result<T, impl fmt::Display>) -> Result<T, ReadError> {
        let read = read.map_err(|error| self.error(error))?;
        if let Some(beyond) = self.beyond.take() {
            return Err(beyond);
        }
        Ok(read)
    }

    /// Tells the log of a list's elements that were beyond the limits, all at once. Not for what anybody may send again and again.
    pub(super) fn tell_reduced(&self) {
        if let Some(first) = self.first_reduced.take() {
            tracing::warn!(target: "hopvine::eureka", elements = self.reduced.get(), %first,
                "a list has instances that are beyond the limits: they are taken for no more than names");
        }
    }

    /// Something is beyond the limits, where the reader is.
    pub(super) fn beyond(&self, reason: impl fmt::Display) {
        self.beyond.borrow_mut().get_or_insert_with(|| self.error(reason));
    }

    /// Counts one more instance or action.
    pub(super) fn count(&self) -> Result<(), String> {
        self.count_in(&self.instances)
    }

    /// Counts one more application.
    pub(super) fn count_application(&self) -> Result<(), String> {
        self.count_in(&self.applications)
    }

    fn count_in(&self, counter: &Cell<usize>) -> Result<(), String> {
        counter.set(counter.get() + 1);
        if counter.get() > self.limits.instances {
            return Err(format!("more than {} in the document", self.limits.instances));
        }
        Ok(())
    }

    /// A text to keep, and to share with others of the document if `shared`. Of one that is too long it is a shorter one.
    pub(super) fn text(&self, text: &str, shared: bool) -> Text {
        let most = self.limits.text_bytes;
        if text.len() > most {
            self.beyond(format_args!("longer than {most} bytes"));
            return shorter(text, most).into();
        }
        if let Some(part) = self.whole.and_then(|whole| whole.try_substr_from(text)) {
            return part;
        }
        if shared { self.shared(text) } else { text.into() }
    }

    /// The one copy of a text that many instances have.
    fn shared(&self, text: &str) -> Text {
        if self.instances.get() == 0 {
            // There is but one instance so far, as in a registration: nobody to share with.
            return text.into();
        }
        let mut texts = self.texts.borrow_mut();
        if let Some(known) = texts.get(text) {
            return known.clone();
        }
        let new: Text = text.into();
        if texts.len() < MAX_SHARED {
            texts.insert(new.clone());
        }
        new
    }

    /// What is wrong, where the reader is.
    pub(super) fn error(&self, reason: impl fmt::Display) -> ReadError {
        let mut field = String::new();
        for step in self.path.borrow().iter() {
            let dot = if field.is_empty() { "" } else { "." };
            let _ = match step {
                Step::Field(name) => write!(field, "{dot}{}", name.as_str()),
                Step::Number(number) => write!(field, "[{number}]"),
                Step::Name(name) => write!(field, "{dot}{}", name.escape_debug()),
            };
        }
        ReadError::new(field, reason)
    }
}

/// As much of a text as may be; of two that differ, it differs too. One in upper case stays so.
fn shorter(text: &str, most: usize) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let mark = format!("#{:016X}", hasher.finish());
    let end = (0..=most.saturating_sub(mark.len())).rev().find(|at| text.is_char_boundary(*at));
    let mut shorter = text[..end.unwrap_or(0)].to_owned() + &mark;
    shorter.truncate(most);
    shorter
}

impl From<Field> for Step {
    fn from(field: Field) -> Self {
        Self::Field(field)
    }
}
