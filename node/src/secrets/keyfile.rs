//! A node's private key on its disk: one small file that only its owner may read, made at the first need.
//!
//! Written beside, synced, renamed, and the directory synced, so that a loss of power leaves none or a whole one. A damaged one is set
//! aside and another made: for the cluster that is a node with a new key. Runs on a lane.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a file of the data directory; runs on a lane and is simulated underneath"
)]

use super::seal::{KEY_BYTES, KeyPair, from_hex};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Name of the file.
pub(crate) const NAME: &str = "secrets.key";
/// Name under which it is written.
const TEMPORARY: &str = "secrets.key.tmp";
/// Name under which a damaged one is kept.
const DAMAGED: &str = "secrets.key.damaged";
/// Its first line.
const FIRST_LINE: &str = "seaworthy private key 1";

/// The key pair of the directory `dir`; made of `fresh`, 32 bytes of chance, if there is none.
pub(crate) fn open(dir: &Path, fresh: &[u8; KEY_BYTES]) -> Result<KeyPair, String> {
    let path = dir.join(NAME);
    let words = |what: &str| {
        let shown = path.display().to_string();
        let what = what.to_owned();
        move |error: io::Error| format!("cannot {what} the key file {shown}: {error}")
    };
    match fs::read(&path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            if let Some(private) = parse(&bytes) {
                return Ok(KeyPair::from_private(&private));
            }
            let shown = path.display();
            tracing::error!(path = %shown, "the key file is damaged: set aside, another is made");
            fs::rename(&path, dir.join(DAMAGED)).map_err(words("set aside"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(words("read")(error)),
    }
    write(dir, &path, fresh).map_err(words("write"))?;
    Ok(KeyPair::from_private(fresh))
}

/// The file's text: a first line, the key in hex, its checksum.
fn text(private: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(format!("{FIRST_LINE}\n"));
    for byte in private {
        write!(text, "{byte:02x}").expect("text takes text");
    }
    writeln!(text, "\n{:08x}", crc32c::crc32c(private)).expect("text takes text");
    text
}

fn parse(bytes: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let written = std::str::from_utf8(bytes).ok()?;
    let private = Zeroizing::new(from_hex(written.lines().nth(1)?)?);
    (*text(&private) == written).then_some(private)
}

fn write(dir: &Path, path: &Path, private: &[u8; KEY_BYTES]) -> io::Result<()> {
    let temporary = dir.join(TEMPORARY);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // One that was left has whatever mode it has.
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text(private).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[1; 32]).unwrap();
        let second = open(dir.path(), &[2; 32]).unwrap();
        assert_eq!(first.public(), second.public());
        let mode = fs::metadata(dir.path().join(NAME)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_one_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[1; 32]).unwrap();
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for at in [0, 30, whole.len() - 2] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let other = open(dir.path(), &[2; 32]).unwrap();
            assert_ne!(other.public(), first.public(), "byte {at}");
            assert!(dir.path().join(DAMAGED).exists());
        }
    }
}
