//! opes-e2e
