//! Sources and the directory.
