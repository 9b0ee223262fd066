use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt::{self, Write as _},
    sync::Arc,
};

use super::{Limits, ReadError, field::Field};

/// Most texts of one document that are kept to be shared.
const MAX_SHARED: usize = 4096;

/// What goes along while one document is read: its limits, the path to where the reader is, and the texts to share.
#[derive(Debug)]
pub(super) struct Reading<'l> {
    pub(super) limits: &'l Limits,
    path: RefCell<Vec<Step>>,
    texts: RefCell<HashSet<Arc<str>>>,
    instances: Cell<usize>,
}

/// One step of the path.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Field(Field),
    Number(usize),
    /// A name of the metadata.
    Name(Arc<str>),
}

impl<'l> Reading<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self { limits, path: RefCell::default(), texts: RefCell::default(), instances: Cell::new(0) }
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

    /// Counts one more instance, application or action.
    pub(super) fn count(&self) -> Result<(), String> {
        self.instances.set(self.instances.get() + 1);
        if self.instances.get() > self.limits.instances {
            return Err(format!("more than {} in the document", self.limits.instances));
        }
        Ok(())
    }

    pub(super) fn check_text(&self, text: &str) -> Result<(), String> {
        if text.len() > self.limits.text_bytes {
            return Err(format!("longer than {} bytes", self.limits.text_bytes));
        }
        Ok(())
    }

    /// The one copy of a text that many instances have.
    pub(super) fn shared(&self, text: &str) -> Arc<str> {
        if self.instances.get() < 2 {
            // There is but one instance so far, as in a registration: nobody to share with.
            return text.into();
        }
        let mut texts = self.texts.borrow_mut();
        if let Some(known) = texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        if texts.len() < MAX_SHARED {
            texts.insert(Arc::clone(&new));
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

impl From<Field> for Step {
    fn from(field: Field) -> Self {
        Self::Field(field)
    }
}
