//! SCRAM-SHA-256 verifiers, as PostgreSQL keeps them (RFC 5802, RFC 7677).
//!
//! The server stores what proves a password and not the password. Made here, the password itself never leaves this
//! process: no statement, no log and no statistics of the server can hold it.
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// What PostgreSQL uses where it makes a verifier itself.
pub(super) const ITERATIONS: u32 = 4_096;

/// How long a salt is, in bytes, as PostgreSQL makes them.
pub(super) const SALT: usize = 16;

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
pub(super) fn verifier(password: &str, salt: &[u8], iterations: u32) -> String {
    let salted = salted(password, salt, iterations);
    let client_key = hmac(&salted, b"Client Key");
    let stored_key = Sha256::digest(client_key);
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

fn salted(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    // As PostgreSQL and its clients do: a password that SASLprep refuses is taken as it is.
    let prepared = stringprep::saslprep(password).unwrap_or(std::borrow::Cow::Borrowed(password));
    pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), salt, iterations)
}

#[expect(
    clippy::expect_used,
    reason = "HMAC is defined for keys of every length, so the constructor cannot refuse one"
)]
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    Hmac::<Sha256>::new_from_slice(key)
        .expect("a key of any length")
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(verifier: &str) -> (Vec<u8>, Vec<u8>) {
        let keys = verifier.split('$').nth(2).unwrap();
        let (stored, server) = keys.split_once(':').unwrap();
        (
            STANDARD.decode(stored).unwrap(),
            STANDARD.decode(server).unwrap(),
        )
    }

    /// The exchange of RFC 7677, section 3: what the RFC's client proves and its server signs is what our keys give.
    #[test]
    fn the_exchange_of_the_rfc_holds() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = verifier("pencil", &salt, 4_096);
        assert!(
            verifier.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"),
            "{verifier}"
        );
        let (stored_key, server_key) = parts(&verifier);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let message = format!(
            "n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}"
        );
        let signature = hmac(&server_key, message.as_bytes());
        assert_eq!(
            STANDARD.encode(signature),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let proof = STANDARD
            .decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
            .unwrap();
        let client_signature = hmac(&stored_key, message.as_bytes());
        let client_key: Vec<u8> = proof
            .iter()
            .zip(client_signature)
            .map(|(proof, signature)| proof ^ signature)
            .collect();
        assert_eq!(Sha256::digest(client_key).as_slice(), stored_key);
    }

    /// RFC 4013, section 3: what looks the same is the same password.
    #[test]
    fn passwords_are_prepared() {
        let made = |password: &str| verifier(password, b"0123456789abcdef", 4_096);
        assert_eq!(made("I\u{ad}X"), made("IX"), "a soft hyphen is nothing");
        assert_eq!(made("\u{2168}"), made("IX"), "the roman nine is IX");
        assert_eq!(made("\u{aa}"), made("a"));
        assert_eq!(made("a\u{a0}b"), made("a b"), "a space is a space");
        assert_ne!(made("user"), made("USER"));
        // What SASLprep prohibits is taken as it is.
        assert_ne!(made("\u{7}"), made(""));
        assert_ne!(made("\u{627}\u{31}"), made("\u{627}"));
        assert_ne!(made("a"), verifier("a", b"0123456789abcdeg", 4_096));
        assert_ne!(made("a"), verifier("a", b"0123456789abcdef", 4_097));
    }
}
