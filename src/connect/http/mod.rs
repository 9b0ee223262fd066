//! The pooled hyper client.
