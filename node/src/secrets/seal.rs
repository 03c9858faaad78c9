//! The cryptography of secrets, pure: sealing for one key pair, and for all who have the data key.
//!
//! - **Sealed for somebody** ([`seal_for`]): X25519 with a key pair made for this once, HKDF-SHA256 over the shared secret with
//!   both public keys as salt, XChaCha20-Poly1305. Only the private half opens it (the construction of age and of HPKE's base mode).
//! - **Sealed by the data key** ([`DataKey::seal`]): XChaCha20-Poly1305 with a nonce of 24 bytes drawn for this once.
//!
//! What a ciphertext is about ([`About`]) is authenticated with it, so that one put in the place of another does not open. Chance comes
//! in as an argument. Nothing here can be printed: keys and clear texts have no `Debug` that shows them, and are wiped when dropped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use hkdf::Hkdf;
use rand_core::RngCore;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;
use x25519_dalek::{PublicKey as Point, StaticSecret};
use zeroize::Zeroizing;

/// First byte of everything sealed: how it was.
const VERSION: u8 = 1;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;
/// What keys of sealed boxes are for.
const PURPOSE: &[u8] = b"seaworthy sealed box 1";

/// A clear text; wiped when it is dropped.
pub type Clear = Zeroizing<Vec<u8>>;

/// The public half of a key pair; hex in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_BYTES]);

/// A key pair.
pub struct KeyPair {
    /// The half that never leaves its node.
    private: StaticSecret,
    /// The half that everybody may know.
    public: PublicKey,
}

/// The key by which the log's secrets are sealed.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

/// A ciphertext, base64 in memory and in JSON. Sharing it is cheap: the fleet is copied now and then.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Arc<str>);

/// What a ciphertext is about: one that is about something else does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// The data key, for a manager.
    Share {
        /// Its id.
        node: u64,
    },
    /// A secret's value in the log.
    Value {
        /// Its name.
        name: &'a str,
        /// Its version.
        version: u64,
    },
    /// A secret's value on its way to a worker, and on that one's disk.
    Delivery {
        /// The worker's id.
        worker: u64,
        /// The secret's name.
        name: &'a str,
        /// Its version.
        version: u64,
    },
}

impl About<'_> {
    /// The bytes that are authenticated: no two meanings have the same.
    fn bytes(self) -> Vec<u8> {
        let (kind, first, name, version) = match self {
            About::Share { node } => (1_u8, node, "", 0),
            About::Value { name, version } => (2, 0, name, version),
            About::Delivery {
                worker,
                name,
                version,
            } => (3, worker, name, version),
        };
        let mut bytes = vec![kind];
        bytes.extend(first.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend(name.as_bytes());
        bytes
    }
}

impl KeyPair {
    /// The key pair of a private half, which is 32 bytes of chance.
    pub fn from_private(private: &[u8; KEY_BYTES]) -> Self {
        let private = StaticSecret::from(*private);
        let public = PublicKey(Point::from(&private).to_bytes());
        KeyPair { private, public }
    }

    /// The half that everybody may know.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Opens what was sealed for this key pair about `about`; none when it was not, or was damaged.
    pub fn open(&self, sealed: &Sealed, about: About<'_>) -> Option<Clear> {
        let bytes = sealed.bytes()?;
        let (&[version], rest) = bytes.split_first_chunk()?;
        let (once, text) = rest.split_first_chunk::<KEY_BYTES>()?;
        let key = box_key(&self.private, PublicKey(*once), *once, self.public)?;
        open_text(&key, &[0; NONCE_BYTES], text, about).filter(|_| version == VERSION)
    }
}

/// Opens ciphertext; none when it was sealed by another key, with another nonce or about something else, or was damaged.
fn open_text(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; NONCE_BYTES],
    text: &[u8],
    about: About<'_>,
) -> Option<Clear> {
    let aad = about.bytes();
    let text = Payload {
        msg: text,
        aad: &aad,
    };
    let clear = XChaCha20Poly1305::new(key.into()).decrypt(nonce.into(), text);
    clear.ok().map(Zeroizing::new)
}

/// Seals `clear` so that only the private half of `to` opens it. None when `to` is no usable key.
pub fn seal_for(
    to: PublicKey,
    clear: &[u8],
    about: About<'_>,
    chance: &mut impl RngCore,
) -> Option<Sealed> {
    let mut private = Zeroizing::new([0; KEY_BYTES]);
    chance.fill_bytes(&mut *private);
    let once = KeyPair::from_private(&private);
    let key = box_key(&once.private, to, once.public.0, to)?;
    // The key is used for this alone, so any nonce will do.
    let text = XChaCha20Poly1305::new((&*key).into()).encrypt(
        (&[0; NONCE_BYTES]).into(),
        Payload {
            msg: clear,
            aad: &about.bytes(),
        },
    );
    let mut bytes = vec![VERSION];
    bytes.extend(once.public.0);
    bytes.extend(text.ok()?);
    Some(Sealed::of(&bytes))
}

/// The key of a sealed box; none when the other half gives no secret (a point of low order).
fn box_key(
    private: &StaticSecret,
    other: PublicKey,
    once: [u8; KEY_BYTES],
    to: PublicKey,
) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let shared = private.diffie_hellman(&Point::from(other.0));
    if !shared.was_contributory() {
        return None;
    }
    let salt = [once, to.0].concat();
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let expanded = Hkdf::<Sha256>::new(Some(&salt), shared.as_bytes()).expand(PURPOSE, &mut *key);
    expanded.ok().map(|()| key)
}

