//! See `process/storm.rs`; empty in an ordinary build, where there is no simulated disk.

#[cfg(madsim)]
#[path = "process/storm.rs"]
mod storm;

fn main() {
    #[cfg(madsim)]
    storm::main();
}
