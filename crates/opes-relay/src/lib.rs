//! opes-relay
