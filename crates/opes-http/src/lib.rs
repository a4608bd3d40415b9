//! Engines behind services that are asked over HTTP: where they are, who we are to them, and one request bounded in time and size.
//!
//! Redirected nowhere, through no proxy of the environment. In the clear on this machine only, unless told to. Errors name the engine's host,
//! never a path, a query or a credential.

mod client;
mod settings;

pub use client::{AskError, Engine};
pub use settings::{Credential, Settings, SettingsError};

/// What a request says besides its body: name and value.
pub type Field<'a> = (&'static str, &'a str);
