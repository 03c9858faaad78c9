//! See `fjall/storm.rs`; empty in an ordinary build, where there is no simulated disk.

#[cfg(madsim)]
#[path = "fjall/storm.rs"]
mod storm;

fn main() {
    #[cfg(madsim)]
    storm::main();
}
