//! Situations of Jobs and what is done about them.
