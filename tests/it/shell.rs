//! The process around the engine: connections, drain and probes, over real sockets.

mod listener;
