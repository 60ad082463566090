//! The HTTP API, the chat page, and the admin port.
//!
//! - `server.rs`: HTTP/1.1 on connections that gateway cores hand over; `routes.rs`: which path is whose.
//! - `messages.rs`, `conversations.rs`: the calls; `chats.rs`, `older_names.rs`: their older names.
//! - `endpoint.rs`: the way to the router and back; `state.rs`: what handlers share, and the store.
//! - `caller.rs`, `rate.rs`, `parameters.rs`, `body.rs`: who calls, how often, with what.
//! - `problem.rs`: errors; `problem_answers.rs`: which of them a call may answer, for the document.
//! - `page.rs`, `development.rs`: the chat page and its logins; `admin.rs`: the admin port.
#![forbid(unsafe_code)]

mod admin;
mod body;
mod caller;
mod chats;
mod conversations;
mod cursor;
mod development;
mod endpoint;
mod entry_json;
mod limits;
mod messages;
mod metrics;
mod names;
mod older_names;
mod page;
mod parameters;
mod problem;
mod problem_answers;
mod rate;
mod routes;
mod server;
mod state;

pub use admin::{Admin, Renderer};
pub use endpoint::ApiEndpoint;
pub use server::Api;
pub use state::{ApiParts, ApiSettings};
