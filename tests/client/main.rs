//! The HTTP client over real sockets.
