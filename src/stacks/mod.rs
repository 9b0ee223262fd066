//! The three hops, assembled.
