//! One worker task per pod over a state enum; probes, volumes, status.
