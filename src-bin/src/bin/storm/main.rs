//! The program `storm`: the simulator's command line. In an ordinary build it builds the simulation build and runs that, but for
//! `storm live`, which drives real processes in real time: that only an ordinary build can.

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    sim::cli::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|word| word == "live") {
        return live::main(args);
    }
    sim_launch::exec(args)
}
