//! opes-ocp
