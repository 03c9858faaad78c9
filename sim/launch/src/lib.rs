//! Builds and runs the simulation from an ordinary build.
//!
//! The simulation is the same workspace compiled with `--cfg madsim`. So that nobody has to set a variable by hand, an
//! ordinary `storm` and the test `sim/tests/seeds.rs` call [`exec`], which asks cargo for the simulated `storm` and runs it.
//! It lies in `target/sim` under the profile `sim`, so neither build makes the other one compile again.
//!
//! Invariants: std only, so that the ordinary build pays nothing for it; flags of the user's own (`RUSTFLAGS`) stay; what an
//! outer cargo has set for its own child is not handed on, because cargo would take it for a reason to compile again.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "starts cargo; belongs to the ordinary build and never runs inside the simulator"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

/// What makes a build a simulation.
const CFG: [&str; 2] = ["--cfg", "madsim"];

/// Between two flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\u{1f}";

/// The program that is built and run: package, binary, profile.
const PROGRAM: [&str; 6] = ["-p", "seaworthy", "--bin", "storm", "--profile", "sim"];

/// Variables of cargo that are the user's own wish rather than an outer cargo's message to its child.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTR",
    "CARGO_BUILD_JOBS",
    "CARGO_TERM_",
];

/// Builds the simulated `storm` if need be, runs it with `args` in the current folder, and ends as it ends.
pub fn exec<I>(args: I) -> ExitCode
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let root = root();
    if !root.join("Cargo.toml").is_file() {
        eprintln!(
            "storm builds the simulation from its sources, and they are not in {}",
            root.display()
        );
        return ExitCode::FAILURE;
    }
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    match command(&root, &args).status() {
        Ok(status) => ExitCode::from(code(status)),
        Err(error) => {
            eprintln!("cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds `seaworthy` as an ordinary build beside this program, whose folder `dir` is, so that both are of the same sources.
/// Without the sources nothing is built: then what lies there counts.
pub fn build_product(dir: &Path, release: bool) -> Result<(), String> {
    let root = root();
    let Some(target) = dir.parent().filter(|_| root.join("Cargo.toml").is_file()) else {
        return Ok(());
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        if is_inherited(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    command.args(["build", "--quiet", "-p", "seaworthy", "--bin", "seaworthy"]);
    command.args(release.then_some("--release"));
    command.arg("--manifest-path").arg(root.join("Cargo.toml"));
    command.arg("--target-dir").arg(target);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo could not build seaworthy: {status}")),
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}

/// The commit that the sources are at, with a `+` when files have been changed; nothing when git cannot tell.
pub fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        let told = command.args(args).current_dir(root()).output().ok()?;
        let text = String::from_utf8(told.stdout).ok()?;
        told.status.success().then(|| text.trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(format!(
        "{hash}{}",
        if changed.is_empty() { "" } else { "+" }
    ))
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("this crate lies in sim/launch")
        .to_owned()
}

/// The whole call of cargo.
fn command(root: &Path, args: &[OsString]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        if is_inherited(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    command.env(
        "CARGO_ENCODED_RUSTFLAGS",
        flags(variable("CARGO_ENCODED_RUSTFLAGS"), variable("RUSTFLAGS")),
    );
    command.env_remove("RUSTFLAGS");
    command.args(["run", "--quiet"]).args(PROGRAM);
    command.arg("--manifest-path").arg(root.join("Cargo.toml"));
    command
        .arg("--target-dir")
        .arg(root.join("target").join("sim"));
    command.arg("--").args(args);
    command
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// True for what an outer cargo has told its child.
fn is_inherited(name: &str) -> bool {
    name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept))
}

/// The user's flags, then ours. Cargo prefers the encoded form when both are there, so we do, too.
fn flags(encoded: Option<String>, plain: Option<String>) -> String {
    let mut flags: Vec<String> = match (encoded, plain) {
        (Some(encoded), _) => encoded.split(SEPARATOR).map(str::to_owned).collect(),
        (None, Some(plain)) => plain.split_whitespace().map(str::to_owned).collect(),
        (None, None) => Vec::new(),
    };
    flags.retain(|flag| !flag.is_empty());
    flags.extend(CFG.map(str::to_owned));
    flags.join(SEPARATOR)
}

/// The exit code as a shell tells it: 128 and the signal's number for a process that a signal ended.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let signalled = || status.signal().map(|signal| signal + 128);
    let code = status.code().or_else(signalled).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_flags_stay_and_ours_come_last() {
        assert_eq!(flags(None, None), "--cfg\u{1f}madsim");
        assert_eq!(
            flags(None, Some("-A  b".into())),
            "-A\u{1f}b\u{1f}--cfg\u{1f}madsim"
        );
        assert_eq!(
            flags(Some("-A\u{1f}b c".into()), Some("-D".into())),
            "-A\u{1f}b c\u{1f}--cfg\u{1f}madsim"
        );
        assert_eq!(flags(Some(String::new()), None), "--cfg\u{1f}madsim");
    }

    #[test]
    fn an_outer_cargos_messages_end_here_and_the_users_wishes_do_not() {
        assert!(is_inherited("CARGO_MANIFEST_DIR"));
        assert!(is_inherited("CARGO_ENCODED_RUSTFLAGS"));
        assert!(is_inherited("CARGO_TARGET_DIR"));
        assert!(!is_inherited("CARGO_HOME"));
        assert!(!is_inherited("CARGO_REGISTRIES_X_INDEX"));
        assert!(!is_inherited("PATH"));
    }

    #[test]
    fn cargo_is_called_for_the_workspace_with_the_arguments_last() {
        let command = command(&root(), &["run".into(), "--seeds".into()]);
        let args: Vec<String> = command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        assert_eq!(args[0], "run");
        assert_eq!(args[args.len() - 3..], ["--", "run", "--seeds"]);
        assert!(args.iter().any(|arg| arg.ends_with("target/sim")));
    }

    #[test]
    fn the_sources_are_where_this_crate_thinks() {
        assert!(root().join("sim/launch/Cargo.toml").is_file());
    }
}
