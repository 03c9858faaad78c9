//! The program `storm`: the simulator's command line. In an ordinary build it builds the simulation build and runs that.

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    sim::cli::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    sim_launch::exec(std::env::args_os().skip(1))
}
