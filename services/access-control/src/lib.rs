//! opes-access-control
