//! Scripted services and endpoints, for tests of your own.
