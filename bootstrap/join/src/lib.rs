//! The join handshake of a machine as a state machine.
