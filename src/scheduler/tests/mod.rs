//! Tables of situations, randomised runs and a bench of the pure part.

mod bench;
mod devices;
mod extenders;
mod hints;
mod preempting;
mod random;
mod rules;
mod volumes;
mod world;
