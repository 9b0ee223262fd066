use super::InstanceStatus;

/// What a server knows when it must say which status an instance has: at a registration and at each heartbeat. The first rule that matches wins.
///
/// 1. What is neither `UP` nor `OUT_OF_SERVICE` is believed: an instance that says it is down is down.
/// 2. An operator's override.
/// 3. The status it is kept with, if that is `UP` or `OUT_OF_SERVICE` and the instance itself asks. So it cannot lift or set an operator's word by registering
///    again; a peer, who tells of what was decided elsewhere, can.
/// 4. What it says.
///
/// (Amazon's scaling groups are a rule of their own between 2 and 3 in Java, and none here.)
///
/// ```
/// use hopvine::eureka::{InstanceStatus::{OutOfService, Up}, StatusRules};
/// let heartbeat = StatusRules { said: Up, overridden: Some(OutOfService), kept: Some(OutOfService), by_peer: false };
/// assert_eq!(heartbeat.status(), OutOfService);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRules {
    /// The status of the instance that registers, or that is kept when a heartbeat comes.
    pub said: InstanceStatus,
    /// The override that is stored for its id, if there is one.
    pub overridden: Option<InstanceStatus>,
    /// The status it is kept with, if it is.
    pub kept: Option<InstanceStatus>,
    /// Whether another server says so, not the instance.
    pub by_peer: bool,
}

impl StatusRules {
    /// The status that follows.
    pub fn status(self) -> InstanceStatus {
        let serving = |status: &InstanceStatus| matches!(status, InstanceStatus::Up | InstanceStatus::OutOfService);
        if !serving(&self.said) {
            return self.said;
        }
        let kept = self.kept.filter(|status| !self.by_peer && serving(status));
        self.overridden.or(kept).unwrap_or(self.said)
    }
}
