//! The kernel as a trait, its Linux implementation and a recording fake.
