#![doc = include_str!("../../docs/faults.md")]
//!
//! # Where it is tested
//!
//! | tables | tests |
//! |---|---|
//! | No connection | `door.rs`, `tls.rs`; hosts of several addresses beside the code, in `src/connect/http/dial.rs`, for a name with dead ones is not to be had everywhere |
//! | No answer, or half of one | `both.rs`, `unread.rs`; what only HTTP/1 has in `http1.rs` |
//! | Connections that end | `both.rs`, `unread.rs`, `http1.rs`, `http2.rs` |
//! | Names | `dns.rs` |
//!
//! A line of a table is a [`Case`](case::Case): a [`Fault`](fault::Fault) that a [`Server`](server::Server) commits, what a [`Caller`](caller::Caller) may see of it, and whether
//! a GET and a POST are tried again at a second server. It is checked in both versions, on a connection that is there and on one that has to be made, and with
//! callers that go away after each number of polls: what is seen, how often the servers ran a request, and that everything is given back.

mod authority;
mod both;
mod caller;
mod case;
#[path = "../support/certificates.rs"]
mod certificates;
mod dns;
mod door;
mod fault;
mod frames;
mod http1;
mod http2;
#[path = "../support/name_server.rs"]
mod name_server;
mod peer;
mod server;
mod tls;
mod unread;
#[path = "../support/wait.rs"]
mod wait;
