//! One module per controller: observe, plan, apply.
