//! Callers by their JWTs: what is taken, what is refused, and what becomes of keys that change, hang and vanish.

mod keys;
mod load;
pub(crate) mod signer;
mod stand;
mod table;
