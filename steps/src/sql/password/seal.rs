//! The verifier that stood before, in the journal: sealed, so that only who has the new password can read it.
//!
//! A verifier is nearly a password: with it a password can be guessed without the server, and a man in the middle can
//! play the server. So the journal holds it encrypted (AES-256-GCM) under a key that is derived from the new password
//! (PBKDF2-HMAC-SHA-256). Whoever undoes the step has that password: it is the secret that the step names.
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use windlass_engine::step::Failure;

/// Slower than a verifier itself, so that the journal is not the easier place to guess at.
const ITERATIONS: u32 = 100_000;

/// Sealed text; all of it in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    salt: String,
    nonce: String,
    content: String,
}

/// So many bytes that nobody can foresee.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| {
        Failure::new(
            "sql.no_random",
            "the operating system gives no random bytes",
        )
    })?;
    Ok(bytes)
}

fn key(password: &str, salt: &[u8]) -> Result<RandomizedNonceKey, Failure> {
    let key = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, ITERATIONS);
    RandomizedNonceKey::new(&AES_256_GCM, &key)
        .map_err(|_| Failure::new("sql.seal", "the previous password cannot be sealed"))
}

/// Seals a text under a password. `about` must be the same to open it.
pub(super) fn seal(text: &str, password: &str, about: &str) -> Result<Sealed, Failure> {
    let salt = random::<16>()?;
    let mut content = text.as_bytes().to_vec();
    let nonce = key(password, &salt)?
        .seal_in_place_append_tag(Aad::from(about.as_bytes()), &mut content)
        .map_err(|_| Failure::new("sql.seal", "the previous password cannot be sealed"))?;
    Ok(Sealed {
        salt: STANDARD.encode(salt),
        nonce: STANDARD.encode(nonce.as_ref()),
        content: STANDARD.encode(content),
    })
}

/// Opens what was sealed; `None` where the password is another one.
pub(super) fn open(sealed: &Sealed, password: &str, about: &str) -> Option<String> {
    let salt = STANDARD.decode(&sealed.salt).ok()?;
    let nonce = STANDARD.decode(&sealed.nonce).ok()?;
    let mut content = STANDARD.decode(&sealed.content).ok()?;
    let plain = key(password, &salt)
        .ok()?
        .open_in_place(
            Nonce::try_assume_unique_for_key(&nonce).ok()?,
            Aad::from(about.as_bytes()),
            &mut content,
        )
        .ok()?;
    String::from_utf8(plain.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_password_opens() {
        let text = "SCRAM-SHA-256$4096:abc$def:ghi";
        let sealed = seal(text, "new", "run/app").unwrap();
        assert_eq!(open(&sealed, "new", "run/app").as_deref(), Some(text));
        assert_eq!(open(&sealed, "old", "run/app"), None);
        assert_eq!(open(&sealed, "new", "run/other"), None);
        let written = serde_json::to_string(&sealed).unwrap();
        assert!(!written.contains("SCRAM"), "{written}");
        assert_ne!(
            seal(text, "new", "run/app").unwrap(),
            sealed,
            "never sealed alike"
        );
        let cut = Sealed {
            content: STANDARD.encode(b"short"),
            ..sealed
        };
        assert_eq!(open(&cut, "new", "run/app"), None);
    }
}
