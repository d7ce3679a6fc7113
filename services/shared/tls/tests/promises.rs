//! Over real connections: who is let in, and what happens when the files change.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc, time::Duration};

use lifecycle::Lifecycle;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use settings::Reader;
use tempfile::TempDir;
use tls::{
    Mutual, Public, Stream,
    testing::{Authority, Issued},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::TlsConnector;

fn read(settings: &BTreeMap<String, String>) -> Result<Option<Mutual>, String> {
    let mut r = Reader::from_map(settings.clone());
    let mutual = Mutual::read(&mut r);
    r.finish().map_err(|errors| errors.to_string())?;
    Ok(mutual.unwrap())
}

fn identity(issued: &Issued, authority: &str) -> Mutual {
    let folder = TempDir::new().unwrap();
    read(&issued.write(folder.path(), authority)).unwrap().unwrap()
}

/// Both ends of a connection, or why the client has none. The server speaks first, as those of HTTP/2 do.
async fn meet(
    server: &Mutual,
    client: &Mutual,
    name: &'static str,
) -> (io::Result<Stream>, io::Result<Stream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async {
        let mut stream = server.accept(listener.accept().await?.0).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        Ok(stream)
    };
    let calling = async { client.connect(name, TcpStream::connect(address).await?).await };
    tokio::join!(serving, calling)
}

/// What a client that brings its own rustls gets from a server.
async fn answer(server: &Mutual, config: ClientConfig) -> (io::Result<Stream>, io::Result<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async { server.accept(listener.accept().await?.0).await };
    let calling = async {
        let name = ServerName::try_from("transfer").unwrap();
        let stream = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    tokio::join!(serving, calling)
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    roots
}

fn client(authority: &Authority) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(authority))
}

fn certificate_of(stream: &Stream) -> CertificateDer<'static> {
    let Stream::Tls(stream) = stream else {
        unreachable!("in clear text")
    };
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn two_services_of_one_authority_meet() {
    let authority = Authority::new();
    let server = identity(&authority.issue("transfer"), &authority.certificate);
    let client = identity(&authority.issue("gateway"), &authority.certificate);
    let (server, client) = meet(&server, &client, "transfer").await;
    let (_server, mut client) = (server.unwrap(), client.unwrap());
    let mut heard = [0; 5];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(
        &heard, b"hello",
        "what told the client that it was let in is not lost"
    );
}

#[tokio::test]
async fn a_server_of_another_name_or_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let client = identity(&ours.issue("gateway"), &ours.certificate);
    for (server, reason) in [
        (
            identity(&ours.issue("auth"), &ours.certificate),
            "not valid for name",
        ),
        (
            identity(&theirs.issue("transfer"), &theirs.certificate),
            "UnknownIssuer",
        ),
    ] {
        let (near, far) = meet(&server, &client, "transfer").await;
        let error = far.unwrap_err();
        assert!(tls::is_disagreement(&error), "{error}");
        let told = error.to_string();
        assert!(
            told.starts_with("no TLS with transfer: ") && told.contains(reason),
            "{told}"
        );
        near.unwrap_err();
    }
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_before_it_asks() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = identity(&ours.issue("transfer"), &ours.certificate);
    let both = format!("{}{}", ours.certificate, theirs.certificate);
    let stranger = identity(&theirs.issue("gateway"), &both);
    let (near, far) = meet(&server, &stranger, "transfer").await;
    assert!(far.unwrap_err().to_string().contains("UnknownCA"));
    assert!(near.unwrap_err().to_string().contains("UnknownIssuer"));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::new();
    let server = identity(&authority.issue("transfer"), &authority.certificate);
    let (near, far) = answer(&server, client(&authority).with_no_client_auth()).await;
    assert!(far.unwrap_err().to_string().contains("CertificateRequired"));
    assert!(near.unwrap_err().to_string().contains("no certificates"));
}

#[tokio::test]
async fn a_client_in_clear_text_is_refused() {
    let authority = Authority::new();
    let server = identity(&authority.issue("transfer"), &authority.certificate);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let refused = server
        .accept(listener.accept().await.unwrap().0)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("InvalidContentType"), "{refused}");
}

