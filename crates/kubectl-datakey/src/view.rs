//! What users see of a DataKey and its Secret. Pure: nothing here sends a request or reads a clock.

pub mod advice;
pub mod class_summary;
pub mod secret_check;
pub mod shell;
pub mod summary;
pub mod table;
