//! The machine: manifest in force, network, time, machine API.
