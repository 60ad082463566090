//! The TLS record layer from outside: against the vectors of RFC 8448, against rustls as the peer at both
//! ends, against a peer that breaks the rules, and frozen in the middle of everything.

mod broken_peer;
mod frozen;
mod hostile_hello;
mod pair;
mod rfc8448;
mod rustls_peer;
