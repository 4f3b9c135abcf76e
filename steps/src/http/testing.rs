//! A small HTTP server of the tests' own, on a loopback port: what it answers, byte for byte, is the test's to say.
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// One part of an answer.
#[derive(Clone)]
pub(super) enum Part {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing for this long.
    Pause(Duration),
    /// So many bytes, until the client goes away.
    Flood(usize),
}

/// Answers every request with the same parts, then closes the connection.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    sent: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with this head and body.
pub(super) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<Part> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend(body);
    vec![Part::Bytes(bytes)]
}

impl Server {
    pub(super) async fn start(parts: Vec<Part>) -> Self {
        Self::listen(move |_| parts.clone(), None).await
    }

    /// What it answers follows from the request's first line.
    pub(super) async fn by_request(
        parts: impl Fn(&str) -> Vec<Part> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(parts, None).await
    }

    pub(super) async fn tls(parts: Vec<Part>, certificate: &Certificate) -> Self {
        Self::listen(move |_| parts.clone(), Some(certificate.acceptor())).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the server of a test runs beside the step that is tested"
    )]
    async fn listen(
        parts: impl Fn(&str) -> Vec<Part> + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::new(Mutex::new(0));
        let (kept, counted) = (requests.clone(), sent.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match &tls {
                    None => serve(stream, &parts, &kept, &counted).await,
                    // A client that does not trust the certificate hangs up.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, &parts, &kept, &counted).await;
                        }
                    }
                }
            }
        });
        Self {
            address,
            requests,
            sent,
            task,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests, whole, as they came.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// How many bytes of answers the network took.
    pub(super) fn sent(&self) -> usize {
        *self.sent.lock().unwrap()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    parts: &(impl Fn(&str) -> Vec<Part> + Send + Sync),
    requests: &Mutex<Vec<String>>,
    sent: &Mutex<usize>,
) {
    let Some(request) = read(&mut stream).await else {
        return;
    };
    let first = request.lines().next().unwrap_or_default().to_owned();
    requests.lock().unwrap().push(request);
    for part in parts(&first) {
        match part {
            Part::Pause(time) => tokio::time::sleep(time).await,
            Part::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
                *sent.lock().unwrap() += bytes.len();
            }
            Part::Flood(size) => {
                let chunk = [b'x'; 8_192];
                let mut left = size;
                while left > 0 {
                    let part = &chunk[..left.min(chunk.len())];
                    if stream.write_all(part).await.is_err() {
                        return;
                    }
                    left -= part.len();
                    *sent.lock().unwrap() += part.len();
                }
            }
        }
        stream.flush().await.ok();
    }
    stream.shutdown().await.ok();
}

/// A request with as much body as it announces.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4_096];
        let count = stream.read(&mut chunk).await.ok()?;
        if count == 0 {
            return None;
        }
        bytes.extend(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, length)| length.parse().unwrap());
        if body.len() >= length {
            return Some(text);
        }
    }
}

/// A certificate that signs itself, made by `openssl`.
pub(super) struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '))
            .args(["-subj", &format!("/CN={name}")])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(&folder)
            .output()
            .expect("openssl is missing; install it (apt-get install openssl)");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        Self { folder }
    }

    pub(super) fn path(&self) -> String {
        self.folder.join("cert.pem").display().to_string()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_file(self.path()).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.folder.join("key.pem")).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
