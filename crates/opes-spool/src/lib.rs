//! opes-spool
