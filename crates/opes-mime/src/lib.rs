//! Mail data as a span structure: where things are in a message and how to change them without touching anything else.
//!
//! Owns [`rope`], an adapted message as pieces over one original; [`scan`], a streaming scanner that gives the header fields
//! and the MIME tree with exact octet offsets; [`edit`], header and part operations turned into splices; [`decode`], the
//! transfer encodings. It never re-serialises a message: octets nobody asked to change are the same octets, so foreign
//! signatures survive. Core crate: no I/O, no clock. Every input is legal for the scanner; only edits fail, with a typed error.

pub mod decode;
pub mod display;
pub mod edit;
mod params;
pub mod rope;
pub mod scan;
pub mod structure;
pub mod words;

pub use edit::{Edit, EditError, apply};
pub use rope::{Piece, Rope, RopeError, Splice};
pub use scan::{Scanner, header_end, scan};
pub use structure::{Defect, Defects, Encoding, Field, Limit, Part, Structure};
