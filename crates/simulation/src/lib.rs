//! The real services over simulated stores, network and clock, from a seed.