#[tokio::test]
async fn who_connects_later_sees_the_new_certificates() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let settings = old.issue("transfer").write(folder.path(), &old.certificate);
    let server = read(&settings).unwrap().unwrap();
    let lifecycle = Lifecycle::new(Duration::ZERO);
    server.watch_every(Duration::from_millis(10), &lifecycle);
    let caller = identity(&old.issue("gateway"), &old.certificate);
    let (near, far) = meet(&server, &caller, "transfer").await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let first = certificate_of(&far);

    // renewed by the same authority
    old.issue("transfer").write(folder.path(), &old.certificate);
    eventually(async || certificate_of(&meet(&server, &caller, "transfer").await.1.unwrap()) != first).await;

    // half written: the key does not fit yet, and everybody still gets in
    let next = new.issue("transfer");
    fs::write(folder.path().join("tls.crt"), &next.certificate).unwrap();
    sleep(Duration::from_millis(50)).await;
    meet(&server, &caller, "transfer").await.1.unwrap();

    // another authority: who still comes with the old one is refused
    next.write(folder.path(), &new.certificate);
    let caller = identity(&new.issue("gateway"), &new.certificate);
    eventually(async || meet(&server, &caller, "transfer").await.1.is_ok()).await;
    let old_caller = identity(&old.issue("gateway"), &old.certificate);
    meet(&server, &old_caller, "transfer").await.1.unwrap_err();

    // a connection that was there goes on
    near.write_all(b"!").await.unwrap();
    near.flush().await.unwrap();
    let mut heard = [0; 6];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello!");
}

async fn eventually(holds: impl AsyncFn() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    unreachable!("not in time");
}

#[test]
fn files_that_cannot_be_used_are_one_line_each() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let good = ours.issue("transfer");
    let settings = good.write(folder.path(), &ours.certificate);
    let refused = |file: &str, content: &str| {
        good.write(folder.path(), &ours.certificate);
        fs::write(folder.path().join(file), content).unwrap();
        let told = read(&settings).map(|_| ()).unwrap_err();
        assert_eq!(told.lines().count(), 1, "{told}");
        told
    };
    for (file, content, told) in [
        (
            "tls.key",
            ours.issue("transfer").key,
            "KONTOR_TLS_KEY_FILE: …/tls.key is not the key of the certificate in …/tls.crt",
        ),
        (
            "tls.key",
            String::new(),
            "KONTOR_TLS_KEY_FILE: …/tls.key has no private key (PEM)",
        ),
        (
            "tls.crt",
            "?".to_owned(),
            "KONTOR_TLS_CERT_FILE: …/tls.crt has no certificate (PEM)",
        ),
        (
            "ca.crt",
            String::new(),
            "KONTOR_TLS_CA_FILE: …/ca.crt has no certificate (PEM)",
        ),
        (
            "ca.crt",
            theirs.certificate.clone(),
            "KONTOR_TLS_CERT_FILE: the others would refuse …/tls.crt: ",
        ),
        (
            "tls.crt",
            ours.issue_expired("transfer").certificate,
            "KONTOR_TLS_CERT_FILE: the others would refuse …/tls.crt: ",
        ),
    ] {
        let refused = refused(file, &content).replace(&folder.path().display().to_string(), "…");
        assert!(refused.starts_with(told), "{refused}");
    }
    good.write(folder.path(), &ours.certificate);
    read(&settings).unwrap().unwrap();
    fs::remove_file(folder.path().join("ca.crt")).unwrap();
    let told = read(&settings).map(|_| ()).unwrap_err();
    assert!(told.starts_with("KONTOR_TLS_CA_FILE: cannot read "), "{told}");
}

#[test]
fn all_files_are_given_or_none() {
    assert!(read(&BTreeMap::new()).unwrap().is_none());
    let some = BTreeMap::from([("KONTOR_TLS_CA_FILE".to_owned(), "ca.crt".to_owned())]);
    let told = read(&some).map(|_| ()).unwrap_err();
    assert_eq!(
        told,
        "KONTOR_TLS_CERT_FILE: is required where KONTOR_TLS_CA_FILE is set"
    );
}

#[tokio::test]
async fn the_public_door_asks_for_no_certificate() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let path = |name| Path::new(folder.path()).join(name).display().to_string();
    authority.issue("kontor.example").write(folder.path(), "");
    let mut r = Reader::from_map(BTreeMap::from([
        ("KONTOR_PUBLIC_TLS_CERT_FILE".to_owned(), path("tls.crt")),
        ("KONTOR_PUBLIC_TLS_KEY_FILE".to_owned(), path("tls.key")),
    ]));
    let public = Public::read(&mut r).unwrap().unwrap();
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = client(&authority).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let calling = async {
            let name = ServerName::try_from("kontor.example").unwrap();
            let stream = TcpStream::connect(address).await.unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        };
        let serving = async { public.accept(listener.accept().await.unwrap().0).await };
        let (near, far) = tokio::join!(serving, calling);
        near.unwrap();
        assert_eq!(far.unwrap().get_ref().1.alpn_protocol(), Some(protocol));
    }
}
