//! Policies and what they say: tables of situations.
