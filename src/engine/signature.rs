//! ed25519 signatures of engine files.
//!
//! What is signed are the bytes of the preamble, which hold the digest of the header, which lists the
//! digest of every blob: one signature pins the whole file. A signed file names its signer's public key, so
//! that a file of somebody else can be told from one that was tampered with.
//!
//! Keys are files as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them (PEM or DER), or
//! 32 raw bytes: the seed of a secret key, or a public key.

use std::fmt;
use std::path::Path;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::EngineError;
use crate::hex::hex;

/// Public key and signature; all zero in a file that nobody signed.
pub const SIGNATURE_BYTES: usize = 96;
const KEY_BYTES: usize = 32;
/// Keeps these signatures apart from any that the same key makes of something else.
const CONTEXT: &[u8] = b"rtrt-codegen engine file\n";
/// What PKCS#8 puts in front of a seed, and X.509 in front of a public key: RFC 8410 leaves no choice.
const SECRET_DER: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const PUBLIC_DER: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// Whose engines are trusted; prints in hex.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Signs engines.
pub struct SecretKey(SigningKey);

impl PublicKey {
    /// # Errors
    /// If the file cannot be read or holds no public key.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        let bytes = key_bytes(path, PUBLIC_DER, "public")?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(PublicKey(key)),
            _ => Err(wrong_key(path, "it is no point of the curve")),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl SecretKey {
    /// # Errors
    /// If the file cannot be read or holds no secret key.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        key_bytes(path, SECRET_DER, "secret").map(|seed| SecretKey(SigningKey::from_bytes(&seed)))
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Public key and signature of a file with this preamble.
    pub fn sign(&self, preamble: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut both = [0; SIGNATURE_BYTES];
        both[..KEY_BYTES].copy_from_slice(self.0.verifying_key().as_bytes());
        both[KEY_BYTES..].copy_from_slice(&self.0.sign(&message(preamble)).to_bytes());
        both
    }
}

fn message(preamble: &[u8]) -> Vec<u8> {
    [CONTEXT, preamble].concat()
}

/// Checks the signature of a file, if it has one, and that it is `wanted`'s, if anybody's is wanted.
///
/// # Errors
/// If there is no such signature, or it is not of this preamble.
pub fn check(
    preamble: &[u8],
    both: &[u8; SIGNATURE_BYTES],
    wanted: Option<&PublicKey>,
) -> Result<(), EngineError> {
    if both.iter().all(|&byte| byte == 0) {
        return unsigned(wanted);
    }
    let (key, signature) = both.split_at(KEY_BYTES);
    let forged = || EngineError::Forged;
    let key = VerifyingKey::try_from(key).map_err(|_| forged())?;
    if let Some(wanted) = wanted.filter(|wanted| wanted.0 != key) {
        return Err(EngineError::OtherSigner {
            wanted: wanted.to_string(),
            found: PublicKey(key).to_string(),
        });
    }
    let signature = Signature::from_slice(signature).map_err(|_| forged())?;
    key.verify_strict(&message(preamble), &signature)
        .map_err(|_| forged())
}

/// What a file without a signature is.
///
/// # Errors
/// If a signature is wanted.
pub fn unsigned(wanted: Option<&PublicKey>) -> Result<(), EngineError> {
    match wanted {
        None => Ok(()),
        Some(wanted) => Err(EngineError::Unsigned {
            wanted: wanted.to_string(),
        }),
    }
}

fn wrong_key(path: &Path, reason: &str) -> EngineError {
    EngineError::Key {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The 32 bytes of a key of one `kind`, whose DER form begins with `head`.
fn key_bytes(path: &Path, head: &[u8], kind: &str) -> Result<[u8; KEY_BYTES], EngineError> {
    let file = std::fs::read(path).map_err(|source| EngineError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let der = match file.strip_prefix(b"-----BEGIN ") {
        Some(_) => from_pem(&file).ok_or_else(|| wrong_key(path, "its PEM text is damaged"))?,
        None => file,
    };
    let key = der.strip_prefix(head).unwrap_or(&der);
    let other = [SECRET_DER, PUBLIC_DER]
        .iter()
        .any(|other| *other != head && der.starts_with(other));
    key.try_into().map_err(|_| {
        let kind = format!("it is no {kind} ed25519 key: PEM, DER or 32 bytes are expected");
        let hint = if other {
            ", and it is the other half of a pair"
        } else {
            ""
        };
        wrong_key(path, &(kind + hint))
    })
}

/// What stands between the first two lines with dashes.
fn from_pem(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let inner = text.lines().skip(1).take_while(|line| !line.starts_with("-----"));
    from_base64(inner.flat_map(|line| line.trim().bytes()))
}

fn from_base64(digits: impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut n_bits) = (0u32, 0);
    for digit in digits.filter(|&digit| digit != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits & 0xff) as u8);
            bits &= (1 << n_bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair as OpenSSL writes it.
    const SECRET: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEILhwj4EymwwxXBNFATNvVSgoNl0Wy95pIhHmWLZwdewQ
-----END PRIVATE KEY-----
";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA+24QQ/u0O2Wzjzil7pDFdu0kWqzNmAZzuTiQxdUQ+cM=
-----END PUBLIC KEY-----
";

    fn with_file<T>(content: &[u8], read: impl FnOnce(&Path) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, content).unwrap();
        read(&path)
    }

    #[test]
    fn pairs_of_openssl_are_read_in_every_form() {
        let secret = with_file(SECRET.as_bytes(), SecretKey::load).unwrap();
        let public = with_file(PUBLIC.as_bytes(), PublicKey::load).unwrap();
        assert_eq!(secret.public(), public);
        let der = from_pem(SECRET.as_bytes()).unwrap();
        assert_eq!(with_file(&der, SecretKey::load).unwrap().public(), public);
        let seed = &der[SECRET_DER.len()..];
        assert_eq!(with_file(seed, SecretKey::load).unwrap().public(), public);
        assert_eq!(with_file(public.0.as_bytes(), PublicKey::load).unwrap(), public);
    }

    #[test]
    fn what_is_no_key_is_said() {
        let error = |content: &[u8]| with_file(content, PublicKey::load).unwrap_err().to_string();
        assert!(error(SECRET.as_bytes()).contains("the other half"));
        assert!(error(b"short").contains("32 bytes are expected"));
        assert!(error(b"-----BEGIN PUBLIC KEY-----\n?\n").contains("damaged"));
        let mut off_the_curve = [0; 32];
        off_the_curve[0] = 2;
        assert!(error(&off_the_curve).contains("no point of the curve"));
        assert!(PublicKey::load(Path::new("nowhere.pem")).is_err());
    }

    #[test]
    fn signatures_are_of_one_preamble_and_one_key() {
        let secret = with_file(SECRET.as_bytes(), SecretKey::load).unwrap();
        let other = with_file(&[3; 32], SecretKey::load).unwrap().public();
        let both = secret.sign(b"preamble");
        check(b"preamble", &both, Some(&secret.public())).unwrap();
        check(b"preamble", &both, None).unwrap();
        let refused = |preamble, both, wanted| check(preamble, both, wanted).unwrap_err();
        assert!(matches!(refused(b"preambel", &both, None), EngineError::Forged));
        assert!(matches!(
            refused(b"preamble", &both, Some(&other)),
            EngineError::OtherSigner { .. }
        ));
        let none = [0; SIGNATURE_BYTES];
        check(b"preamble", &none, None).unwrap();
        assert!(matches!(
            refused(b"preamble", &none, Some(&other)),
            EngineError::Unsigned { .. }
        ));
        for byte in 0..SIGNATURE_BYTES {
            let mut changed = both;
            changed[byte] ^= 1;
            assert!(check(b"preamble", &changed, None).is_err(), "byte {byte}");
        }
    }
}
