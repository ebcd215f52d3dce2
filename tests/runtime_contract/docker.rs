//! What is particular to Docker.
