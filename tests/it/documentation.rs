//! The commands of the documentation, run as they stand.
