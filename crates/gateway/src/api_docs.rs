//! The two descriptions of the interface: OpenAPI of HTTP, AsyncAPI of the WebSocket. Routes and frames know nothing of them but the schemas
//! of bodies and answers.

pub(crate) mod asyncapi;
pub(crate) mod openapi;
