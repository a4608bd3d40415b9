//! TLS material from PEM files that are replaced live, and words for what is wrong with a peer's certificate.
//!
//! [`certified_key`] is a certificate with its key; [`authorities`] are those of a bundle; [`Mutual`] is one end of mutual TLS: our certificate and the
//! authorities that the other end's must come from; [`call`] is the handshake of the end that calls. Unreadable or ill-matched files are an error when they are opened, with
//! their names; later they are logged and the last good ones stay (`opes-reload`). One provider: aws-lc-rs. It knows
//! nothing of networks, gRPC or SMTP.

mod call;
mod complaint;
mod mutual;
mod pem;

pub use call::{Call, CallError, CallStream, call, rustls_error};
pub use complaint::{Complaint, complaint, refusal};
pub use mutual::{ALPN_H2, ClientTls, Mutual, MutualFiles, MutualTexts, ServerTls};
pub use opes_reload::OpenError;
pub use pem::{PemError, authorities, certified_key};
