//! A certificate authority of a test.
use super::{done, program, write};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A certificate authority, made by openssl, that nobody but the test knows.
#[derive(Debug)]
pub struct Authority {
    folder: tempfile::TempDir,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// Where openssl fails.
    #[must_use]
    pub fn new() -> Self {
        let authority = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-days",
            "30",
            "-subj",
            "/CN=test authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ]);
        authority
    }

    /// Its certificate, as a PEM file.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A certificate and its key, as PEM files `NAME.crt` and `NAME.key` in a folder, for a server of these names
    /// (`DNS:localhost`, `IP:127.0.0.1`).
    ///
    /// # Panics
    /// Where openssl fails.
    pub fn server(&self, into: &Path, name: &str, names: &str) -> (PathBuf, PathBuf) {
        self.issue(into, name, name, "serverAuth", Some(names))
    }

    /// A certificate and its key for a client who logs in as a role.
    ///
    /// # Panics
    /// Where openssl fails.
    pub fn client(&self, into: &Path, role: &str) -> (PathBuf, PathBuf) {
        self.issue(into, role, role, "clientAuth", Some(&format!("DNS:{role}")))
    }

    fn issue(
        &self,
        into: &Path,
        file: &str,
        common_name: &str,
        usage: &str,
        names: Option<&str>,
    ) -> (PathBuf, PathBuf) {
        let mut extensions = format!(
            "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\n"
        );
        if let Some(names) = names {
            extensions.push_str(&format!("subjectAltName={names}\n"));
        }
        std::fs::write(self.folder.path().join("leaf.ext"), extensions).unwrap();
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "leaf.key",
            "-out",
            "leaf.csr",
            "-subj",
            &format!("/CN={common_name}"),
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            "leaf.ext",
            "-out",
            "leaf.crt",
        ]);
        let mut paths = ["crt", "key"].map(|ending| {
            let text = std::fs::read_to_string(self.folder.path().join(format!("leaf.{ending}")));
            let path = into.join(format!("{file}.{ending}"));
            // A server refuses a key that others may read.
            write(
                &path,
                &text.unwrap(),
                if ending == "key" { 0o600 } else { 0o644 },
            );
            path
        });
        (std::mem::take(&mut paths[0]), std::mem::take(&mut paths[1]))
    }

    fn openssl(&self, args: &[&str]) {
        done(
            Command::new(program("openssl", "openssl"))
                .args(args)
                .current_dir(self.folder.path()),
        );
    }
}
