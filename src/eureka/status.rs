use std::fmt;

/// What an instance says it is doing, or was told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InstanceStatus {
    /// Takes calls. What an instance is that says nothing.
    #[default]
    Up,
    /// Takes no calls: its health check failed, or it is about to stop.
    Down,
    /// Not ready yet.
    Starting,
    /// Taken out by an operator.
    OutOfService,
    /// Anything else, and "none" where an override is meant.
    Unknown,
}

impl InstanceStatus {
    /// All of them, in the order of their names, which is that of the hash.
    pub const ALL: [Self; 5] = [Self::Down, Self::OutOfService, Self::Starting, Self::Unknown, Self::Up];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Starting => "STARTING",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The status of this name, case-sensitive as the Java server's; `None` if there is none, which documents read as
    /// [`Unknown`](Self::Unknown) and operators' requests refuse.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many instances have which status. Its text is the hash (`apps__hashcode`) by which a client sees whether its copy is whole: `DOWN_2_UP_7_`,
/// in the order of the names, nothing for nobody.
///
/// ```
/// use hopvine::eureka::{InstanceStatus::{Down, Up}, StatusCounts};
/// let mut counts = StatusCounts::from_iter([Up, Down, Up]);
/// assert_eq!(counts.to_string(), "DOWN_1_UP_2_");
/// counts.remove(Down);
/// assert_eq!(counts.to_string(), "UP_2_");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusCounts([u32; InstanceStatus::ALL.len()]);

impl StatusCounts {
    /// Counts one more.
    pub fn add(&mut self, status: InstanceStatus) {
        let count = &mut self.0[Self::place(status)];
        *count = count.saturating_add(1);
    }

    /// Counts one less.
    pub fn remove(&mut self, status: InstanceStatus) {
        let count = &mut self.0[Self::place(status)];
        *count = count.saturating_sub(1);
    }

    /// How many have this status.
    pub fn of(&self, status: InstanceStatus) -> u32 {
        self.0[Self::place(status)]
    }

    const fn place(status: InstanceStatus) -> usize {
        match status {
            InstanceStatus::Down => 0,
            InstanceStatus::OutOfService => 1,
            InstanceStatus::Starting => 2,
            InstanceStatus::Unknown => 3,
            InstanceStatus::Up => 4,
        }
    }
}

impl Extend<InstanceStatus> for StatusCounts {
    fn extend<I: IntoIterator<Item = InstanceStatus>>(&mut self, statuses: I) {
        statuses.into_iter().for_each(|status| self.add(status));
    }
}

impl FromIterator<InstanceStatus> for StatusCounts {
    fn from_iter<I: IntoIterator<Item = InstanceStatus>>(statuses: I) -> Self {
        let mut counts = Self::default();
        counts.extend(statuses);
        counts
    }
}

impl fmt::Display for StatusCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        InstanceStatus::ALL
            .into_iter()
            .filter(|status| self.of(*status) > 0)
            .try_for_each(|status| write!(f, "{status}_{}_", self.of(status)))
    }
}
