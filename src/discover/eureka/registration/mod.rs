//! Registration at a Eureka registry: who we are, that we live, and that we leave.

mod address;
mod builder;
mod handle;
mod health;
mod hold;
mod lease;
mod policy;

pub use builder::RegistrationBuilder;
pub use handle::{NotRegistered, Registration, RegistrationView};
pub use policy::{HoldMode, RegistrationPolicy};
