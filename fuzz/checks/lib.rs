//! What must hold of whatever comes from outside: each parser against a slow and obvious reading of the same text, and what it read
//! written again.
//!
//! `targets` run these checks on what the fuzzer makes up, `tests/corpora` on the corpora and on texts that are nearly right.

#![allow(clippy::missing_panics_doc, reason = "to panic is what a check is for")]

mod b3_multi;
mod b3_single;
mod endpoint_file;
mod endpoint_model;
mod eureka;
mod grpc_timeout;
mod lines;
mod retry_after;
mod trace;
mod traceparent;
mod tracestate;
mod twice;

pub use b3_multi::b3_multi;
pub use b3_single::b3_single;
pub use endpoint_file::{endpoint_file_json, endpoint_file_toml};
pub use eureka::{eureka_batch, eureka_json, eureka_xml};
pub use grpc_timeout::grpc_timeout;
pub use retry_after::{grpc_retry_pushback, retry_after};
pub use traceparent::traceparent;
pub use tracestate::tracestate;

/// Takes any bytes; panics where something does not hold of them.
pub type Check = fn(&[u8]);

/// Each check by the name of its target, which is its corpus' too.
pub const CHECKS: [(&str, Check); 12] = [
    ("traceparent", traceparent),
    ("tracestate", tracestate),
    ("b3_single", b3_single),
    ("b3_multi", b3_multi),
    ("grpc_timeout", grpc_timeout),
    ("retry_after", retry_after),
    ("grpc_retry_pushback", grpc_retry_pushback),
    ("endpoint_file_toml", endpoint_file_toml),
    ("endpoint_file_json", endpoint_file_json),
    ("eureka_json", eureka_json),
    ("eureka_xml", eureka_xml),
    ("eureka_batch", eureka_batch),
];
