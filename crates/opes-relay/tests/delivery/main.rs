//! The relay from outside: a real spool, real sockets on loopback, a next hop that does what the test tells it.

mod common;
mod cut_through;
mod maildir;
mod next_hop;
mod reports;
mod sink;
mod tls;