impl DataKey {
    /// A new one.
    pub fn draw(chance: &mut impl RngCore) -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        chance.fill_bytes(&mut *key);
        DataKey(key)
    }

    /// The data key in a share that was opened.
    pub fn of(clear: &[u8]) -> Option<Self> {
        let key: [u8; KEY_BYTES] = clear.try_into().ok()?;
        Some(DataKey(Zeroizing::new(key)))
    }

    /// Its bytes, to be sealed for a manager.
    pub fn bytes(&self) -> &[u8] {
        &*self.0
    }

    /// Seals `clear` for all who have this key.
    pub fn seal(&self, clear: &[u8], about: About<'_>, chance: &mut impl RngCore) -> Sealed {
        let mut nonce = [0; NONCE_BYTES];
        chance.fill_bytes(&mut nonce);
        let text = XChaCha20Poly1305::new((&*self.0).into()).encrypt(
            (&nonce).into(),
            Payload {
                msg: clear,
                aad: &about.bytes(),
            },
        );
        let mut bytes = vec![VERSION];
        bytes.extend(nonce);
        bytes.extend(text.expect("a value is far shorter than the cipher allows"));
        Sealed::of(&bytes)
    }

    /// Opens what was sealed by this key about `about`; none when it was not, or was damaged.
    pub fn open(&self, sealed: &Sealed, about: About<'_>) -> Option<Clear> {
        let bytes = sealed.bytes()?;
        let (&[version], rest) = bytes.split_first_chunk()?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>()?;
        open_text(&self.0, nonce, text, about).filter(|_| version == VERSION)
    }
}

impl Sealed {
    fn of(bytes: &[u8]) -> Self {
        Sealed(STANDARD_NO_PAD.encode(bytes).into())
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD_NO_PAD.decode(&*self.0).ok()
    }

    /// Its length as text, bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Sealed({} bytes)", self.len())
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Sealed(text.into()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PublicKey({self})")
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyPair({})", self.public)
    }
}

/// The 32 bytes that 64 hex digits say.
pub(super) fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let key = from_hex(&text).map(PublicKey);
        key.ok_or_else(|| serde::de::Error::custom("a public key is 64 hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Rngs;
    use proptest::prelude::*;

    fn pair(byte: u8) -> KeyPair {
        KeyPair::from_private(&[byte; KEY_BYTES])
    }

    const ABOUT: About<'static> = About::Delivery {
        worker: 7,
        name: "db",
        version: 3,
    };

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_its_key_and_its_purpose_alone(clear: Vec<u8>, seed: [u8; 32], flip: usize) {
            let mut chance = Rngs::from_seed(seed).stream("test");
            let sealed = seal_for(pair(1).public(), &clear, ABOUT, &mut chance).unwrap();
            prop_assert_eq!(&*pair(1).open(&sealed, ABOUT).unwrap(), &clear);
            prop_assert!(pair(2).open(&sealed, ABOUT).is_none());
            let other = About::Delivery { worker: 8, name: "db", version: 3 };
            prop_assert!(pair(1).open(&sealed, other).is_none());
            let damaged = flipped(&sealed, flip);
            prop_assert!(pair(1).open(&damaged, ABOUT).is_none());
            let key = DataKey::draw(&mut chance);
            let sealed = key.seal(&clear, ABOUT, &mut chance);
            prop_assert_eq!(&*key.open(&sealed, ABOUT).unwrap(), &clear);
            let value = About::Value { name: "db", version: 3 };
            prop_assert!(key.open(&sealed, value).is_none());
            prop_assert!(key.open(&flipped(&sealed, flip), ABOUT).is_none());
            prop_assert!(DataKey::draw(&mut chance).open(&sealed, ABOUT).is_none());
        }

        #[test]
        fn no_bytes_make_a_reader_panic(text: String) {
            let sealed = Sealed(text.into());
            prop_assert!(pair(1).open(&sealed, ABOUT).is_none());
        }
    }

    fn flipped(sealed: &Sealed, at: usize) -> Sealed {
        let mut bytes = sealed.bytes().unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1;
        Sealed::of(&bytes)
    }

    #[test]
    fn the_same_sealed_twice_looks_different() {
        let mut chance = Rngs::from_seed([5; 32]).stream("test");
        let mut seal = || seal_for(pair(1).public(), b"x", ABOUT, &mut chance).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_key_that_gives_no_secret_is_refused() {
        let mut chance = Rngs::from_seed([5; 32]).stream("test");
        assert!(seal_for(PublicKey([0; KEY_BYTES]), b"x", ABOUT, &mut chance).is_none());
    }

    #[test]
    fn keys_are_hex_and_private_halves_are_never_shown() {
        let json = serde_json::to_string(&pair(1).public()).unwrap();
        assert_eq!(json.len(), 2 + 2 * KEY_BYTES);
        let back: PublicKey = serde_json::from_str(&json).unwrap();
        assert_eq!(back, pair(1).public());
        assert!(serde_json::from_str::<PublicKey>("\"00\"").is_err());
        assert!(!format!("{:?}", pair(1)).contains("0101"));
    }
}
