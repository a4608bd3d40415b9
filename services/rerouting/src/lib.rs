//! opes-rerouting
