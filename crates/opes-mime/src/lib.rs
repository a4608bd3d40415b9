//! opes-mime
