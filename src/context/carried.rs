use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{Priority, copy_of_trace, deadline, enter_priority, enter_trace, now, priority, replace_deadline};
use crate::trace::TraceContext;

/// A copy of what travels, to carry it where the thread-local does not reach.
#[derive(Clone, Debug, Default)]
pub struct Context {
    deadline: Option<Instant>,
    priority: Priority,
    trace: Option<TraceContext>,
}

impl Context {
    /// Nothing: no deadline, no trace, the usual priority.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is in force here and now.
    pub fn current() -> Self {
        Self { deadline: deadline(), priority: priority(), trace: copy_of_trace() }
    }

    /// With this deadline instead.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// With this priority instead.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// With this trace context instead.
    #[must_use]
    pub fn with_trace(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }

    /// When the call must have ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the call may still take; zero when its deadline has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now()))
    }

    /// How much the call matters.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The trace it belongs to.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// Runs `future` in this context, wherever it is polled: the way to carry it into spawned work.
    pub fn scope<F: Future>(self, future: F) -> Scoped<F> {
        Scoped { context: self, future }
    }

    /// Puts a copy into a request's extensions, for code between two layers that has the request but not the task.
    pub fn insert_into(&self, extensions: &mut http::Extensions) {
        extensions.insert(self.clone());
    }

    /// Takes the copy that [`insert_into`](Self::insert_into) put there.
    pub fn from_extensions(extensions: &http::Extensions) -> Option<Self> {
        extensions.get::<Self>().cloned()
    }
}

pin_project! {
    /// A future that runs in a [`Context`]. Made by [`Context::scope`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scoped<F> {
        context: Context,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _deadline = replace_deadline(this.context.deadline);
        let _priority = enter_priority(this.context.priority);
        let _trace = enter_trace(&mut this.context.trace);
        this.future.poll(cx)
    }
}
