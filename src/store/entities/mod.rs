//! The tables as SeaORM sees them, column by column.
//!
//! Absent on purpose: relations and behaviour. The rows are read and written through the functions
//! of the store alone, and the meaning of a column is documented where it is used. Times are
//! milliseconds since the Unix epoch.

pub(super) mod api_key;
pub(super) mod aws_credential;
pub(super) mod document;
pub(super) mod github_app;
pub(super) mod invocation;
pub(super) mod invocation_event;
pub(super) mod source;
pub(super) mod upload;
pub(super) mod webhook_delivery;
