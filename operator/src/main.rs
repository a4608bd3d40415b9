//! `opes-operator`: see `docs/operate/kubernetes.md`.

fn main() {}
