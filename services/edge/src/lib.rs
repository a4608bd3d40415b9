//! opes-edge
