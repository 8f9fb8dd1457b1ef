//! The real system, broken in every way, and a judge of what its clients were told.

pub mod history;
