//! Eureka's documents in JSON.
//!
//! ```
//! use hopvine::eureka::{Instance, Limits, json};
//! let instance = Instance { app: "CATALOG".into(), host_name: "host1".into(), ip_addr: "10.0.0.7".into(), ..Instance::default() };
//! let mut document = Vec::new();
//! json::write_instance(&instance, &mut document);
//! assert!(document.starts_with(br#"{"instance":{"hostName":"host1","app":"CATALOG","ipAddr":"10.0.0.7","status":"UP""#));
//! assert_eq!(json::read_instance(&document, &Limits::default())?, instance);
//! # Ok::<(), hopvine::eureka::ReadError>(())
//! ```

mod object;
mod read;
mod replication;
mod write;

pub use read::{read_application, read_applications, read_instance};
#[cfg(feature = "registry")]
pub(crate) use replication::write_replications_within;
pub use replication::{read_replication_responses, read_replications, write_replication_responses, write_replications};
pub use write::{write_application, write_applications, write_instance};
