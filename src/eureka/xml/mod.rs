//! Eureka's documents in XML: what clients get that do not ask for JSON, and some read nothing else.
//!
//! A document type is refused, and so is every entity but XML's own five.
//!
//! ```
//! use hopvine::eureka::{Instance, Limits, xml};
//! let instance = Instance { app: "CATALOG".into(), host_name: "host1".into(), ip_addr: "10.0.0.7".into(), ..Instance::default() };
//! let mut document = Vec::new();
//! xml::write_instance(&instance, &mut document);
//! assert!(document.starts_with(b"<instance>\n  <hostName>host1</hostName>\n"));
//! assert_eq!(xml::read_instance(&document, &Limits::default())?, instance);
//! # Ok::<(), hopvine::eureka::ReadError>(())
//! ```

mod element;
mod name;
mod read;
mod write;

pub use read::{read_application, read_applications, read_instance};
pub use write::{write_application, write_applications, write_instance};
