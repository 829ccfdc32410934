//! A server on a free port of 127.0.0.1, and a client that sends exactly what a test says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control::api::{self, Registry, ServeOptions, Tokens, WriteOptions};
use control::config::SubjectName;
use control::pki::Pki;
use control::resources::{self, Ranges};
use control::store::{Options, Store};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Nothing a test waits for takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A token the server knows, of user ann.
pub(crate) const TOKEN: &str = "sesame";

/// A running server; it stops when dropped.
pub(crate) struct Server {
    pub(crate) registry: Registry,
    address: SocketAddr,
    admin: Arc<ClientConfig>,
    nobody: Arc<ClientConfig>,
    pub(crate) kubeconfig: String,
    pub(crate) stop: CancellationToken,
    pub(crate) task: Option<JoinHandle<std::io::Result<()>>>,
    _dir: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    /// The body, once the code is what it should be.
    #[track_caller]
    pub(crate) fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// The message of a failure, once code and reason are what they should be.
    #[track_caller]
    pub(crate) fn refused(&self, code: u16, reason: &str) -> String {
        let status = self.expect(code);
        assert_eq!(
            (&status["kind"], &status["status"], &status["reason"], &status["code"]),
            (&json!("Status"), &json!("Failure"), &json!(reason), &json!(code))
        );
        status["message"].as_str().expect("a failure has a message").to_owned()
    }
}

/// Who sends a request.
#[derive(Clone, Copy)]
pub(crate) enum Who {
    /// By client certificate.
    Admin,
    /// Neither certificate nor token.
    Nobody,
}

/// The lines of a watch.
pub(crate) struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; none when the watch has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event is JSON"));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event in time")?;
            self.buffer
                .extend_from_slice(&frame.ok()?.into_data().unwrap_or_default());
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn brief(&mut self) -> String {
        let event = self.next().await.expect("the watch goes on");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().expect("an event has a type"))
    }
}

impl Server {
    /// A server with a namespace `default`.
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// The same over a store of these sizes.
    pub(crate) async fn start_with(options: Options) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("control-api-")
            .tempdir()
            .expect("a directory");
        let store = Store::open(dir.path(), options).expect("a new store opens");
        let ranges = Ranges::parse("10.96.0.0/16", "30000-32767").expect("good ranges");
        let registry = Registry::new(store, ranges);
        let namespaces = resources::find("", "v1", "namespaces").expect("there are namespaces");
        let default = json!({ "metadata": { "name": "default" } });
        registry
            .create(namespaces, None, default, &WriteOptions::default())
            .await
            .expect("a namespace");

        let pki = Pki::open_or_create(dir.path()).expect("an authority");
        let name = SubjectName::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let tls = pki
            .server_config(&[name].into_iter().collect())
            .expect("a server certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let stop = CancellationToken::new();
        let tokens = Tokens::parse(&format!("{TOKEN},ann,1")).expect("a good token file");
        let options = ServeOptions {
            tokens,
            ..ServeOptions::default()
        };
        let task = tokio::spawn(api::serve(vec![listener], tls, registry.clone(), options, stop.clone()));

        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(dir.path().join("pki/ca.crt")).expect("the authority's certificate");
        roots.add(ca).expect("a good authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = || {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
            builder
                .with_safe_default_protocol_versions()
                .expect("TLS")
                .with_root_certificates(roots.clone())
        };
        let admin = pki.admin().expect("an administrator");
        let kubeconfig = pki
            .kubeconfig(&format!("https://{address}"), "admin", &admin)
            .expect("a kubeconfig");
        let chain = vec![CertificateDer::from_pem_slice(admin.certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(admin.key.as_bytes()).expect("a key");
        let admin = client().with_client_auth_cert(chain, key).expect("a pair that fits");
        let nobody = client().with_no_client_auth();
        let (admin, nobody) = (Arc::new(admin), Arc::new(nobody));
        Self {
            registry,
            address,
            admin,
            nobody,
            kubeconfig,
            stop,
            task: Some(task),
            _dir: dir,
        }
    }

    /// Sends a request over HTTP/1.1, or HTTP/2 if `h2`, on a connection of its own.
    pub(crate) async fn request(&self, who: Who, h2: bool, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        let config = match who {
            Who::Admin => &self.admin,
            Who::Nobody => &self.nobody,
        };
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let tcp = TcpStream::connect(self.address).await.expect("the server listens");
        let name = ServerName::from(self.address.ip());
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .expect("TLS");
        let io = TokioIo::new(tls);
        let answer = if h2 {
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .expect("HTTP/2");
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        answer.expect("an answer")
    }

    /// Sends a request as the administrator, with these headers.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send_as(Who::Admin, method, path, headers, body).await
    }

    /// The same as somebody else.
    pub(crate) async fn send_as(
        &self,
        who: Who,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let request = self.build(method, path, headers, body);
        let (head, body) = self.request(who, false, request).await.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        Answer {
            code: head.status.as_u16(),
            headers: head.headers,
            bytes,
        }
    }

    pub(crate) fn build(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address));
        request = request.header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body.into())).expect("a good request")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", "application/json")], "")
            .await
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Answer {
        self.send(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send(
            Method::PUT,
            path,
            &[("content-type", "application/json")],
            object.to_string(),
        )
        .await
    }

    /// `kind` is `json`, `merge`, `strategic-merge`.
    pub(crate) async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answer {
        let media_type = format!("application/{kind}-patch+json");
        self.send(
            Method::PATCH,
            path,
            &[("content-type", media_type.as_str())],
            patch.to_string(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    /// Starts a watch; the path has the parameters.
    pub(crate) async fn watch(&self, path: &str, accept: &str) -> Events {
        let request = self.build(Method::GET, path, &[("accept", accept)], "");
        let response = self.request(Who::Admin, false, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Events {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// Makes a ConfigMap in `default`.
    pub(crate) async fn config_map(&self, name: &str, labels: Value) -> Value {
        let object = json!({ "metadata": { "name": name, "labels": labels }, "data": { "k": "v" } });
        self.post(CONFIG_MAPS, &object).await.expect(201)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Where ConfigMaps of `default` are.
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Where Services of `default` are.
pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A Service with one port.
pub(crate) fn service(name: &str) -> Value {
    json!({ "kind": "Service", "apiVersion": "v1", "metadata": { "name": name },
            "spec": { "selector": { "app": name }, "ports": [{ "name": "http", "port": 80 }] } })
}

/// The resource version of an object or list.
pub(crate) fn version_of(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"]
        .as_str()
        .expect("an object has a resourceVersion");
    text.parse().expect("a resourceVersion is a number here")
}
