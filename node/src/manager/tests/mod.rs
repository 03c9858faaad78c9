//! Tests of the manager as a whole: over a loop without a log ([`world`]), and in a real node.

mod facts;
mod real;
mod world;
