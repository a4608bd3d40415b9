//! Generated types of `proto/`: OCP Core ([`ocp`]) and the SMTP profile ([`smtp`]).
//!
//! Payloads are [`bytes::Bytes`] that point into the received frame; decoding copies no content. The tonic stubs exist
//! only with the feature `grpc`, so that cores can use the messages without knowing a transport.

#![allow(clippy::all, clippy::pedantic, missing_docs, rustdoc::all)]

/// OCP Core, RFC 4037: `proto/opes/ocp/v1/callout.proto`.
pub mod ocp {
    include!(concat!(env!("OUT_DIR"), "/opes.ocp.v1.rs"));
}

/// The SMTP profile: `proto/opes/smtp/v1/profile.proto`.
pub mod smtp {
    include!(concat!(env!("OUT_DIR"), "/opes.smtp.v1.rs"));

    /// URI of the profile feature in NO and NR.
    pub const PROFILE_URI: &str = "https://opes.dev/ns/ocp/smtp/v1";

    /// Most copies in one `Outcome`: as many as a message can have recipients (RFC 5321 §4.5.3.1.8 asks for 100).
    pub const COPIES_MAX: usize = 1000;
}

/// How edges follow the routing table: `proto/opes/routing/v1/routing.proto`.
pub mod routing {
    include!(concat!(env!("OUT_DIR"), "/opes.routing.v1.rs"));

    /// Largest message on the stream, in octets. A table beyond is not sent, and the operator says so.
    pub const TABLE_OCTETS_MAX: usize = 64 << 20;
}

/// What KEDA asks an external scaler: `proto/externalscaler/externalscaler.proto`.
pub mod externalscaler {
    include!(concat!(env!("OUT_DIR"), "/externalscaler.rs"));
}

/// The encoded `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
