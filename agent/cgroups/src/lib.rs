//! The control group tree, one file per controller.
