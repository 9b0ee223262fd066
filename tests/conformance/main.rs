//! The conformance suite on each of our layers: alone, lifted per endpoint, and in a stack of all of them; round plain
//! values and round HTTP. That the suite itself finds what it looks for is in `broken.rs`.

mod broken;
mod layers;
mod stacks;
mod support;
